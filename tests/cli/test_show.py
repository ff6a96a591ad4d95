"""`sslticket show`: the sheet has the images of the set and the views of the search's first batch, to the pixel."""

import tarfile
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sslticket.cli import recipe_commands
from sslticket.cli import recipe_commands as command
from sslticket.cli.commands import run_command
from sslticket.config.recipe import Data, Recipe
from sslticket.config.runtime import RuntimeConfig
from sslticket.config.training import SGD, TrainConfig
from sslticket.data.loader import Sampler
from sslticket.data.source import make_loader, open_split
from sslticket.errors import BadInput
from sslticket.objectives.rotnet import RotNet
from sslticket.objectives.s4l import S4LRotation
from sslticket.objectives.simclr import SimCLR
from sslticket.search.plan import TrainingImages
from sslticket.seeds import derive_seed
from tests.recipes import FOLDER
from tests.runs import recipe

GAP, HEADING = 8, 30  # pixels between pictures, and above the first row


def sslticket(*words: object) -> None:
    run_command([str(word) for word in words])


def picture(path: Path, side: int, columns: int, row: int, column: int) -> np.ndarray:
    """One picture of a sheet whose pictures are all as large, (side, side, 3)."""
    pixels = np.asarray(Image.open(path))
    left, top = pixels.shape[1] - (columns - column) * (side + GAP), HEADING + row * (side + GAP)
    return pixels[top : top + side, left : left + side]


def enlarged(image: np.ndarray, times: int) -> np.ndarray:
    return image.repeat(times, axis=0).repeat(times, axis=1)


