"""The folder for the Hugging Face Hub: what is in it is exact, its card's lines run, and it is there whole or not."""

import json
import re
import shutil
import socket
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import nn

from sslticket.errors import BadInput, WriteError
from sslticket.export.writer import export_ticket
from sslticket.storage.files import write_row
from sslticket.ticket import Ticket
from tests.export.conftest import made


def front_matter(folder: Path) -> dict[str, object]:
    found: dict[str, object] = yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])
    return found


def scores(run: Path, pattern: str) -> list[float]:
    return [json.loads(path.read_text())["top1"] for path in sorted((run / "rows").glob(pattern))]


def test_what_is_exported_is_the_ticket_to_the_bit(file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    export_ticket(file, folder)
    ticket = Ticket.load(file)
    assert (folder / "ticket.safetensors").read_bytes() == file.read_bytes()
    assert Ticket.load(folder).hash == Ticket.load(str(folder)).hash == ticket.hash
    state = load_file(folder / "model.safetensors")
    assert state.keys() == ticket.weights.keys()
    for name, value in state.items():
        assert torch.equal(value, ticket.weights[name])
        assert name not in ticket.mask or not value[~ticket.mask[name]].any()
    config = json.loads((folder / "config.json").read_text())
    assert (config["recipe"], config["provenance"]) == (ticket.recipe, ticket.provenance)
    assert (config["model"], config["channels"], config["image_size"]) == ("conv3", 1, 8)
    assert (config["survivors"], config["prunable"], config["level"]) == (1746, 13968, 3)


def test_the_card_says_what_was_measured_and_how_it_was_found(run: Path, file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    export_ticket(file, folder)
    top1 = scores(run, "level-03.ticket.*")
    mean = sum(top1) / 2
    about = front_matter(folder)
    (result,) = about["model-index"][0]["results"]  # type: ignore[index]
    assert result["dataset"]["name"] == "digits"
    assert result["metrics"][0]["value"] == pytest.approx(mean, abs=1e-6)
    assert {"lottery-ticket", "sparse", "rotnet", "digits"} <= set(about["tags"])  # type: ignore[call-overload]
    assert (about["license"], about["library_name"]) == ("cc-by-4.0", "sslticket")
    text = (folder / "README.md").read_text()
    # Two trainings of one search say nothing of another search's luck, so there is no spread.
    assert f"| 12.5% | {100 * mean:.1f} |" in text
    assert "\n    mine.py --data-root digits --out=there --subset 0.5\n" in text
    assert Ticket.load(file).hash in text
    assert (folder / "curve.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert "(curve.png)" in text


def test_rows_of_an_earlier_ticket_of_the_same_name_and_of_other_recipes_are_left_out(
    run: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    for path in (copy / "rows").glob("level-03.ticket.*"):
        write_row(path, json.loads(path.read_text()) | {"ticket_hash": "of another", "top1": 0.6543})
    for path in (copy / "rows").glob("level-00.ticket.*"):
        write_row(path, json.loads(path.read_text()) | {"recipe": "another", "top1": 0.987})
    export_ticket(copy / "tickets" / "level-03.safetensors", tmp_path / "out")
    assert "model-index" not in front_matter(tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    assert "65.4" not in text
    assert "98.7" not in text
    assert "| 100% |" in text, "the random tickets' rows are there"


def test_a_lone_ticket_has_no_curve_and_its_card_says_so(file: Path, tmp_path: Path) -> None:
    lone = shutil.copy(file, tmp_path / "lone.safetensors")
    told = export_ticket(lone, tmp_path / "out")
    assert "without a curve" in told
    assert not (tmp_path / "out" / "curve.png").exists()
    assert "Not measured" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize(
    ("model", "dataset", "channels", "call"),
    [
        ("resnet18", "cifar10", 3, 'get_model("resnet18")'),
        ("resnet18", "mnist", 1, 'models.create_model("resnet18", channels=1, image_size=32)'),
        ("resnet20", "cifar10", 3, 'models.create_model("resnet20", channels=3, image_size=32)'),
        ("test_resnet", "mnist", 1, 'timm.create_model("test_resnet", num_classes=0, in_chans=1)'),
        ("test_vit", "cifar10", 3, 'timm.create_model("test_vit", num_classes=0, img_size=32)'),
        ("shufflenet_v2_x0_5", "cifar10", 3, 'get_model("shufflenet_v2_x0_5")'),
    ],
)
def test_the_cards_lines_make_the_network_with_its_weights(
    model: str, dataset: str, channels: int, call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticket, folder = made(model, dataset, channels=channels), tmp_path / "out"
    ticket.save(tmp_path / "ticket.safetensors")
    export_ticket(tmp_path / "ticket.safetensors", folder)
    blocks = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(folder)
    states = []
    for block in blocks:
        assert call in block
        names: dict[str, nn.Module] = {}
        exec(block, names)
        states.append(names["model"])
    gated, plain = states
    images = torch.randn(2, channels, 32, 32)
    assert dict(plain.state_dict()).keys() >= ticket.weights.keys()
    for name, value in ticket.weights.items():
        assert torch.equal(plain.state_dict()[name], value)
    same = {name: value for name, value in plain.state_dict().items() if name not in ticket.weights}
    gated.load_state_dict(same, strict=False)  # the classification layer, which each drew for itself
    assert torch.equal(gated.eval()(images), plain.eval()(images))


def test_timm_makes_its_networks_from_the_folder(tmp_path: Path) -> None:
    import timm

    for model, dataset, channels in (
        ("test_resnet", "mnist", 1),
        ("resnet18", "cifar10", 3),
        ("test_vit", "cifar10", 3),
    ):
        ticket = made(model, dataset, channels=channels)
        ticket.save(tmp_path / "ticket.safetensors")
        export_ticket(tmp_path / "ticket.safetensors", tmp_path / model)
        state = timm.create_model(f"local-dir:{tmp_path / model}", pretrained=True).state_dict()
        assert all(torch.equal(state[name], value) for name, value in ticket.weights.items())
    made("resnet20", "cifar10").save(tmp_path / "ticket.safetensors")
    export_ticket(tmp_path / "ticket.safetensors", tmp_path / "ours")
    assert "architecture" not in json.loads((tmp_path / "ours" / "config.json").read_text()), "timm has no resnet20"


def test_what_is_there_is_never_replaced(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    export_ticket(file, folder)
    (folder / "README.md").write_text("my own words")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(BadInput, match="is there already and not empty; delete it or give another name"):
        export_ticket(file, folder)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    export_ticket(file, tmp_path / "link")
    assert (tmp_path / "link" / "ticket.safetensors").exists()
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(BadInput, match="is there already"):
        export_ticket(file, tmp_path / "taken")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(BadInput, match="the folder that you are in"):
        export_ticket(file, Path())


def test_a_failed_export_leaves_nothing(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, value: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sslticket.export.writer.write_json", full)
    with pytest.raises(WriteError, match="No space left on device") as refused:
        export_ticket(file, tmp_path / "out")
    assert refused.value.filename == str(tmp_path / "out"), "and not a temporary one's"
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(WriteError) as refused:
        export_ticket(file, tmp_path / "taken" / "out")
    assert refused.value.filename == str(tmp_path / "taken" / "out")


@pytest.mark.parametrize("left", [("README.md",), ("config.json", "ticket.safetensors"), None], ids=str)
def test_an_export_that_was_killed_is_finished_by_the_same_command(
    file: Path, tmp_path: Path, left: tuple[str, ...] | None
) -> None:
    folder = tmp_path / "out"
    export_ticket(file, folder)
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    remains = tmp_path / f".out.{socket.gethostname()}.{2**30}.part"  # no system has so many processes
    shutil.copytree(folder, remains)
    for name in whole.keys() - set(whole if left is None else left):
        (folder / name).unlink()
    export_ticket(file, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("name", ["out.safetensors", "out.pth"])
def test_a_state_that_was_written_is_no_hindrance_to_the_same_command(file: Path, tmp_path: Path, name: str) -> None:
    export_ticket(file, tmp_path / name)
    written = lambda: ((found := (tmp_path / name).stat()).st_ino, found.st_mtime_ns, found.st_size)  # noqa: E731
    before = written()
    export_ticket(file, tmp_path / name)
    assert written() == before
    with pytest.raises(BadInput, match="is there already; delete it"):
        export_ticket(file, tmp_path / name, layout="prune")
    assert written() == before


def test_only_the_ticket_decides(file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    export_ticket(file, folder)
    for damage in ("", "{", '{"model": "resnet50", "density": 2}'):
        (folder / "config.json").write_text(damage)
        assert Ticket.load(folder).hash == Ticket.load(file).hash
    whole = (folder / "ticket.safetensors").read_bytes()
    (folder / "ticket.safetensors").write_bytes(whole[:-9])
    with pytest.raises(BadInput, match=r"out/ticket\.safetensors is no whole safetensors file"):
        Ticket.load(folder)


def test_other_folders_are_named_as_what_they_are(run: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"the folder of a run with 4 tickets; .* such as .*level-03\.safetensors"):
        Ticket.load(run)
    with pytest.raises(BadInput, match=r"is no exported ticket, it holds no ticket\.safetensors"):
        Ticket.load(tmp_path)


def test_a_ticket_that_tells_nothing_is_refused(tmp_path: Path) -> None:
    ticket = made("resnet20", "cifar10")
    Ticket(ticket.mask, ticket.weights, 3, {"model": "resnet20"}, {}).save(tmp_path / "ticket.safetensors")
    with pytest.raises(BadInput, match="does not say where it is from") as caught:
        export_ticket(tmp_path / "ticket.safetensors", tmp_path / "out")
    assert "\n" not in str(caught.value)
