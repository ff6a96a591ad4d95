"""Whose tensor is whose: names of a checkpoint mapped onto those of a network here, by name or else by shapes."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from sslticket.errors import BadInput

_Shapes = Mapping[str, tuple[int, ...]]
_COUNTER = "num_batches_tracked"
"""Batch norm's count of batches, which old checkpoints lack."""


@dataclass(frozen=True, kw_only=True)
class Matching:
    """Which tensor of a checkpoint each of a network's tensors is.

    Attributes:
        names: Names in the checkpoint by those of the network.
        head: The checkpoint's classification layer, by its name there; None where it has none.
        by: "name" or "shape".
    """

    names: dict[str, str]
    head: str | None
    by: str

    def rename(self, theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of a checkpoint by the network's names, in its order; a count of batches that is not there is 0."""
        found = {}
        for name, own in ours.items():
            if not name.endswith(_COUNTER):
                found[name] = theirs[self.names[name]]
                continue
            mean = self.names[name.removesuffix(_COUNTER) + "running_mean"]
            found[name] = theirs.get(mean.removesuffix("running_mean") + _COUNTER, own.new_zeros(()))
        return found


class _Layer(NamedTuple):
    """A module with tensors of its own: their last names and shapes."""

    name: str
    tensors: tuple[tuple[str, tuple[int, ...]], ...]


def match_names(theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor], *, place: str, model: str) -> Matching:
    """Map a checkpoint's names onto a network's.

    Where every name of the network is there, names decide. Else layers are compared by their shapes: they must be
    the same ones in the same order, and none may be named as another is; or, in another order, no two alike.

    Args:
        theirs: Tensors of the checkpoint, without masks.
        ours: Tensors of the network, which has no classification layer.
        place: The checkpoint, as errors name it.
        model: The network, as errors name it.

    Raises:
        BadInput: If they are of different networks, or shapes leave open which layer is which.
    """
    sizes, wanted = _shapes(theirs), _shapes(ours)
    if wanted.keys() <= sizes.keys():
        for name, shape in wanted.items():
            if sizes[name] != shape:
                raise BadInput(
                    f"{place} is of another network than {model}: {name} is {sizes[name]} there and {shape} here; give "
                    "another --model, or the --image-size and --channels of its images"
                )
        left = _layers({name: shape for name, shape in sizes.items() if name not in wanted})
        return Matching(names={name: name for name in wanted}, head=_head_name(left, place, model), by="name")
    return _match_shapes(_layers(sizes), _layers(wanted), place, model)


def _match_shapes(theirs: list[_Layer], ours: list[_Layer], place: str, model: str) -> Matching:
    head = None
    if len(theirs) == len(ours) + 1 and _is_linear(theirs[-1]):
        head, theirs = theirs[-1].name, theirs[:-1]
    kinds, wanted = [layer.tensors for layer in theirs], [layer.tensors for layer in ours]
    if kinds == wanted:
        pairs = list(zip(ours, theirs, strict=True))
    elif Counter(kinds) == Counter(wanted):
        if len(set(wanted)) < len(wanted):
            alike = next(layer for layer in ours if wanted.count(layer.tensors) > 1)
            raise BadInput(
                f"{place} has the layers of {model} in another order and under other names, and which of them is "
                f"{alike.name} is ambiguous; give a --model file.py:function whose names are the checkpoint's"
            )
        place_of = {layer.tensors: layer for layer in theirs}
        pairs = [(layer, place_of[layer.tensors]) for layer in ours]
    else:
        raise _mismatch(theirs, ours, place, model)
    _check_leaves(pairs, place, model)
    names = {f"{mine.name}.{last}": f"{their.name}.{last}" for mine, their in pairs for last, _ in mine.tensors}
    return Matching(names={_plain(mine): _plain(their) for mine, their in names.items()}, head=head, by="shape")


def _check_leaves(pairs: list[tuple[_Layer, _Layer]], place: str, model: str) -> None:
    """Refuse an order that contradicts the names: where a block here and one there both have a `conv1`, it is one."""
    known = {their.name for _, their in pairs}
    for mine, their in pairs:
        block, _, leaf = their.name.rpartition(".")
        own = mine.name.rpartition(".")[2]
        if own != leaf and not own.isdigit() and (f"{block}.{own}" if block else own) in known:
            raise BadInput(
                f"{place} is ambiguous for {model}: by its shapes {their.name} is {mine.name}, and by its name it is "
                "not; give a --model file.py:function whose names are the checkpoint's"
            )


def _mismatch(theirs: list[_Layer], ours: list[_Layer], place: str, model: str) -> BadInput:
    counts = f"{len(theirs)} layers there and {len(ours)} here"
    for their, mine in zip(theirs, ours, strict=False):
        if their.tensors != mine.tensors:
            (last, shape), (own, other) = (
                next((pair for pair in layer.tensors if pair not in against.tensors), layer.tensors[0])
                for layer, against in ((their, mine), (mine, their))
            )
            where = f"{_plain(f'{their.name}.{last}')} is {shape} there, {_plain(f'{mine.name}.{own}')} {other} here"
            break
    else:
        where = f"{(theirs if len(theirs) > len(ours) else ours)[min(len(theirs), len(ours))].name} is in one only"
    return BadInput(
        f"{place} is of another network than {model}: {where} ({counts}); give another --model, or the --image-size "
        "and --channels of its images"
    )


def _head_name(left: list[_Layer], place: str, model: str) -> str | None:
    """The one layer that a network without classification layer does not know; None where there is none."""
    if not left:
        return None
    if len(left) == 1 and _is_linear(left[0]):
        return left[0].name
    odd = left[0] if not _is_linear(left[0]) else left[-1]
    raise BadInput(
        f"{place} is of another network than {model}, which has no {odd.name} ({len(left)} layers more than its own); "
        "give another --model"
    )


def _is_linear(layer: _Layer) -> bool:
    tensors = dict(layer.tensors)
    shape = tensors.get("weight", ())
    return len(shape) == 2 and tensors.keys() <= {"weight", "bias"} and tensors.get("bias", shape[:1]) == shape[:1]


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in state.items() if not name.endswith(_COUNTER)}


def _layers(shapes: _Shapes) -> list[_Layer]:
    found: dict[str, list[tuple[str, tuple[int, ...]]]] = defaultdict(list)
    for name, shape in shapes.items():
        layer, _, last = name.rpartition(".")
        found[layer].append((last, shape))
    return [_Layer(name, tuple(sorted(tensors))) for name, tensors in found.items()]


def _plain(name: str) -> str:
    return name.removeprefix(".")
