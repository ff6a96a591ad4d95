"""Data sets of one's own: any folder by name, with a seeded split, and a `Dataset` in a user's file."""

from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sslticket.cli.ticket_commands import selected_protocols
from sslticket.config.recipe import Data, Recipe, RecipeRecord
from sslticket.data.datasets import CATALOGUED, DATASETS
from sslticket.data.datasets.base import SPLITS
from sslticket.data.datasets.catalogue import (
    find_folder_path,
    get_dataset,
    known_dataset,
    load_dataset,
    split_folder_path,
)
from sslticket.data.datasets.locate import MissingSplit
from sslticket.data.own_images import KeptSplit, own_folder_name
from sslticket.data.source import DataSource, check_complete, is_complete, open_split
from sslticket.errors import BadInput
from tests.data.conftest import Refused
from tests.digits import write_digits
from tests.runs import recipe

OWN = """
from pathlib import Path
import numpy as np
from sslticket.data.augment import View
from sslticket.data.datasets.base import Dataset, ImageArrays, Layout

class Ramp(Layout):
    def find(self, dataset, folder):
        return folder
    def open(self, dataset, split, folder):
        images = np.arange(20 * 64).reshape(20, 8, 8, 1).astype(np.uint8)
        return ImageArrays(images, np.arange(20) % 2, ("a", "b")) if split == "train" else None

OWN = Dataset(
    name="NAME", channels=1, mean=(0.5,), std=(0.5,), train_view=View(size=8), eval_view=View(size=8),
    kind="arrays", layout=Ramp(), train_fraction=0.75,
)
"""


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """DIR/flowers/train/<digit>/, ten images of each digit and none for evaluation."""
    return write_digits(tmp_path / "flowers", train=10).parent


def files(source: DataSource) -> list[str]:
    return list(source.manifest.frame["file"])


def test_a_folder_without_evaluation_images_gets_a_seeded_split_of_each_class(digits: Path) -> None:
    train, evaluation = (open_split("folder:flowers", split, digits) for split in ("train", "eval"))
    assert train.manifest.class_counts().tolist() == [8] * 10
    assert evaluation.manifest.class_counts().tolist() == [2] * 10
    assert not set(files(train)) & set(files(evaluation))
    whole = open_split("folder", "train", digits / "flowers")
    assert sorted(files(train) + files(evaluation)) == files(whole)
    assert train.manifest.classes == evaluation.manifest.classes == whole.manifest.classes
    again = open_split("folder:flowers", "eval", digits / "flowers")  # the folder itself does as well
    assert files(again) == files(evaluation)
    assert len({source.manifest.hash for source in (train, evaluation, whole)}) == 3


def test_the_split_does_not_move_an_image_when_others_of_its_class_come(digits: Path) -> None:
    before = set(files(open_split("folder:flowers", "eval", digits)))
    (digits / "flowers/train/3/new.png").write_bytes(
        (digits / "flowers/train/3/").glob("*.png").__next__().read_bytes()
    )
    after = set(files(open_split("folder:flowers", "eval", digits)))
    assert {file for file in before ^ after if not file.startswith("3/")} == set()


def test_evaluation_images_of_the_folders_own_are_taken_as_they_are(digits: Path) -> None:
    write_digits(digits / "flowers", train=10, val=3)
    assert open_split("folder:flowers", "train", digits).manifest.class_counts().tolist() == [10] * 10
    assert open_split("folder:flowers", "eval", digits).manifest.class_counts().tolist() == [3] * 10


