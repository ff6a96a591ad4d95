import json
import math
import re
import struct
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from sslticket import models
from sslticket.errors import BadInput
from sslticket.pruning import pruned_model
from sslticket.pruning.mask import Mask
from sslticket.pruning.prunable import prunable_weights
from sslticket.storage.tensorfile import file_size, read_tensor_file, tensors_hash
from sslticket.ticket import Ticket, _packed, _read_ticket_file


def make(density: float = 0.1, model: str = "resnet20") -> Ticket:
    torch.manual_seed(0)
    backbone = models.create_model(model, channels=3, image_size=32)
    state = pruned_model.read_state(backbone)
    names = prunable_weights(backbone)
    scores = {name: torch.rand_like(state[name]) for name in names}
    whole = Mask.ones_like(state, names)
    mask = Mask.top(scores, keep=round(whole.total * density), within=whole)
    return Ticket.from_dense_weights(mask, state, level=3, recipe={"model": model}, provenance={"seed": 0})


@pytest.mark.parametrize("density", [1.0, 0.5, 0.02])
def test_a_ticket_read_back_is_the_same_bit_for_bit(tmp_path: Path, density: float) -> None:
    ticket, path = make(density), tmp_path / "ticket.safetensors"
    ticket.save(path)
    back = Ticket.load(path)
    assert back.mask.equals(ticket.mask)
    assert list(back.weights) == list(ticket.weights)
    for name, value in ticket.weights.items():
        assert torch.equal(back.weights[name], value)
        assert back.weights[name].dtype == value.dtype
    assert (back.level, back.recipe, back.provenance, back.hash) == (3, {"model": "resnet20"}, {"seed": 0}, ticket.hash)
    again = tmp_path / "again.safetensors"
    back.save(again)
    assert again.read_bytes() == path.read_bytes()


def test_weights_are_early_weights_times_mask() -> None:
    ticket = make(0.3)
    torch.manual_seed(0)
    early = pruned_model.read_state(models.create_model("resnet20", channels=3, image_size=32))
    for name, value in ticket.weights.items():
        expected = early[name] * ticket.mask[name] if name in ticket.mask else early[name]
        assert torch.equal(value, expected)


def test_a_resnet50_ticket_at_one_percent_is_at_most_1_45_mb_whatever_its_batch_norm(tmp_path: Path) -> None:
    """With statistics of batch norm that are all 0 or 1 it would be 0.4 MB less, which no trained network has."""
    torch.manual_seed(0)
    state = pruned_model.read_state(backbone := models.create_model("resnet50"))
    for value in state.values():
        if value.dim() == 1:
            value.copy_(torch.randn_like(value).exp())
    names = prunable_weights(backbone)
    whole = Mask.ones_like(state, names)
    mask = Mask.top({n: torch.rand_like(state[n]) for n in names}, keep=round(whole.total * 0.01), within=whole)
    path = tmp_path / "ticket.safetensors"
    Ticket.from_dense_weights(mask, state, level=21, recipe={}, provenance={}).save(path)
    assert path.stat().st_size <= 1_450_000
    assert Ticket.load(path).mask.equals(mask)


@pytest.mark.parametrize("density", [1.0, 0.5, 0.13, 0.12, 0.02, 0.001])
@pytest.mark.parametrize("structure", ["single weights", "whole filters", "every other weight", "whole layers"])
def test_no_ticket_is_larger_than_it_was_before_files_were_packed(
    tmp_path: Path, density: float, structure: str
) -> None:
    path, ticket = tmp_path / "ticket.safetensors", make(density)
    layers = {name: layer.clone() for name, layer in ticket.mask.items()}
    for number, (name, layer) in enumerate(layers.items()):
        if structure == "whole filters":
            layers[name] = (
                (torch.rand(len(layer)) < density).view(-1, *[1] * (layer.dim() - 1)).expand_as(layer).clone()
            )
        elif structure == "every other weight":
            layers[name] = (torch.arange(layer.numel()) % round(1 / density) == 0).view_as(layer)
        elif structure == "whole layers":
            layers[name] = torch.full_like(layer, number % 3 == 0)
    made = Ticket.from_dense_weights(Mask(layers), ticket.weights, level=1, recipe={}, provenance={})
    made.save(path)
    written(plain := tmp_path / "plain.safetensors", *made._header_and_tensors, made.hash, "plain")
    assert path.stat().st_size < plain.stat().st_size
    for file in (path, plain):
        told, tensors = read_tensor_file(file, "sslticket", what="ticket", fix="copy it anew")
        size = file_size(tensors, {"sslticket": json.dumps(told)})
        assert size == file.stat().st_size, "the shorter form is chosen by this"
    back = Ticket.load(path)
    assert back.mask.equals(made.mask)
    assert back.hash == made.hash
    for name, value in made.weights.items():
        assert torch.equal(back.weights[name], value)


