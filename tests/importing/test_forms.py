"""Every form in which others save sparse networks becomes the same ticket; what is none is refused in one line."""

import argparse
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from sslticket import models
from sslticket.errors import BadInput
from sslticket.evaluation.controls import get_control
from sslticket.export.writer import export_ticket
from sslticket.importing.checkpoints import read_checkpoint
from sslticket.importing.importer import Origin, import_tickets
from sslticket.pruning.mask import Mask
from sslticket.pruning.pattern import Pattern
from sslticket.pruning.prunable import describe_layers
from sslticket.ticket import Ticket
from tests.importing.conftest import Found, State

Save = Callable[..., Path]
CONV3 = Origin(model="conv3")


def imported(source: Path, origin: Origin = CONV3) -> Ticket:
    ((path, _),) = import_tickets(source, source.parent / "out" / "ticket.safetensors", origin)
    return Ticket.load(path)


def backbone_of(state: State) -> State:
    return {name: value for name, value in state.items() if not name.startswith("fc.")}


def rigl_torch(found: Found) -> dict[str, Any]:
    masks = [found.masks.get(f"{name}.weight") for name in ("features.0", "features.4", "features.8", "fc")]
    state = {f"module.{name}": value for name, value in found.zeros.items()}
    pruner = {"dense_allocation": 0.3, "backward_masks": [None if mask is None else mask.bool() for mask in masks]}
    return {"epoch": 3, "arch": "conv3", "state_dict": state, "best_acc1": torch.tensor(0.9), "pruner": pruner}


def rigl_reproducibility(found: Found) -> dict[str, Any]:
    mask = {"baseline_nonzero": 7, "masks": found.masks, "stats": {"total_zero": np.float64(3)}, "mask_step": 9}
    return {"step": 60, "epoch": 3, "model": found.zeros, "val_loss": np.float64(0.5), "mask": mask}


def turboprune(found: Found) -> State:
    return found.zeros | {f"{name.removesuffix('weight')}mask": mask for name, mask in found.masks.items()}


def open_lth(found: Found) -> State:
    state = {f"model.{name}": value for name, value in found.zeros.items()}
    return state | {f"mask_{name.replace('.', '___')}": mask for name, mask in found.masks.items()}


def timms(found: Found) -> dict[str, Any]:
    return {"state_dict": found.zeros, "args": argparse.Namespace(lr=0.1), "epoch": 3}