def test_a_folder_is_found_by_its_name_and_its_images_are_called_so(
    digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSLTICKET_DATA", str(digits))
    source = open_split("folder:flowers", "train")
    assert source.manifest.root == digits / "flowers" / "train"
    assert (source.manifest.name, own_folder_name(source)) == ("folder:flowers", "flowers")


def test_classes_of_one_image_have_none_for_evaluation(tmp_path: Path) -> None:
    write_digits(tmp_path / "flowers", train=1)
    assert len(open_split("folder:flowers", "train", tmp_path).manifest) == 10
    with pytest.raises(MissingSplit, match="too few images"):
        open_split("folder:flowers", "eval", tmp_path)


def test_the_set_folder_still_has_no_split_of_its_own(digits: Path) -> None:
    assert open_split("folder", "train", digits / "flowers").manifest.class_counts().tolist() == [10] * 10
    with pytest.raises(MissingSplit):
        open_split("folder", "eval", digits / "flowers")


@pytest.mark.parametrize("name", ["folder:", "folder:a/b", "folder:../x", "folder:.a", "folder:a ", "folder:a\tb"])
def test_a_name_that_is_no_folders_is_refused(name: str, refused: Refused) -> None:
    with refused("folder:NAME must have", repr(name), "--data-root"):
        get_dataset(name)
    with refused("no part of it", "--part"):
        Data(dataset="folder:flowers", part="some")


@pytest.mark.parametrize(
    ("word", "root", "expected"),
    [
        ("folder:flowers", None, ("folder:flowers", None)),
        ("folder:flowers", "/data", ("folder:flowers", "/data")),
        ("folder:./My flowers", None, ("folder:My flowers", ".")),
        ("folder:/data/flowers/", None, ("folder:flowers", "/data")),
        ("folder:sub/flowers", "/data", ("folder:flowers", "/data/sub")),
        ("folder:/a/b", "/data", ("folder:b", "/a")),
        ("cifar10", None, ("cifar10", None)),
        ("mine.py:OWN", None, ("mine.py:OWN", None)),
    ],
)
def test_a_folders_path_is_its_name_and_where_it_lies(
    word: str, root: str | None, expected: tuple[str, str | None]
) -> None:
    name, where = split_folder_path(word, None if root is None else Path(root))
    assert (name, where) == (expected[0], None if expected[1] is None else Path(expected[1]))


def test_a_path_that_is_no_folders_is_not_taken_for_what_it_lies_in(digits: Path, refused: Refused) -> None:
    flowers = digits / "flowers"
    assert find_folder_path(f"folder:{flowers}", None) == ("folder:flowers", digits)
    image = next(flowers.rglob("*.png"))
    for place, state in ((flowers / "typo", "is not there"), (image, "is no folder")):
        with refused(f"{place} {state}", "give folder:PATH"):
            find_folder_path(f"folder:{place}", None)
        with refused(f"{place} {state}", "give folder:PATH"):
            selected_protocols(Namespace(protocol=[f"folder:{place},length=2ep"], part=None))


def test_a_folder_that_is_not_found_is_answered_with_what_to_type(
    digits: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    monkeypatch.chdir(digits)
    with refused("no images of folder:flowers", "as folder:./flowers"):
        open_split("folder:flowers", "train")
    with refused("folder:NAME must have", "give folder:flowers, and --data-root ."):
        open_split("folder:./flowers", "train")
    with refused("or give --dataset folder:flowers"):
        open_split("folder", "eval", digits / "flowers")


@pytest.mark.parametrize(("train", "held"), [("Train", "Valid"), ("train", "valid"), ("training", "testing")])
def test_splits_by_other_names_are_taken_as_they_are(train: str, held: str, tmp_path: Path) -> None:
    root = write_digits(tmp_path / "flowers", train=3, val=2)
    (root / "train").rename(root / "once")
    (root / "once").rename(root / train)
    (root / "val").rename(root / held)
    counts = [open_split("folder:flowers", split, tmp_path).manifest.class_counts()[0] for split in SPLITS]
    assert counts == [3, 2]


def test_a_kept_split_says_what_came_went_and_moved(digits: Path) -> None:
    def kept() -> KeptSplit:
        found = KeptSplit.of_sources(*(open_split("folder:flowers", split, digits) for split in SPLITS))
        assert found is not None
        return found

    before = kept()
    before.save(digits)
    assert KeptSplit.find(digits, "flowers", before.images_hash) == before
    assert before.note_of_change(digits) == ""
    moving = digits / "flowers/train/3"
    (moving / "9.png").rename(moving / "0, new.png")
    after = kept()
    told = after.describe_changes(before)
    assert told.startswith("1 image added (3/0, new.png), 1 image removed (3/9.png), ")
    assert "images moved between training and evaluation (3/" in told
    assert after.images_hash != before.images_hash
    assert told in after.note_of_change(digits)
    next((digits / ".splits").iterdir()).write_text("[]")  # only for telling: a damaged one is no error
    assert after.note_of_change(digits) == ""


def test_a_users_set_is_named_by_its_file_and_known_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(OWN.replace("NAME", "ramp"))
    data = Data(dataset=f"{tmp_path / 'mine.py'}:OWN")
    assert data.dataset == "ramp"
    assert get_dataset("ramp") is DATASETS.get(f"{tmp_path / 'mine.py'}:OWN")
    train, evaluation = (open_split("ramp", split, tmp_path) for split in ("train", "eval"))
    assert train.manifest.class_counts().tolist() == [8, 8]  # three quarters of 10, rounded half up
    assert evaluation.images is not None
    assert evaluation.images.shape == (4, 8, 8, 1)
    assert own_folder_name(train) == "ramp"


@pytest.mark.parametrize("given", ["classes=2", "image_counts=(16, 4)", "classes=2, image_counts=(16, 4)"])
def test_the_counts_of_a_users_set_are_checked_where_they_are_given(given: str, tmp_path: Path) -> None:
    for number, own in enumerate((given, given.replace("2", "3").replace("(16", "(17"))):
        text = OWN.replace("NAME", f"ramp{number}").replace("train_fraction=0.75", f"train_fraction=0.75, {own}")
        (tmp_path / "mine.py").write_text(text)
        source = open_split(load_dataset(f"{tmp_path / 'mine.py'}:OWN").name, "train", tmp_path)
        assert is_complete(source) is (number == 0)
    with pytest.raises(BadInput, match="ramp1 has 16 training images of 2 classes, and officially"):
        check_complete([source], None)


def test_no_file_is_run_because_a_recipe_names_it(tmp_path: Path, refused: Refused) -> None:
    own = tmp_path / "theirs.py"
    own.write_text("raise SystemExit('run')")
    assert known_dataset(f"{own}:OWN") is None
    with refused("no dataset that is loaded", "--parts"):
        get_dataset(f"{own}:OWN")
    assert known_dataset({"is": "no name"}) is None
    tree = recipe().to_dict()
    for name in (f"{own}:OWN", "antigravity:OWN"):
        data = tree["data"] | {"dataset": name}
        for forged in (tree | {"data": data}, tree | {"search": data | {"is": "Data"}}):
            with refused(name, "--parts"):
                Recipe.from_dict(forged)
        recorded = RecipeRecord(tree | {"data": data}).data
        assert recorded.dataset == replace(recorded, half="a").dataset == name, "it is shown, and nothing is run"


@pytest.mark.parametrize("name", ["cifar10", "a/b", ""])
def test_a_users_set_must_have_a_name_of_its_own(name: str, tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "mine.py").write_text(OWN.replace("NAME", name))
    with refused("must be new", repr(name), "give another"):
        load_dataset(f"{tmp_path / 'mine.py'}:OWN")


def test_what_is_no_data_set_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("OWN = 3")
    with pytest.raises(BadInput, match="to be a dataset, got 3"):
        load_dataset(f"{tmp_path / 'mine.py'}:OWN")


def test_every_data_set_of_the_registry_has_its_name_and_a_layout_that_finds_nothing_in_an_empty_folder(
    tmp_path: Path,
) -> None:
    for name in CATALOGUED:
        entry = get_dataset(name)
        assert entry.name == name
        assert entry.layout.package or entry.layout.find(entry, tmp_path) is None, name
        assert entry.layout.checksums(tmp_path) == {}
        assert entry.layout.published_classes(tmp_path) is None
    assert np.isclose(get_dataset("digits").train_fraction or 0, 0.8)