@pytest.mark.parametrize("bound", ["ticket._MAX_WEIGHTS", "storage.tensorfile._MAX_UNPACKED"])
def test_a_ticket_that_would_be_too_short_for_its_bounds_is_not_packed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    """Four million weights and a bound by the file's bytes alone stand for a hundred million and the real ones."""
    monkeypatch.setattr(f"sslticket.{bound}", 0)
    torch.manual_seed(0)
    alive = torch.zeros(2000, 2000, dtype=torch.bool)
    alive.view(-1)[torch.randperm(alive.numel())[:100]] = True
    weights = {"weight": torch.randn(2000, 2000), "bias": torch.zeros(1_000_000)}
    ticket = Ticket.from_dense_weights(Mask({"weight": alive}), weights, level=41, recipe={"model": "x"}, provenance={})
    ticket.save(tmp_path / "ticket.safetensors")
    back = Ticket.load(tmp_path / "ticket.safetensors")
    assert back.mask.equals(ticket.mask)
    assert back.hash == ticket.hash


def test_a_header_tells_the_same_of_every_form_without_its_tensors(tmp_path: Path) -> None:
    path, plain = tmp_path / "ticket.safetensors", make(0.3)
    head = {"weight": torch.randn(10, 64), "bias": torch.randn(10)}
    for own in ({}, head):
        ticket = Ticket(plain.mask, plain.weights, 3, plain.recipe, plain.provenance, own)
        ticket.save(path)
        found, (header, _) = dict(Ticket.read_header(path)), ticket._header_and_tensors
        assert found.pop("format") == 3
        assert found.pop("ticket_hash") == found.pop("hash") == ticket.hash
        assert found == {name: value for name, value in header.items() if name != "format"}
        assert found.get("head", []) == list(own)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_every_type_of_float_come_back_bit_for_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    path, found = tmp_path / "ticket.safetensors", make(0.3)
    weights = {name: value.to(dtype) if name in found.mask else value for name, value in found.weights.items()}
    made = Ticket.from_dense_weights(found.mask, weights, level=1, recipe={}, provenance={})
    made.save(path)
    assert Ticket.read_header(path)["format"] == 3
    back = Ticket.load(path)
    for name, value in made.weights.items():
        assert back.weights[name].dtype == value.dtype
        assert torch.equal(back.weights[name], value)


def test_a_ticket_has_the_same_hash_in_every_form_and_its_header_tells_it(tmp_path: Path) -> None:
    """Rows name tickets by it: those of files that earlier versions wrote stay theirs."""
    ticket = make(0.05)
    for form in ("plain", "packed"):
        path = tmp_path / f"{form}.safetensors"
        written(path, *ticket._header_and_tensors, ticket.hash, form)
        assert Ticket.read_header(path)["format"] == {"plain": 1, "packed": 3}[form]
        assert Ticket.load(path).hash == Ticket.read_header(path)["hash"] == ticket.hash
        assert Ticket.load(path).mask.equals(ticket.mask)


@pytest.mark.parametrize(
    ("density", "with_head", "form"),
    [(1.0, False, "plain"), (0.02, True, "plain"), (1.0, True, "packed"), (0.02, False, "packed")],
)
def test_the_lines_of_the_page_read_every_format_without_sslticket(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    density: float,
    with_head: bool,
    form: str,
) -> None:
    found = make(density)
    head = {"weight": torch.randn(3, 64), "bias": torch.zeros(3)} if with_head else {}
    weights = found.weights | {"bn1.weight": torch.rand(16).half(), "bn1.bias": torch.rand(16).double()}
    made = Ticket.from_dense_weights(found.mask, weights, head=head, level=3, recipe={}, provenance={"seed": 0})
    path = tmp_path / "ticket.safetensors"
    written(path, *made._header_and_tensors, made.hash, form)
    page = (Path(__file__).parents[1] / "docs" / "ticket-format.md").read_text()
    section = re.search(r"## Reading one without sslticket\n(.*?)\n## ", page, re.DOTALL)
    assert section is not None
    monkeypatch.setattr(sys, "argv", ["", str(path)])
    names: dict[str, Any] = {}
    for lines in re.findall(r"```python\n(.*?)```", section[1], re.DOTALL):
        exec(lines, names)
    assert capsys.readouterr().out.split() == [made.hash, made.hash]
    assert list(names["state"]) == list(made.weights)
    for name, value in made.weights.items():
        assert torch.equal(torch.from_numpy(names["state"][name]), value)
        assert name not in made.mask or torch.equal(torch.from_numpy(names["masks"][name]), made.mask[name])


