"""A ticket on disk against what people save: weights and masks, or the masked weights through a general compressor.

ResNet-50's weights are drawn anew, not trained, and so are batch norm's scales, shifts and statistics.
"""

import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from compare import Line, Timed, Work, alone, compared, in_turn, timed, told
from images import Images
from safetensors.torch import load, save
from torch import nn
from torch.nn.utils import prune

from sslticket import Ticket, models
from sslticket.pruning.mask import Mask, num_kept
from sslticket.pruning.prunable import prunable_weights

_DENSITY, _ROUNDS = 0.01, 5
_AT_MOST = 1.45  # MB
_ENDINGS = {"ours": "safetensors", "torch": "pt", "zlib": "z"}
_Files = tuple[Callable[[Ticket, Path], object], Callable[[Path, nn.Module], object]]


def lines(images: Images) -> list[Line]:
    """Size, saving and loading of ResNet-50 at 1% density."""
    forms: dict[str, _Files] = {
        "ours": (lambda ticket, path: ticket.save(path), lambda path, net: Ticket.load(path).apply(net)),
        "torch": (_save_pickle, _load_pickle),
        "zlib": (_save_deflated, _load_deflated),
    }
    paths = {name: images.scratch / f"ticket.{ending}" for name, ending in _ENDINGS.items()}
    saving = in_turn({name: partial(_saving, save, paths[name]) for name, (save, _) in forms.items()}, _ROUNDS)
    loading = in_turn({name: partial(_loading, load, paths[name]) for name, (_, load) in forms.items()}, _ROUNDS)
    what = f"ResNet-50 ticket at {_DENSITY:.0%}"
    than = {"torch": "torch.save of weights and masks", "zlib": "zlib of the masked weights"}
    found = [alone(saving, f"{what}: size", target=_AT_MOST, unit="MB", figure=told)]
    for other, words in than.items():
        size = partial(compared, saving, f"{what}: size", words, other=other, unit="MB")
        found += [
            size(kind="smaller", figure=told),
            compared(saving, f"{what}: save", words, other=other),
            compared(loading, f"{what}: load, check and apply", words, other=other),
        ]
    return found


def _ticket() -> Ticket:
    torch.manual_seed(0)
    state = models.create_model("resnet50").state_dict()
    for name, value in state.items():  # at the start batch norm is all ones and noughts, which a trained one is not
        if value.dim() == 1:
            value.normal_()
        if name.endswith("running_var"):
            value.abs_()
    ones = Mask.ones_like(state, prunable_weights(models.create_model("resnet50")))
    mask = Mask.top({name: state[name].abs() for name in ones}, keep=num_kept(ones.total, _DENSITY), within=ones)
    return Ticket.from_dense_weights(mask, state, level=21, recipe={}, provenance={})


def _saving(save: Callable[[Ticket, Path], object], path: Path) -> Work:
    ticket = _ticket()

    def work() -> Timed:
        taken = timed(lambda: save(ticket, path))
        return Timed(taken.seconds, path.stat().st_size / 1e6)

    return work


def _loading(load: Callable[[Path, nn.Module], object], path: Path) -> Work:
    def work() -> Timed:
        net = models.create_model("resnet50")
        return Timed(timed(lambda: load(path, net)).seconds)

    return work


def _save_pickle(ticket: Ticket, path: Path) -> None:
    torch.save({"weights": ticket.weights, "mask": ticket.mask.layers}, path)


def _load_pickle(path: Path, net: nn.Module) -> None:
    saved = torch.load(path)
    net.load_state_dict(saved["weights"])
    for name, mask in saved["mask"].items():
        prune.custom_from_mask(net.get_submodule(name.removesuffix(".weight")), "weight", mask)


def _save_deflated(ticket: Ticket, path: Path) -> None:
    path.write_bytes(zlib.compress(save(dict(ticket.weights)), 9))


def _load_deflated(path: Path, net: nn.Module) -> None:
    weights = load(zlib.decompress(path.read_bytes()))
    net.load_state_dict(weights)
    for name in prunable_weights(net):
        prune.custom_from_mask(net.get_submodule(name.removesuffix(".weight")), "weight", weights[name] != 0)
