"""State dicts for plain PyTorch and for torch.nn.utils.prune: names, values and what networks make of them."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils import prune

from sslticket import models
from sslticket.errors import BadInput
from sslticket.export.writer import export_ticket
from sslticket.ticket import Ticket
from tests.export.conftest import made


def read(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        return load_file(path)
    state: dict[str, Tensor] = torch.load(path, weights_only=True)
    return state


@pytest.fixture
def ticket(tmp_path: Path) -> Ticket:
    ticket = made("resnet18", "cifar10")
    ticket.save(tmp_path / "ticket.safetensors")
    return ticket


@pytest.mark.parametrize("name", ["state.safetensors", "state.pt", "state.pth"])
def test_plain_is_weights_times_mask_for_the_original_network(ticket: Ticket, tmp_path: Path, name: str) -> None:
    from torchvision.models import resnet18

    export_ticket(tmp_path / "ticket.safetensors", tmp_path / name)
    state = read(tmp_path / name)
    assert state.keys() == ticket.weights.keys()
    assert all(torch.equal(state[each], value) for each, value in ticket.weights.items())
    odd = resnet18().load_state_dict(state, strict=False)
    assert (odd.missing_keys, odd.unexpected_keys) == (["fc.weight", "fc.bias"], [])


@pytest.mark.parametrize("name", ["state.safetensors", "state.pt"])
@pytest.mark.parametrize("how", ["identity", "custom_from_mask"])
def test_a_network_under_torch_prune_takes_it_whole(ticket: Ticket, tmp_path: Path, name: str, how: str) -> None:
    export_ticket(tmp_path / "ticket.safetensors", tmp_path / name, layout="prune")
    backbone = models.create_model("resnet18", image_size=32)
    for path, module in backbone.named_modules():
        if f"{path}.weight" not in ticket.mask:
            continue
        if how == "identity":
            prune.identity(module, "weight")
        else:
            prune.custom_from_mask(module, "weight", ticket.mask[f"{path}.weight"])
    backbone.load_state_dict(read(tmp_path / name))
    ours = ticket.apply(models.create_model("resnet18", image_size=32))
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(backbone.eval()(images), ours.eval()(images))
    backbone(images).sum().backward()
    optimizer = torch.optim.SGD(backbone.parameters(), lr=0.1)
    optimizer.step()
    backbone(images)
    conv = backbone.get_submodule("layer1.0.conv1")
    assert isinstance(conv, nn.Conv2d)
    assert not conv.weight[~ticket.mask["layer1.0.conv1.weight"]].any(), "it stays sparse in training"


def test_bad_names_and_formats(ticket: Ticket, tmp_path: Path) -> None:
    file = tmp_path / "ticket.safetensors"
    with pytest.raises(BadInput, match="unknown format 'onnx' of a state dict; give --format plain or prune"):
        export_ticket(file, tmp_path / "state.pt", layout="onnx")
    with pytest.raises(BadInput, match=r"--format is for files; end it in \.safetensors or \.pt or \.pth"):
        export_ticket(file, tmp_path / "state", layout="prune")
    before = file.read_bytes()
    with pytest.raises(BadInput, match="is there already"):
        export_ticket(file, file)
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]
    export_ticket(file, tmp_path / "state.safetensors")
    with pytest.raises(BadInput, match="no ticket of sslticket"):
        Ticket.load(tmp_path / "state.safetensors")


def test_another_model_or_input_size_is_named() -> None:
    ticket = made("lenet300", "digits", channels=1, image_size=8)
    with pytest.raises(
        BadInput, match=r"is \(300, 64\) .* and \(300, 144\) .*; it is for lenet300 and gray images of 8 by 8"
    ):
        ticket.apply(models.create_model("lenet300", channels=1, image_size=12))
    with pytest.raises(BadInput, match=r"it has no .*; it is for lenet300 and gray images of 8 by 8 pixels"):
        ticket.apply(models.create_model("resnet20", channels=1, image_size=8))