def test_versions_that_read_formats_1_and_2_see_that_it_is_format_3(tmp_path: Path) -> None:
    """They check a header's `hash` before its `format`, so that theirs would call the file damaged."""
    path = tmp_path / "ticket.safetensors"
    make().save(path)
    header, streams = read_tensor_file(path, "sslticket", what="ticket", fix="copy it anew")
    assert header["format"] == 3
    assert "hash" not in header
    assert all(stream.dtype == torch.uint8 and stream.dim() == 1 for stream in streams.values())


def test_it_applies_to_somebody_elses_network_and_stays_sparse_in_training() -> None:
    from torchvision.models import resnet18

    ticket = make(0.05, model="resnet18")
    model = resnet18(weights=None, num_classes=7)
    head = model.fc.weight.detach().clone()
    assert ticket.apply(model) is model
    assert torch.equal(model.get_parameter("fc.weight"), head), "the classification layer is theirs"
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    model(torch.randn(2, 3, 64, 64)).square().sum().backward()
    optimizer.step()
    after = pruned_model.read_state(model)
    for name, layer in ticket.mask.items():
        assert not after[name][~layer].any()
        assert not torch.equal(after[name], ticket.weights[name])


def test_it_is_refused_by_other_networks() -> None:
    ticket = make()
    with pytest.raises(BadInput, match="another model: it has no"):
        ticket.apply(models.create_model("lenet300", channels=3, image_size=32))
    with pytest.raises(BadInput, match=r"another model: conv1\.weight is"):
        ticket.apply(models.create_model("resnet20", channels=1, image_size=32))
    bigger = models.create_model("resnet20", channels=3, image_size=32)
    bigger.add_module("extra", nn.Conv2d(3, 3, 3))
    with pytest.raises(BadInput, match=r"does not know the convolution extra\.weight"):
        ticket.apply(bigger)


def written(path: Path, header: dict[str, Any], tensors: dict[str, torch.Tensor], stated: str, form: str) -> None:
    """A ticket file in a form of one's choice, whatever is in it."""
    told, own = (header | {"hash": stated}, tensors) if form == "plain" else _packed(header, tensors, stated)
    save_file(own, path, metadata={"sslticket": json.dumps(told)})


def rewritten(path: Path, change: object, *, rehash: bool = False, form: str = "plain") -> None:
    """The file with its header and tensors changed, still a whole safetensors file; `rehash` forges the hash too."""
    header, tensors = _read_ticket_file(path)
    stated = header.pop("hash")
    change(header, tensors)  # type: ignore[operator]
    written(path, header, tensors, tensors_hash(header, tensors) if rehash else stated, form)


KEPT = "kept/conv1.weight"


