"""How a mask meets a weight in the forward pass, and how a gated backbone's state is read and written.

A gate is a parametrization of one weight. Gates stay attached as long as the backbone lives: removing one from a deep
copy would break the original (the generated class is shared), and `state_dict` keys change under them. So whoever wants
a gated backbone's state asks `read` and `write` here, which speak clean names only.
"""

from collections.abc import Iterable, Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from sslticket.errors import BadInput
from sslticket.masking.mask import Mask, State


class HardGate(nn.Module):
    """Multiplies a weight by a fixed binary mask, so that pruned entries have no value and no gradient."""

    mask: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        # Kept in the weight's own dtype: a bool would be converted again in every forward.
        self.register_buffer("mask", torch.ones_like(weight), persistent=False)

    def forward(self, weight: Tensor) -> Tensor:
        """The weight with its pruned entries at exactly 0, same shape."""
        return weight * self.mask


def attach(backbone: nn.Module, names: Iterable[str]) -> None:
    """Put an open gate on each of these weights that has none yet."""
    for name in names:
        module, tensor = _owner(backbone, name)
        if not parametrize.is_parametrized(module, tensor):
            weight = cast(Tensor, getattr(module, tensor))
            parametrize.register_parametrization(module, tensor, HardGate(weight))


def gated(backbone: nn.Module) -> list[str]:
    """Names of the weights that have a gate."""
    return [
        f"{path}.{tensor}" if path else tensor
        for path, module in backbone.named_modules()
        if parametrize.is_parametrized(module)
        for tensor, gates in cast(nn.ModuleDict, module.parametrizations).items()
        if isinstance(cast(parametrize.ParametrizationList, gates)[0], HardGate)
    ]


class Follower(nn.Module):
    """Holds a copy of a gated backbone that is always as sparse as the backbone itself.

    Attributes:
        backbone: the copy.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone


def set_mask_everywhere(net: nn.Module, mask: Mask) -> None:
    """Set the mask on the net's `backbone` and on the copies of it that followers anywhere in the net hold."""
    set_mask(net.get_submodule("backbone"), mask)
    for module in net.modules():
        if isinstance(module, Follower):
            set_mask(module.backbone, mask)


@torch.no_grad()
def set_mask(backbone: nn.Module, mask: Mask) -> None:
    """Make the gates keep what the mask keeps; what it prunes becomes 0 in the stored weights too.

    With the stored entry at 0 and no gradient, momentum and weight decay leave it at exactly 0, so nothing pruned comes
    back in any saved file.
    """
    for name, layer in mask.items():
        gates, original = _parametrization(backbone, name)
        gates.mask.copy_(layer)
        original.mul_(gates.mask)


def stored(backbone: nn.Module) -> State:
    """The stored parameters and buffers themselves, not copies, under the names of the backbone without gates."""
    return {
        name.replace("parametrizations.", "").removesuffix(".original"): value
        for name, value in backbone.state_dict().items()
    }


@torch.no_grad()
def read(backbone: nn.Module) -> State:
    """A CPU copy of the effective parameters and buffers, under clean names."""
    state: State = {}
    for name, value in stored(backbone).items():
        module, tensor = _owner(backbone, name)
        effective = getattr(module, tensor) if parametrize.is_parametrized(module, tensor) else value
        state[name] = effective.detach().to("cpu", copy=True).contiguous()
    return state


@torch.no_grad()
def write(backbone: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Set all parameters and buffers from clean names; gates keep their masks.

    Raises:
        BadInput: if names or shapes differ from the backbone's.
    """
    targets = stored(backbone)
    if odd := sorted(targets.keys() ^ state.keys()):
        raise BadInput(f"this state is for another model: {len(odd)} tensors have no partner, such as {odd[0]}")
    for name, target in targets.items():
        if target.shape != state[name].shape:
            theirs, ours = tuple(state[name].shape), tuple(target.shape)
            raise BadInput(f"this state is for another model: {name} is {theirs} there and {ours} here")
        target.copy_(state[name])


def _owner(backbone: nn.Module, name: str) -> tuple[nn.Module, str]:
    module, _, tensor = name.rpartition(".")
    return backbone.get_submodule(module), tensor


def _parametrization(backbone: nn.Module, name: str) -> tuple[HardGate, Tensor]:
    module, tensor = _owner(backbone, name)
    parametrizations = cast(nn.ModuleDict, module.parametrizations)
    gates = cast(parametrize.ParametrizationList, parametrizations[tensor])
    return cast(HardGate, gates[0]), gates.original
