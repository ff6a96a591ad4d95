"""One's own images from a recipe to a report: real photographs in class folders without a split, with a long tail."""

import json
import shlex
import shutil
import tarfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sslticket.cli.commands import run_command
from sslticket.data.own_images import KeptSplit
from sslticket.errors import BadInput
from sslticket.ticket import Ticket

pytestmark = pytest.mark.data

TAIL = (40, 20, 10, 5, 2, 1)
NAME = "Bilder für uns"
SHORT = ["--length", "3it", "--image-size", "16", "--exact"]


@pytest.fixture(scope="session")
def tail(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of six class folders with 40 to 1 photographs of 64 pixels, in the forms that people's images have."""
    root = tmp_path_factory.mktemp("own") / NAME
    taken: dict[str, int] = defaultdict(int)
    with tarfile.open(test_data / "tiny-imagenet-80.tar.xz") as archive:
        for member in archive:
            split, wnid, name = [*Path(member.name).parts, "", "", ""][:3]
            if split != "train" or not member.isfile():
                continue
            if wnid not in taken and len(taken) == len(TAIL):
                break
            if taken[wnid] < TAIL[list(taken).index(wnid) if wnid in taken else len(taken)]:
                taken[wnid] += 1
                place = root / f"class {wnid}" / name
                place.parent.mkdir(parents=True, exist_ok=True)
                content = archive.extractfile(member)
                assert content is not None
                place.write_bytes(content.read())
    first, second = sorted(root.iterdir())[:2]
    photographs = sorted(first.iterdir())
    for path, mode, ending in zip(photographs[:3], ("L", "P", "CMYK"), (".PNG", ".png", ".JPG"), strict=True):
        with Image.open(path) as image:
            image.convert("RGB").convert(mode).crop((0, 0, 64, 40)).save(path.with_suffix(ending))
        path.unlink()
    photographs[3].rename(root.parent / "linked.JPEG")
    photographs[3].symlink_to(root.parent / "linked.JPEG")
    broken = sorted(second.iterdir())[0]
    broken.write_bytes(broken.read_bytes()[:100])
    (first / ".DS_Store").write_bytes(b"x")
    (root / "notes.txt").write_text("taken in May")
    return root


@pytest.fixture
def own(tail: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it in the working folder."""
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(tail, tmp_path / NAME, symlinks=True)


def command(words: str, capfd: pytest.CaptureFixture[str]) -> tuple[str, list[str]]:
    """What a command said on standard error, and the words of the command that it says comes next."""
    program, *rest = shlex.split(words)
    assert program == "sslticket"
    run_command(rest)
    said = capfd.readouterr()
    following = [line.removeprefix("next: ") for line in said.out.splitlines() if line.startswith("next: ")]
    return said.out + said.err, following


def rows_in(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*/rows/level-*.jsonl"))]


def test_the_lines_that_commands_print_lead_from_a_recipe_to_a_report(
    own: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    searches = []
    for recipe in ("supervised_digits", "rotnet_digits"):
        words = f"sslticket run {recipe} --dataset 'folder:./{NAME}' --trial {' '.join(SHORT)} --length 1ep"
        said, (evaluate,) = command(words, capfd)
        assert "1 images could not be read" in said
        assert "notes.txt" in caplog.text
        searches.append(evaluate)
        _, (report,) = command(f"{evaluate} --seeds 0 --levels 1 --exact", capfd)
        assert "no evaluation images of classes class n" in caplog.text
    command(report, capfd)
    assert (tmp_path / "report.html").exists()
    supervised, rotnet = (words.partition(" --protocol ")[2] for words in searches)
    assert supervised == rotnet, "what is searched in one folder is scored alike"
    rows = rows_in(tmp_path / "runs")
    (protocol,) = {row["protocol"] for row in rows}
    assert protocol.startswith("Bilder-f-r-uns-1ep-16px-adam-")
    assert {row["target"] for row in rows} == {row["source"] for row in rows}
    assert {row["bad_images"] for row in rows} == {1}
    assert all(0 <= row["balanced_top1"] <= 1 for row in rows)
    # One unreadable image of 20, and of the classes of 2 and 1 there is none to set aside.
    split = KeptSplit.load(next((tmp_path / "runs" / ".splits").iterdir()))
    assert split is not None
    assert (len(split.training), len(split.evaluation), split.seeded) == (32 + 16 + 8 + 4 + 2 + 1, 8 + 4 + 2 + 1, True)
    assert not {*split.training} & {*split.evaluation}


def test_a_folder_that_has_changed_is_told_and_its_old_tickets_are_not_scored_on_it(
    own: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    search = f"sslticket run rotnet_digits --dataset 'folder:{own}' --trial {' '.join(SHORT)}"
    _, (evaluate,) = command(search, capfd)
    (run,) = (path for path in (tmp_path / "runs").iterdir() if not path.name.startswith("."))
    first, second = sorted(path for path in own.iterdir() if path.is_dir())[:2]
    gone = sorted(first.iterdir())[-1]
    content = gone.read_bytes()
    gone.unlink()
    (second / "new.JPEG").write_bytes(content)
    told = rf"1 image added \({second.name}/new.JPEG\), 1 image removed \({first.name}/{gone.name}\)"
    with pytest.raises(BadInput, match=told):
        command(f"{evaluate} --seeds 0", capfd)
    said, _ = command(f"{search} --dry-run", capfd)
    assert "1 image added" in said
    assert "runs on it are new ones" in said
    assert run.name not in said.partition("run folder")[2]
    # Put back, it is the same folder, and so is a copy elsewhere; one of other images under that name is not.
    gone.write_bytes(content)
    (second / "new.JPEG").unlink()
    shutil.copytree(own, tmp_path / "copy" / NAME, symlinks=True)
    for root in (own.parent, tmp_path / "copy"):
        words = evaluate.replace(f"--data-root {own.parent}", f"--data-root {root}")
        assert (root == own.parent) == (words == evaluate)
        command(f"{words} --seeds 0 --dry-run", capfd)
    other = tmp_path / "copy" / NAME / first.name / gone.name
    other.write_bytes(b"P6 1 1 255\n123")
    for path in other.parent.iterdir():  # which are too few to have one among 64 evenly spaced ones by chance
        if path.suffix == ".JPEG" and not path.is_symlink():
            path.write_bytes(content)
    with pytest.raises(BadInput, match="the same names and other bytes"):
        command(f"{words} --seeds 0 --dry-run", capfd)


def test_a_trial_has_a_batch_that_the_images_allow_and_the_rate_for_it(
    own: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = f"sslticket run supervised_resnet50 --dataset 'folder:./{NAME}' --image-size 32 --dry-run"
    said, _ = command(f"{words} --trial", capfd)
    assert "lr 0.1 scaled to 0.00104 for --batch-size 16" in said
    assert "63 images are few for batches of 16: this search has --batch-size 4 and lr 0.00026, in proportion" in said
    assert "after step 4 = 16 samples = 10.0% of training" in said
    said, _ = command(f"{words}", capfd)
    assert "batches of 1,536: this search has --batch-size 4 and lr 0.00026" in said
    assert "has --rewind 30% in place of 3840000samples" in said
    said, _ = command(f"{words} --batch-size 96", capfd)
    assert "images are few" not in said, "what is given is taken"
    assert "lr 0.1 scaled to 0.00625" in said


def test_after_a_search_on_listed_classes_the_next_command_draws_a_new_head(
    own: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    names = sorted(path.name for path in own.iterdir() if path.is_dir())[:3]
    (tmp_path / "classes.txt").write_text("\n".join(names))
    words = f"sslticket run supervised_digits --dataset 'folder:./{NAME}' --subset-list classes.txt --trial"
    _, (evaluate,) = command(f"{words} {' '.join(SHORT)}", capfd)
    said, _ = command(f"{evaluate} --seeds 0 --dry-run", capfd)
    assert "random" in said


def test_a_run_of_an_earlier_version_keeps_its_batch(
    own: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = f"sslticket run supervised_digits --dataset 'folder:./{NAME}' {' '.join(SHORT)} --levels 1"
    command(f"{words} --batch-size 128", capfd)  # the recipe's own: the settings of a run that began without the rule
    (run,) = (path for path in (tmp_path / "runs").iterdir() if not path.name.startswith("."))
    said, _ = command(words, capfd)
    assert "images are few" not in said
    assert f"{run.name}/tickets" in said
    ticket = Ticket.load(run / "tickets" / "level-01.safetensors")
    assert ticket.recipe["fit"]["batch_size"] == 128
