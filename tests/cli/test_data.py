"""`sslticket data list`, `verify` and `pack` in this process."""

import gzip
import shutil
from pathlib import Path

import pytest

from sslticket.cli.commands import run_command
from sslticket.data.source import open_split
from sslticket.errors import BadInput
from sslticket.storage.leases import hold_alone
from tests.data.test_arrays import write_cifar10
from tests.data.test_imagenet import KIT, kit, tar
from tests.digits import write_digits


def sslticket(*words: object) -> None:
    run_command([str(word) for word in words])


def problems(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What was found wrong, a line each."""
    return [
        line.removeprefix("PROBLEM ") for line in capsys.readouterr().out.splitlines() if line.startswith("PROBLEM")
    ]


def test_the_list_shows_counts_and_where_each_set_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_cifar10(tmp_path / "cifar10/cifar-10-batches-py")
    monkeypatch.setenv("SSLTICKET_DATA", str(tmp_path))
    sslticket("data", "list")
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert lines["cifar10"].endswith(str(tmp_path / "cifar10/cifar-10-batches-py"))
    words = " ".join(lines["imagenet"].split())
    assert words == "imagenet 1,281,167 / 50,000 1,000 3 non-commercial research not found"
    assert "1,803,460 / 36,500" in lines["places365"]
    assert lines["digits"].endswith("inside scikit-learn")


def test_a_whole_set_is_verified(capsys: pytest.CaptureFixture[str]) -> None:
    sslticket("data", "verify", "digits", "--decode", "all")
    printed = capsys.readouterr().out
    assert "train: 1,438 images of 10 classes, 139 to 146 each" in printed
    assert printed.endswith("digits is as it was published\n")


def test_counts_sums_and_empty_classes_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_cifar10(tmp_path / "cifar-10-batches-py")
    (folder / "test_batch").write_bytes((folder / "test_batch").read_bytes()[:200])
    with pytest.raises(BadInput, match="cifar10 has 10 problems, named above"):
        sslticket("data", "verify", "cifar10", "--data-root", tmp_path)
    found = problems(capsys)
    assert sum("the official file" in line for line in found) == 7
    assert f"{folder / 'test_batch'} is damaged" in found[7]
    assert found[8] == ("train: 10 images of 10 classes, 0 to 3 each; published are 50,000 images of 10 classes")
    assert found[9:] == ["train: no images of classes bird, deer, dog, horse, truck"]


@pytest.mark.data
def test_every_bad_image_and_every_strange_class_is_named(
    few_photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(few_photographs / "train", tmp_path / "train")
    shutil.copytree(few_photographs / "train", tmp_path / "val")
    wnids = sorted(path.name for path in (tmp_path / "train").iterdir())
    (tmp_path / KIT).write_bytes(tar(kit([*wnids[1:], "n99999999"], [0]), "w:gz"))
    paths = sorted((tmp_path / "train").glob("*/*"))
    paths[3].write_bytes(b"")
    paths[8].write_bytes(paths[8].read_bytes()[:5000])
    with pytest.raises(BadInput, match="imagenet has 9 problems"):
        sslticket("data", "verify", "imagenet", "--data-root", tmp_path, "--decode", "all", "--no-md5")
    found = problems(capsys)
    for split in ("train", "eval"):
        assert f"{split}: none of the published classes: class {wnids[0]}" in found
        assert f"{split}: missing: class n99999999" in found
    assert "train: 30 images of 30 classes, 1 to 1 each; published are 1,281,167 images of 1,000 classes" in found
    assert "train: 30 images decoded, 2 cannot be read" in found
    assert f"{paths[3]}: the file is empty" in found
    assert [line for line in found if line.startswith(f"{paths[8]}: image file is truncated")]
    with pytest.raises(BadInput):
        sslticket("data", "verify", "imagenet", "--data-root", tmp_path, "--decode", "2")
    assert not [line for line in problems(capsys) if "cannot be read" in line]


@pytest.mark.data
def test_a_damaged_file_is_named_once_and_hides_nothing_else(
    few_photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(few_photographs / "train", tmp_path / "train")
    shutil.copytree(few_photographs / "train", tmp_path / "val")
    next((tmp_path / "val").glob("*/*")).write_bytes(b"")
    (tmp_path / KIT).write_bytes(b"cut")
    with pytest.raises(BadInput, match="imagenet has 5 problems"):
        sslticket("data", "verify", "imagenet", "--data-root", tmp_path, "--decode", "all", "--no-md5")
    found = problems(capsys)
    assert sum(str(tmp_path / KIT) in line for line in found) == 1
    assert sum("the file is empty" in line for line in found) == 1
    folder = write_cifar10(tmp_path / "cifar-10-batches-py")
    (folder / "batches.meta").unlink()
    with pytest.raises(BadInput, match="cifar10 has 1 problem, named above"):
        sslticket("data", "verify", "cifar10", "--data-root", folder, "--no-md5")


@pytest.mark.data
def test_own_images_without_evaluation_images_are_no_problem(
    few_photographs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sslticket("data", "verify", "folder", "--data-root", few_photographs / "train", "--decode", "5")
    printed = capsys.readouterr().out
    assert "5 images decoded, 0 cannot be read" in printed
    assert printed.endswith("no problem found in folder\n")  # nothing was published of them


@pytest.mark.data
def test_packed_images_are_read_with_data_root(
    few_photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("data", "pack", "folder", tmp_path / "out", "--data-root", few_photographs, "--short-side", "64")
    for _ in range(2):
        sslticket(*words)
        printed = capsys.readouterr().out
        assert "train: 30 images packed\neval: 30 images packed\n" in printed
        assert f"--data-root {tmp_path / 'out'}" in printed
    assert len(open_split("folder", "eval", tmp_path / "out").manifest) == 30
    sslticket("data", "verify", "folder", "--data-root", tmp_path / "out", "--decode", "all")
    assert "train: 30 images decoded, 0 cannot be read" in capsys.readouterr().out


def test_two_commands_do_not_pack_into_one_folder(tmp_path: Path) -> None:
    images, out = write_digits(tmp_path / "images", train=2), tmp_path / "out"
    words = ("data", "pack", "folder:digits", out, "--data-root", images, "--short-side", "6")
    sslticket(*words)
    said = r"another process is packing into .*: pid .*; wait for it or give another OUT"
    with hold_alone(out / ".pack.claim", "packing", "", print), pytest.raises(BadInput, match=said):
        sslticket(*words)
    sslticket(*words)
    assert {path.name for path in out.iterdir()} == {"pack.json", "train"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["verify", "imagnet"], "unknown dataset 'imagnet'; did you mean imagenet"),
        (["verify", "imagenet"], "no images of imagenet found"),
        (["verify", "digits", "--decode", "some"], "--decode 'some' is no number of images; give a number, or all"),
        (["pack", "digits", "{out}", "--short-side", "8"], "digits is kept whole in memory"),
        (["pack", "digits", "{out}"], "required: --short-side"),
        (["pack", "digits", "{out}", "--short-side", "0"], "--short-side must be at least 1"),
        (["pack", "digits", "{out}", "--shortside", "8"], "short-side"),
        (["lst"], "lst"),
    ],
)
def test_bad_input_is_one_line(tmp_path: Path, words: list[str], message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        sslticket("data", *[word.format(out=tmp_path / "out") for word in words])
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.data
def test_a_gzipped_file_with_another_sum_is_named(
    test_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(test_data / "fashion-mnist", tmp_path / "fashion")
    labels = folder / "t10k-labels-idx1-ubyte.gz"
    labels.write_bytes(gzip.compress(gzip.decompress(labels.read_bytes()), 1))
    with pytest.raises(BadInput, match="1 problem,"):
        sslticket("data", "verify", "fashion_mnist", "--data-root", folder)
    (found,) = problems(capsys)
    assert found.startswith(f"{labels} has the MD5 sum")