FORMS: dict[str, tuple[Callable[[Found], Any], str]] = {
    "torch.nn.utils.prune": (lambda found: found.state, "torch.nn.utils.prune"),
    "weight_mask": (lambda found: found.beside, "weight_mask"),
    "a layer's mask": (turboprune, "weight_mask"),
    "open_lth's pruned network": (open_lth, "open_lth"),
    "rigl-torch": (rigl_torch, "RigL"),
    "rigl-reproducibility": (rigl_reproducibility, "RigL"),
    "a script's state with its arguments": (timms, "zeros"),
    "zeros": (lambda found: found.zeros, "zeros"),
    "zeros of a wrapped network": (
        lambda found: {"model": {f"module._orig_mod.{name}": value for name, value in found.zeros.items()}},
        "zeros",
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_mask_and_weights(form: str, found: Found, save: Save) -> None:
    make, named = FORMS[form]
    ticket = imported(save(make(found)))
    expected = backbone_of(found.zeros)
    assert list(ticket.mask) == ["features.0.weight", "features.4.weight", "features.8.weight"]
    assert all(torch.equal(mask, found.masks[name] != 0) for name, mask in ticket.mask.items())
    assert ticket.weights.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in ticket.weights.items())
    assert torch.equal(ticket.head["weight"], found.zeros["fc.weight"])
    assert ticket.provenance["head_kept"] == int(found.masks["fc.weight"].sum())
    assert ticket.provenance["imported"]["from"] == named
    assert "rewind_samples" in ticket.provenance["imported"]["unknown"]
    assert not {"seed", "rewind_samples", "search_samples", "images"} & ticket.provenance.keys()
    assert (ticket.provenance["dataset"], ticket.provenance["objective"]) == ("unknown", "unknown")


@pytest.mark.parametrize("form", ["ASP", "torch.nn.utils.prune", "zeros"])
def test_masks_of_a_full_pattern_tell_it_and_dense_layers_are_no_part_of_them(
    form: str, found: Found, save: Save
) -> None:
    """ASP leaves layers dense whose inputs it cannot cut into groups, here the first, and has no masks of them."""
    layers = ("features.4.weight", "features.8.weight")
    pattern, ones = Pattern(2, 4), {name: torch.ones_like(found.orig[name], dtype=torch.bool) for name in layers}
    masks = pattern.best({name: found.orig[name].abs() for name in layers}, ones)
    state = found.orig | {name: found.orig[name] * mask for name, mask in masks.items()}
    wanted = dict(state)
    if form == "ASP":
        for name, mask in masks.items():
            layer = name.removesuffix(".weight")
            state |= {f"{layer}.__weight_mma_mask": mask, f"{layer}.__weight_mma_pruned_p": found.orig[name] * ~mask}
    elif form == "torch.nn.utils.prune":
        for name in layers:
            state |= {f"{name}_orig": found.orig[name], f"{name}_mask": masks[name].float()}
            del state[name]
    ticket = imported(save(state))
    assert ticket.provenance["imported"]["from"] == form
    assert ticket.mask.equals(Mask(masks))
    assert (ticket.pattern, ticket.density) == (pattern, 0.5)
    assert describe_layers(ticket.recipe) == "without features.0"
    for name, value in ticket.weights.items():
        assert torch.equal(value, wanted[name])
    drawn = get_control("random").mask(ticket, seed=0, natural=None)
    assert pattern.is_full(drawn)


def test_a_mask_with_a_group_that_is_not_full_tells_no_pattern(found: Found, save: Save) -> None:
    state = found.orig | {"features.4.weight": found.orig["features.4.weight"].clone()}
    state["features.4.weight"][:, ::2] = 0
    state["features.4.weight"][0, 1] = 0  # one group is not full
    ticket = imported(save(state))
    assert (ticket.record.pattern, len(ticket.mask)) == (None, 3)


def test_layers_without_a_mask_are_dense_and_no_part_of_the_density(found: Found, save: Save) -> None:
    masks = rigl_torch(found)
    masks["pruner"]["backward_masks"][0] = None
    ticket = imported(save(masks))
    assert list(ticket.mask) == ["features.4.weight", "features.8.weight"]
    assert torch.equal(ticket.weights["features.0.weight"], found.zeros["features.0.weight"])
    assert describe_layers(ticket.recipe) == "without features.0"


def test_a_damaged_checkpoint_is_read_or_refused_in_one_line(found: Found, save: Save) -> None:
    path, rng = save(found.state), np.random.default_rng(0)
    whole = path.read_bytes()
    refused: list[str] = []
    for _ in range(150):
        damaged = bytearray(whole)
        for place in rng.integers(0, 3000, 3):  # the pickle lies there
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            read_checkpoint(path)
        except BadInput as error:
            refused.append(str(error))
    assert len(refused) > 50
    assert not any("\n" in words for words in refused)


def test_a_small_file_cannot_ask_for_any_memory(found: Found, save: Save) -> None:
    path = save(found.zeros | {"fc.weight": torch.zeros(1).expand(10**7, 32)})
    with pytest.raises(BadInput, match=r"says that fc.weight is larger than the file is"):
        imported(path)
    path = save(found.zeros)
    with zipfile.ZipFile(path) as parts, zipfile.ZipFile(path.with_name("z.pt"), "w", zipfile.ZIP_DEFLATED) as packed:
        for name in parts.namelist():
            packed.writestr(name, parts.read(name))
    with pytest.raises(BadInput, match=r"z.pt is compressed, which no file of torch.save is"):
        imported(path.with_name("z.pt"))


def test_masks_alone_need_early_weights_and_take_them_as_they_are(found: Found, save: Save) -> None:
    source, early = save({f"{name}_mask": mask for name, mask in found.masks.items()}), save(found.early, "wk.pt")
    with pytest.raises(BadInput, match=r"holds masks and no weights; give the early weights too, --early"):
        imported(source)
    ticket = imported(source, Origin(model="conv3", early=early, rewind_samples=640))
    name = "features.4.weight"
    assert torch.equal(ticket.weights[name], found.early[name] * found.masks[name])
    assert (ticket.provenance["weights"], ticket.provenance["rewind_samples"]) == ("early", 640)


def test_zeros_with_early_weights_are_the_mask_of_these(found: Found, save: Save) -> None:
    source, early = save(found.zeros), save(found.early, "wk.pt")
    ticket = imported(source, Origin(model="conv3", early=early, objective="supervised", dataset="digits", seed=5))
    assert all(torch.equal(mask, found.masks[name] != 0) for name, mask in ticket.mask.items())
    assert torch.equal(ticket.weights["features.0.bias"], found.early["features.0.bias"])
    came = ticket.provenance
    assert (came["objective"], came["dataset"], came["seed"]) == ("supervised", "digits", 5)
    assert came["imported"]["unknown"] == ["level", "rewind_samples", "images"]
    assert ticket.record.data.dataset == "digits"


def test_an_imported_network_computes_what_the_original_does(found: Found, save: Save) -> None:
    ticket = imported(save(found.state))
    backbone = ticket.apply(models.create_model("conv3", channels=1, image_size=8)).eval()
    head = nn.Linear(32, 10)
    head.load_state_dict(ticket.head)
    with torch.no_grad():
        theirs, ours = found.net(found.images), head(backbone(found.images))
    assert torch.allclose(ours, theirs, atol=1e-5)
    right = int((theirs.argmax(1) == found.labels).sum())
    assert int((ours.argmax(1) == found.labels).sum()) == right > 0.5 * len(found.labels)


@pytest.mark.parametrize(
    ("layout", "name"), [("prune", "again.pt"), ("prune", "pruned.safetensors"), ("plain", "a.pth")]
)
def test_import_export_import_gives_the_same_bits(
    layout: str, name: str, found: Found, save: Save, tmp_path: Path
) -> None:
    first = imported(save(found.state))
    export_ticket(tmp_path / "out" / "ticket.safetensors", tmp_path / name, layout=layout)
    (_, again), *_ = import_tickets(tmp_path / name, tmp_path / "again.safetensors", CONV3)
    assert again.mask.equals(first.mask)
    assert list(again.weights) == list(first.weights)
    for tensor, value in first.weights.items():
        assert again.weights[tensor].dtype == value.dtype
        assert torch.equal(again.weights[tensor], value)


def test_safetensors_and_a_function_of_ones_own(found: Found, tmp_path: Path) -> None:
    save_file({name: value.contiguous() for name, value in found.state.items()}, tmp_path / "theirs.safetensors")
    code = "from sslticket.models.paper_networks import conv3\n\n\ndef three_layers(channels, size):\n"
    (tmp_path / "mine.py").write_text(f"{code}    return conv3(channels, size)\n")
    ticket = imported(tmp_path / "theirs.safetensors", Origin(model=f"{tmp_path}/mine.py:three_layers"))
    assert ticket.record.model == "three_layers"
    assert [key.rpartition(":")[2] for key in ticket.provenance["parts"]] == ["three_layers"]


class Hostile:
    """Runs code where a pickle of it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (f"open({str(self.mark)!r}, 'w')",)


def test_no_code_in_a_checkpoint_is_run(found: Found, save: Save, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"holds a eval beside its tensors, and reading that could run code") as error:
        imported(save({"state_dict": found.zeros, "extra": Hostile(tmp_path / "was-run")}))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "was-run").exists()
    with pytest.raises(
        BadInput, match=r"a torch.nn.modules.linear.Linear beside its tensors.*save\(model.state_dict\(\)"
    ):
        imported(save({"model": nn.Linear(2, 2)}))


def changed(**names: Any) -> Callable[[Found], State]:
    return lambda found: found.state | {name.replace("__", "."): value for name, value in names.items()}


REFUSED: dict[str, tuple[Callable[[Found], Any], Origin, str]] = {
    "no model": (lambda found: found.state, Origin(), "does not say of which network it is.*give --model"),
    "unknown model": (lambda found: found.state, Origin(model="conv33"), "unknown model 'conv33'"),
    "another network": (
        lambda found: found.state,
        Origin(model="resnet20"),
        r"is of another network than resnet20: .* there.*here.*give another --model",
    ),
    "another width": (
        changed(features__0__weight_orig=torch.ones(16, 3, 3, 3), features__0__weight_mask=torch.ones(16, 3, 3, 3)),
        Origin(model="conv3", channels=1),
        r"features.0.weight is \(16, 3, 3, 3\) there and \(16, 1, 3, 3\) here.*--channels",
    ),
    "nothing pruned": (lambda found: found.orig, CONV3, "no mask and no weight of conv3 in it is 0"),
    "no binary mask": (
        changed(features__4__weight_mask=torch.full((32, 16, 3, 3), 0.5)),
        CONV3,
        "has other values than 0 and 1",
    ),
    "a mask of another shape": (
        changed(features__4__weight_mask=torch.ones(32, 1, 1, 1)),
        CONV3,
        r"has a mask of \(32, 1, 1, 1\) for features.4.weight, which is \(32, 16, 3, 3\)",
    ),
    "a pruned bias": (
        lambda found: found.beside | {"features.0.bias_mask": torch.zeros(16)},
        CONV3,
        "prunes features.0.bias, and tickets keep",
    ),
    "a pruned bias of the head": (
        lambda found: found.state | {"fc.bias_orig": found.state["fc.bias"], "fc.bias_mask": torch.zeros(10)},
        CONV3,
        "prunes fc.bias, and tickets keep",
    ),
    "a sparse tensor": (
        lambda found: found.zeros | {"features.4.weight": found.zeros["features.4.weight"].to_sparse()},
        CONV3,
        "holds features.4.weight as a sparse, .* give one of plain tensors",
    ),
    "a tensor without numbers": (
        lambda found: found.zeros | {"features.4.weight": torch.ones(32, 16, 3, 3, device="meta")},
        CONV3,
        "holds features.4.weight as a sparse, .* or empty tensor",
    ),
    "a list of masks that are none": (
        lambda found: rigl_torch(found) | {"pruner": {"backward_masks": [1, 2, 3, 4]}},
        CONV3,
        "lists 4 masks whose shapes are not those",
    ),
    "not finite": (
        lambda found: found.zeros | {"features.0.bias": torch.full((16,), float("nan"))},
        CONV3,
        "features.0.bias that is not finite",
    ),
    "two layers too many": (
        lambda found: found.zeros | {"aux.weight": torch.ones(3, 3), "aux2.weight": torch.ones(3, 3)},
        CONV3,
        "conv3, which has no aux",
    ),
    "a head of other features": (
        lambda found: found.zeros | {"fc.weight": torch.ones(10, 64)},
        CONV3,
        "its fc takes 64 features, and there are 32 here",
    ),
    "no tensors": (lambda _: {"epoch": 3}, CONV3, "holds no tensors by their names"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_in_one_line(case: str, found: Found, save: Save, tmp_path: Path) -> None:
    make, origin, words = REFUSED[case]
    with pytest.raises(BadInput, match=words) as error:
        imported(save(make(found)), origin)
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "out").glob("*"))


def test_another_ticket_is_not_replaced_and_the_same_one_is_left(found: Found, save: Save, tmp_path: Path) -> None:
    imported(save(found.state))
    before = (tmp_path / "out" / "ticket.safetensors").read_bytes()
    imported(save(found.state))
    with pytest.raises(BadInput, match="is there already and another ticket"):
        imported(save(found.state), Origin(model="conv3", seed=1))
    assert (tmp_path / "out" / "ticket.safetensors").read_bytes() == before


def test_text_and_missing_files_are_no_checkpoints(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_text("hello")
    with pytest.raises(BadInput, match=r"a.pt (cannot be read|holds more than a file)"):
        imported(tmp_path / "a.pt")
    with pytest.raises(BadInput, match="there is no file"):
        imported(tmp_path / "none.pt")
