"""A ticket on disk against the weights and masks that people save.

ResNet-50's weights are drawn anew, not trained: the sizes do not depend on them.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from compare import Line, in_turn, middle, ratio, seconds
from images import Images
from torch import nn
from torch.nn.utils import prune

from sslticket import Ticket, models
from sslticket.pruning.mask import Mask, num_kept
from sslticket.pruning.prunable import prunable_weights

_DENSITY = 0.01
_AT_MOST, _SMALLER = 2e6, 60.0


def lines(images: Images) -> list[Line]:
    """Size, saving and loading of ResNet-50 at 1% density."""
    ticket = _ticket()
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = Path(folder) / "ticket.safetensors", Path(folder) / "weights-and-masks.pt"
        saving = in_turn(
            {
                "ours": seconds(lambda: ticket.save(ours)),
                "torch": seconds(lambda: torch.save({"weights": ticket.weights, "mask": ticket.mask.layers}, theirs)),
            },
            5,
        )
        small, large = ours.stat().st_size, theirs.stat().st_size
        loading = in_turn({"ours": _loading(_load, ours), "torch": _loading(_load_pickle, theirs)}, 5)
    what, smaller = f"ResNet-50 ticket at {_DENSITY:.0%}", large / small
    met = small <= _AT_MOST and smaller >= _SMALLER
    other = "torch.save of weights and masks"
    return [
        Line(
            f"{what}: size",
            f"{small / 1e6:.2f} MB",
            f"{large / 1e6:.1f} MB {other}",
            f"{smaller:.0f}x smaller",
            f"<= {_AT_MOST / 1e6:g} MB, >= {_SMALLER:g}x",
            met,
        ),
        _time(f"{what}: save", saving, other),
        _time(f"{what}: load, check and apply", loading, "torch.load, prune.custom_from_mask"),
    ]


def _time(what: str, figures: dict[str, list[float]], other: str) -> Line:
    return Line(
        what,
        f"{middle(figures, 'ours'):.3f} s",
        f"{middle(figures, 'torch'):.3f} s {other}",
        f"{ratio(figures, 'torch', 'ours'):.1f}x faster",
    )


def _ticket() -> Ticket:
    torch.manual_seed(0)
    state = models.create_model("resnet50").state_dict()
    ones = Mask.ones_like(state, prunable_weights(models.create_model("resnet50")))
    mask = Mask.top({name: state[name].abs() for name in ones}, keep=num_kept(ones.total, _DENSITY), within=ones)
    return Ticket.from_dense_weights(mask, state, level=21, recipe={}, provenance={})


def _loading(load: Callable[[Path, nn.Module], object], path: Path) -> Callable[[], float]:
    def measured() -> float:
        net = models.create_model("resnet50")
        return seconds(lambda: load(path, net))()

    return measured


def _load(path: Path, net: nn.Module) -> None:
    Ticket.load(path).apply(net)


def _load_pickle(path: Path, net: nn.Module) -> None:
    saved = torch.load(path)
    net.load_state_dict(saved["weights"])
    for name, mask in saved["mask"].items():
        prune.custom_from_mask(net.get_submodule(name.removesuffix(".weight")), "weight", mask)