# A forged hash can hide these: whole, other tickets.
HONEST = (
    lambda header, tensors: tensors[KEPT].add_(1),
    lambda header, tensors: header.__setitem__("level", 4),
    lambda header, tensors: header["recipe"].__setitem__("model", "resnet50"),
)
DAMAGE = (
    lambda header, tensors: tensors.__setitem__(KEPT, tensors[KEPT][:-1].clone()),
    lambda header, tensors: tensors.__setitem__(KEPT, tensors[KEPT].long()),
    lambda header, tensors: tensors.pop(KEPT),
    lambda header, tensors: tensors.__setitem__("whole/spare", torch.zeros(1)),
    lambda header, tensors: tensors["mask/conv1.weight"].fill_(255),
    lambda header, tensors: header["layers"]["conv1.weight"].__setitem__("shape", [16, 3, 3, 400]),
    lambda header, tensors: header["layers"]["conv1.weight"].__setitem__("shape", [2**61]),
    lambda header, tensors: header["layers"]["conv1.weight"].__setitem__("kept", 1),
    lambda header, tensors: header["layers"]["conv1.weight"].__setitem__("coding", "runs"),
    lambda header, tensors: header.__setitem__("density", 0.5),
    lambda header, tensors: header.pop("density"),
    lambda header, tensors: header.pop("order"),
    lambda header, tensors: header.pop("layers"),
    lambda header, tensors: header.__setitem__("recipe", 5),
    lambda header, tensors: header.__setitem__("level", -1),
    lambda header, tensors: header.__setitem__("level", True),
    lambda header, tensors: header.__setitem__("level", 2.0),
    lambda header, tensors: header.__setitem__("level", 10**30),
    lambda header, tensors: header.__setitem__("density", 1),
    lambda header, tensors: header.__setitem__("further", 1),
    lambda header, tensors: header["recipe"].__setitem__("model", ["resnet20"]),
    lambda header, tensors: header["provenance"].__setitem__("seed", "0"),
    lambda header, tensors: header["order"].append(header["order"][0]),
    lambda header, tensors: header["layers"]["conv1.weight"].__setitem__("shape", []),
    lambda header, tensors: header["layers"]["conv1.weight"].__setitem__("shape", [16, 3, 3, True]),
    lambda header, tensors: header["layers"]["conv1.weight"].__setitem__("shape", [-16, -3, 3, 3]),
    lambda header, tensors: header["layers"]["conv1.weight"].__setitem__("kept", 43.0),
    lambda header, tensors: tensors.__setitem__("mask/conv1.weight", tensors["mask/conv1.weight"][None]),
    lambda header, tensors: tensors[KEPT].__setitem__(3, math.nan),
    lambda header, tensors: tensors["whole/bn1.running_var"].__setitem__(0, math.inf),
)


@pytest.mark.parametrize("change", [*HONEST, *DAMAGE])
@pytest.mark.parametrize("rehash", [False, True], ids=["changed", "forged"])
@pytest.mark.parametrize("form", ["plain", "packed"])
def test_a_changed_file_is_refused_in_one_line(tmp_path: Path, change: object, rehash: bool, form: str) -> None:
    path = tmp_path / "ticket.safetensors"
    make().save(path)
    rewritten(path, change, rehash=rehash, form=form)
    if rehash and change in HONEST:
        assert Ticket.load(path).hash
        return
    with pytest.raises(BadInput, match="damaged ticket") as caught:
        Ticket.load(path)
    assert "\n" not in str(caught.value)