@pytest.fixture(scope="module")
def cifar(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 CIFAR-10 images in 2 class folders."""
    root = tmp_path_factory.mktemp("cifar10")
    with tarfile.open(test_data / "cifar10-jpeg.tar.xz") as archive:
        for number, member in enumerate(islice((member for member in archive if member.isfile()), 20)):
            member.name = f"train/class{number % 2}/{number}.jpg"
            archive.extract(member, root)
    return root


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSLTICKET_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.delenv("SSLTICKET_DATA", raising=False)


def test_digits_are_those_of_the_set_in_the_order_of_the_search(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sslticket("show", FOLDER / "rotnet_digits.py", "--seed", 3, "-o", tmp_path / "views.png", "--images", 4)
    assert capsys.readouterr().out.startswith(
        f"{tmp_path / 'views.png'}\ndigits, the first 4 images of a batch of 128; "
    )
    source = open_split("digits", "train")
    rows = Sampler(1438, 128, derive_seed(derive_seed(3, "order"), 0)).indices(0)
    assert source.images is not None
    for number, row in enumerate(rows[:4]):
        expected = np.broadcast_to(enlarged(source.images[source.manifest.array_indices[row]], 12), (96, 96, 3))
        assert np.array_equal(picture(tmp_path / "views.png", 96, 5, number, 0), expected)
        for turn in range(4):
            shown = picture(tmp_path / "views.png", 96, 5, number, 1 + turn)
            assert np.array_equal(shown, np.rot90(expected, turn))


@pytest.mark.data
def test_turns_of_photographs_are_turned_and_views_are_those_of_the_first_batch(tmp_path: Path, cifar: Path) -> None:
    path = tmp_path / "views.png"
    words = ("--batch-size", 16, "--data-root", cifar, "--part", "20", "--images", 3, "--output", path)
    sslticket("show", "rotnet_resnet18_cifar10", *words)
    source, seeds = open_split("cifar10", "train", cifar), recipe().seeds
    whole = make_loader(
        source,
        (source.dataset.train_view,),
        Sampler(20, 16, derive_seed(seeds.order, 0)),
        augment_seed=derive_seed(seeds.augment, 0),
        device=torch.device("cpu"),
        threads=1,
        max_bad_images=0,
    )
    (batch,) = whole.train(0, 1)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (source.dataset.mean, source.dataset.std))
    views = ((batch.views[0] * std + mean) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    assert source.images is not None
    for number in range(3):
        plain = source.images[source.manifest.array_indices[batch.indices[number]]]
        assert np.array_equal(picture(path, 96, 5, number, 0), enlarged(plain, 3))
        for turn in range(4):
            turned = np.rot90(enlarged(views[number], 3), turn)
            assert np.array_equal(picture(path, 96, 5, number, 1 + turn), turned)


@pytest.mark.parametrize("objective", [RotNet(), SimCLR(), S4LRotation()])
def test_the_first_images_are_those_of_the_whole_batch(objective: RotNet | SimCLR | S4LRotation) -> None:
    data = Data(dataset="digits", labels=0.5 if isinstance(objective, S4LRotation) else 1.0)
    which = recipe(objective, data=data, training=TrainConfig(length="6it", batch_size=36, optimizer=SGD(lr=0.1)))
    images = TrainingImages.open(which, RuntimeConfig())
    plain, few = command._first_images(which, RuntimeConfig(), images, 5)
    more_plain, batch = command._first_images(which, RuntimeConfig(), images, 36)
    assert torch.equal(plain, more_plain[:5])
    assert torch.equal(few.indices, batch.indices[:5])
    for view, whole in zip(few.views, batch.views, strict=True):
        assert torch.equal(view, whole[:5])
    hidden = few.labels < 0
    assert hidden.any() == (not hidden.all() and isinstance(objective, S4LRotation)), (
        "both streams, where there are two"
    )


def test_large_pictures_shrink_only_as_far_as_they_must_and_keep_their_proportions() -> None:
    large, small = np.full((2, 224, 224, 3), 50, np.uint8), np.full((2, 96, 96, 3), 90, np.uint8)

    def sides(width: int) -> tuple[int, int]:
        drawn = recipe_commands.draw_contact_sheet({"a": large, "b": small}, ["x", "y"], width)
        assert drawn.width <= width
        line = np.asarray(drawn)[HEADING + 1, :, 0]
        return int((line == 50).sum()), int((line == 90).sum())

    assert sides(1000) == (224, 96)
    shrunk = sides(300)
    assert 300 - 40 - 0.01 * (224 + 96) - 2 * GAP <= sum(shrunk) + 2 * GAP <= 300
    assert abs(shrunk[0] / shrunk[1] - 224 / 96) < 1 / shrunk[1] * 2


FAULTS = {
    "empty.py": "",
    "other.py": "recipe = 3\n",
    "typo.py": "import sslticket\n\nrecipe = sslticket.Recip()\n",
    "syntax.py": "recipe = (\n",
    "wrong.py": "from sslticket import Data\n\ndata = Data(dataset='digits', subset=2)\n",
    "running.py": "import sys\n\nsys.exit(3)\n",
}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["nowhere.py"],
            r"there is no recipe at .*nowhere\.py; give a Python file such as recipes/rotnet_resnet50\.py",
        ),
        (["."], "there is no recipe at"),
        (["empty.py"], r"empty\.py defines no recipe; a recipe file has a line that starts with: recipe = Recipe\("),
        (["other.py"], "defines no recipe"),
        (["typo.py"], r"typo\.py cannot be imported: module 'sslticket' has no attribute 'Recip' \(line 3\)"),
        (["syntax.py"], r"syntax\.py cannot be imported: '\(' was never closed \(syntax\.py, line 1\)"),
        (["wrong.py"], r"wrong\.py cannot be imported: --subset must be in \(0, 1\], got 2; .* \(line 3\)"),
        (["running.py"], r"running\.py cannot be imported: it ends the program; put run\(recipe\) below if __name__"),
        (["{recipe}", "--subst", "0.1"], "unknown flag '--subst'; did you mean --subset"),
        (["{recipe}", "-o", "views.jpg"], r"-o must be a name that ends in \.png, got views\.jpg"),
        (["{recipe}", "--images", "129"], "--images must be from 1 to 128, the images of a batch, got 129"),
        (["{recipe}", "--images", "0"], "--images must be from 1 to 128, the images of a batch, got 0"),
        (["{recipe}", "--dataset", "digts"], "unknown dataset 'digts'; did you mean digits"),
        ([], "required: RECIPE"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in FAULTS.items():
        Path(name).write_text(text)
    with pytest.raises(BadInput, match=message) as caught:
        sslticket("show", *[word.format(recipe=FOLDER / "rotnet_digits.py") for word in words])
    assert "\n" not in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} == {*FAULTS}


def test_one_view_for_an_objective_that_compares_two_is_refused(tmp_path: Path) -> None:
    from sslticket.data.augment import View

    one: Recipe = recipe(SimCLR(), data=Data(dataset="digits", augment=View(size=8)))
    with pytest.raises(BadInput, match="simclr must get at least 2 views of an image to compare, got 1"):
        command.show_views(one, RuntimeConfig(), tmp_path / "views.png", images=2, width=500)
