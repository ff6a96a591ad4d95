"""Exported tickets open where others take them: in timm with any classes, in transformers, and as ONNX."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import nn

from sslticket import models
from sslticket.errors import BadInput
from sslticket.export import writer
from sslticket.export.writer import export_ticket
from sslticket.ticket import Ticket
from tests.export.conftest import made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exported folder of a ResNet-18."""
    place = tmp_path_factory.mktemp("consumers")
    made("resnet18", "cifar10").save(place / "ticket.safetensors")
    export_ticket(place / "ticket.safetensors", place / "card")
    return place / "card"


@pytest.mark.parametrize("classes", [None, 0, 10, 1000])
@pytest.mark.parametrize("channels", [3, 1])
def test_timm_takes_the_folder_with_any_classes_and_channels(folder: Path, classes: int | None, channels: int) -> None:
    import timm

    wanted = {} if classes is None else {"num_classes": classes}
    model = timm.create_model(f"local-dir:{folder}", pretrained=True, in_chans=channels, **wanted)
    state, ticket = model.state_dict(), Ticket.load(folder)
    other = {"conv1.weight"} if channels == 1 else set()  # which timm sums over its channels
    assert {name for name, value in ticket.weights.items() if not torch.equal(state[name], value)} == other
    assert model.eval()(torch.zeros(1, channels, 32, 32)).shape == (1, classes or 512)


def test_the_folder_has_what_transformers_knows_timms_networks_by(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    assert (config["architecture"], config["num_classes"], config["model_args"]) == ("resnet18", 0, {})
    assert config["pretrained_cfg"]["classifier"] == "fc"
    assert config["pretrained_cfg"]["first_conv"] == "conv1"
    assert "model_type" not in config  # by which transformers would take it for a network of its own


@pytest.mark.filterwarnings("ignore")
def test_transformers_auto_model_is_the_sparse_network(folder: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    model = transformers.AutoModel.from_pretrained(folder).eval()
    state, ticket = model.state_dict(), Ticket.load(folder)
    assert all(torch.equal(state[f"timm_model.{name}"], value) for name, value in ticket.weights.items())
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    ours = ticket.apply(models.create_model("resnet18", image_size=32)).eval()
    with torch.no_grad():
        assert torch.allclose(model(pixel_values=images).pooler_output, ours(images), atol=1e-5)
        classifier = transformers.AutoModelForImageClassification.from_pretrained(folder, num_labels=10)
        assert classifier(pixel_values=images).logits.shape == (2, 10)


@pytest.fixture(params=[True, False], ids=["with its head", "features alone"])
def ticket(request: pytest.FixtureRequest) -> Ticket:
    """A small ticket, with a classification layer and without."""
    found = made("conv3", "digits", channels=1, image_size=8)
    head = nn.Linear(32, 10).state_dict() if request.param else None
    return Ticket.from_dense_weights(
        found.mask, found.weights, level=3, recipe=found.recipe, provenance=found.provenance, head=head
    )


@pytest.mark.filterwarnings("ignore")
def test_onnx_computes_what_torch_does(ticket: Ticket, tmp_path: Path) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    import onnxruntime

    ticket.save(tmp_path / "ticket.safetensors")
    export_ticket(tmp_path / "ticket.safetensors", tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    assert [each.name for each in session.get_outputs()] == ["features", *(["logits"] if ticket.head else [])]
    backbone = ticket.apply(models.create_model("conv3", channels=1, image_size=8)).eval()
    images = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    computed = [torch.from_numpy(each) for each in session.run(None, {"images": images.numpy()})]
    with torch.no_grad():
        features = backbone(images)
    assert torch.allclose(computed[0], features, atol=1e-5)
    if ticket.head:
        logits = nn.functional.linear(features, ticket.head["weight"], ticket.head["bias"])
        assert torch.allclose(computed[1], logits, atol=1e-5)
    assert str(Path(__file__).parents[2]).encode() not in (tmp_path / "net.onnx").read_bytes()
    with pytest.raises(BadInput, match="is there already"):
        export_ticket(tmp_path / "ticket.safetensors", tmp_path / "net.onnx")


def test_without_onnx_one_line_says_what_to_install(
    ticket: Ticket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticket.save(tmp_path / "ticket.safetensors")
    monkeypatch.setattr(writer, "find_spec", lambda name: None if name == "onnxscript" else find_spec("json"))
    with pytest.raises(BadInput, match=r"needs onnxscript, not installed here; pip install 'sslticket\[onnx\]'$"):
        export_ticket(tmp_path / "ticket.safetensors", tmp_path / "net.onnx")
    with pytest.raises(BadInput, match=r"is a network's name, and --format is for state dicts"):
        export_ticket(tmp_path / "ticket.safetensors", tmp_path / "net.onnx", layout="plain")
    assert [path.name for path in tmp_path.iterdir()] == ["ticket.safetensors"]