def test_what_is_no_ticket_is_named_as_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "ticket.safetensors"
    make().save(path)
    whole = path.read_bytes()
    for cut in (0, 5, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(BadInput, match=r"no whole safetensors file|damaged"):
            Ticket.load(path)
    path.write_bytes(struct.pack("<Q", 2**60) + whole[8:])
    with pytest.raises(BadInput, match="no whole safetensors file"):
        Ticket.load(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(BadInput, match="no ticket of sslticket"):
        Ticket.load(path)
    save_file({"a": torch.zeros(1)}, path, metadata={"sslticket": '{"format": 99}'})
    with pytest.raises(BadInput, match="format 99"):
        Ticket.load(path)
    with pytest.raises(BadInput, match="there is no ticket at"):
        Ticket.load(tmp_path / "nowhere.safetensors")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ticket.safetensors"
    make(0.5).save(path)
    before = path.read_bytes()

    def full(tensors: object, target: Path, metadata: object) -> None:
        target.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr("sslticket.ticket.save_file", full)
    with pytest.raises(OSError, match="no space"):
        make(0.1).save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_ticket_without_a_head_is_the_file_that_it_was_before_heads_were_kept(tmp_path: Path) -> None:
    """The example of docs/ticket-format.md, whose hash was written down when there was format 1 alone."""
    alive = torch.zeros(20, dtype=torch.bool)
    alive[[0, 1, 4, 9, 10, 19]] = True
    weights = {"weight": torch.arange(1.0, 21.0).view(4, 5), "bias": torch.zeros(4)}
    mask = Mask({"weight": alive.view(4, 5)})
    settings: dict[str, Any] = {"level": 3, "recipe": {"model": "example"}, "provenance": {"seed": 0}}
    plain = Ticket.from_dense_weights(mask, weights, **settings)
    plain.save(tmp_path / "plain.safetensors")
    assert (plain.hash, (tmp_path / "plain.safetensors").stat().st_size) == ("8a6bd3e1d0cd1db6", 547)
    assert Ticket.read_header(tmp_path / "plain.safetensors")["format"] == 1
    head = {"weight": torch.ones(2, 4), "bias": torch.zeros(2)}
    Ticket.from_dense_weights(mask, weights, head=head, **settings).save(tmp_path / "whole.safetensors")
    whole = Ticket.load(tmp_path / "whole.safetensors")
    assert Ticket.read_header(tmp_path / "whole.safetensors")["format"] == 2
    assert whole.head.keys() == head.keys()
    assert torch.equal(whole.head["weight"], head["weight"])
    whole.save(tmp_path / "again.safetensors")
    Ticket.load(tmp_path / "plain.safetensors").save(tmp_path / "plain-again.safetensors")
    for name in ("whole", "plain"):
        again = {"whole": "again", "plain": "plain-again"}[name]
        assert (tmp_path / f"{name}.safetensors").read_bytes() == (tmp_path / f"{again}.safetensors").read_bytes()


def test_a_weight_that_is_no_number_is_named_with_its_layer(tmp_path: Path) -> None:
    path = tmp_path / "ticket.safetensors"
    make().save(path)
    rewritten(path, lambda header, tensors: tensors[KEPT].__setitem__(3, math.nan), rehash=True)
    with pytest.raises(BadInput, match=r"kept/conv1\.weight holds a weight that is not finite"):
        Ticket.load(path)


@pytest.mark.parametrize("kind", [torch.complex64, torch.float8_e4m3fn, torch.uint16])
def test_weights_of_types_that_networks_do_not_have_are_refused(tmp_path: Path, kind: torch.dtype) -> None:
    path = tmp_path / "ticket.safetensors"
    make().save(path)
    rewritten(path, lambda header, tensors: tensors.__setitem__(KEPT, tensors[KEPT].to(kind)))
    with pytest.raises(BadInput, match=r"no whole safetensors file \(.*\); copy it anew"):
        Ticket.load(path)


def test_a_small_file_cannot_ask_for_memory(tmp_path: Path) -> None:
    """A layer that lost every weight takes no byte, so that no byte tells how large it is."""
    path, alive = tmp_path / "ticket.safetensors", torch.ones(3, 2, dtype=torch.bool)
    weights = {"a": torch.ones(3, 2), "b": torch.ones(4, 2)}
    settings: dict[str, Any] = {"level": 1, "recipe": {}, "provenance": {}}
    mask = Mask({"a": alive, "b": torch.zeros(4, 2, dtype=torch.bool)})
    Ticket.from_dense_weights(mask, weights, **settings).save(path)
    assert Ticket.load(path).mask.density == 6 / 14

    def grow(side: int) -> object:
        def change(header: dict[str, object], tensors: object) -> None:
            header["layers"]["b"]["shape"] = [side, 2]  # type: ignore[index]
            header["density"] = 6 / (6 + 2 * side)

        return change

    rewritten(path, grow(500_000), rehash=True)
    assert Ticket.load(path).mask["b"].numel() == 10**6
    rewritten(path, grow(10**9), rehash=True)
    with pytest.raises(BadInput, match=r"b has the shape \[1000000000, 2\], of which such a file has no weights"):
        Ticket.load(path)


def test_a_mask_in_its_longer_coding_is_refused(tmp_path: Path) -> None:
    """The hash is over the bytes, so one ticket must have one coding."""
    path, alive = tmp_path / "ticket.safetensors", torch.zeros(400, dtype=torch.bool)
    alive[7] = True
    Ticket.from_dense_weights(Mask({"a": alive}), {"a": torch.ones(400)}, level=1, recipe={}, provenance={}).save(path)

    def lengthen(header: dict[str, object], tensors: dict[str, torch.Tensor]) -> None:
        header["layers"]["a"]["coding"] = "bits"  # type: ignore[index]
        tensors["mask/a"] = torch.zeros(50, dtype=torch.uint8)
        tensors["mask/a"][0] = 1

    rewritten(path, lengthen, rehash=True)
    with pytest.raises(BadInput, match="which gaps would hold in fewer"):
        Ticket.load(path)
