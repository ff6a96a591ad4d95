"""How masks act on weights, and how a masked backbone's state is read and written.

In trainings of ours a fixed mask is a buffer beside its weight (`attach_masks`). The weight stays the layer's own
parameter, its pruned entries are stored as 0, and the loop multiplies the gradients by the masks once before each
optimiser step (`mask_gradients`): the same bits as a product in every forward pass, which would cost two passes over
all weights in each. What moves weights by more than their gradients is followed by `mask_weights`.

A mask that is learned, and any mask on a model of others, whose loops know nothing of masks, is a gate: a
parametrization of one weight (`attach_gates`). Gates stay attached as long as the backbone lives: removing one from a
deep copy would break the original (the generated class is shared), and `state_dict` keys change under them. So a masked
backbone's state is read and written by `read_state` and `write_state`, which use plain names only. What gates learn
themselves is no part of that state: `gate_scores` and `write_gate_scores` are for snapshots. Models of others, to which
a ticket was applied, get plain names in their own state dicts by `use_plain_names`; `remove_gates` undoes gates.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from sslticket.errors import BadInput
from sslticket.pruning.gates import Gate, HardGate, LearnedGate
from sslticket.pruning.mask import Mask, StateDict

_GATE_PREFIX, _STORED_SUFFIX = "parametrizations.", ".original"  # torch's names around a gate and the weight behind it
_MASKED_GRADIENT = "_masked_gradient"  # of a weight: a gradient that needs no mask
_MASK_SUFFIX = "_ticket_mask"  # of the buffer beside a weight; no name of torch's or of a library's


def attach_masks(backbone: nn.Module, names: Iterable[str]) -> None:
    """Put an open mask beside each of these weights that has neither a mask nor a gate yet.

    It acts by `mask_gradients` and `mask_weights` alone, so it is for trainings that call them.

    Args:
        backbone: A network, changed in place.
        names: Names of its weights.
    """
    for name in names:
        module, tensor = _module_and_tensor(backbone, name)
        if not _has_mask(module, tensor):
            # In the weight's own dtype: a bool would be converted in every step.
            mask = torch.ones_like(cast(Tensor, getattr(module, tensor)), requires_grad=False)
            module.register_buffer(f"{tensor}{_MASK_SUFFIX}", mask, persistent=False)


def attach_gates(backbone: nn.Module, names: Iterable[str], make: Callable[[Tensor], Gate] = HardGate) -> None:
    """Put an open gate on each of these weights that has none yet.

    A weight with a mask beside it gets none: it belongs to a training that heeds its mask.

    Args:
        backbone: A network, changed in place.
        names: Names of its weights.
        make: Turns a weight into its gate.

    Raises:
        BadInput: If a gate's `hard_mask` is not of booleans.
    """
    for name in names:
        module, tensor = _module_and_tensor(backbone, name)
        if not _has_mask(module, tensor):
            weight = cast(Tensor, getattr(module, tensor))
            gate = make(weight.detach())
            own = not type(gate).__module__.startswith("sslticket.")
            if own and isinstance(gate, LearnedGate) and (kind := gate.hard_mask().dtype) is not torch.bool:
                raise BadInput(
                    f"{type(gate).__name__}.hard_mask must return a mask of torch.bool, got {kind}; "
                    "compare its values with a threshold"
                )
            parametrize.register_parametrization(module, tensor, gate)


def gated_weights(backbone: nn.Module) -> list[str]:
    """Names of the weights that have a gate or a mask beside them."""
    found = []
    for path, module in backbone.named_modules():
        of_module = [
            tensor
            for tensor, gates in _parametrized_tensors(module).items()
            if isinstance(cast(parametrize.ParametrizationList, gates)[0], Gate)
        ]
        found += [f"{path}.{tensor}" if path else tensor for tensor in [*of_module, *_masked_tensors(module)]]
    return found


def fixed_masks(net: nn.Module) -> dict[str, tuple[nn.Parameter, Tensor]]:
    """The weights with a mask beside them, and that mask of 1 and 0 in the weight's shape and type, by plain name.

    Weights with gates are not among them: gates act by themselves.
    """
    return {
        f"{path}.{tensor}" if path else tensor: (module._parameters[tensor], module._buffers[f"{tensor}{_MASK_SUFFIX}"])
        for path, module in net.named_modules()
        for tensor in _masked_tensors(module)
    }


@torch.no_grad()
def mask_gradients(masked: Iterable[tuple[nn.Parameter, Tensor]]) -> None:
    """Multiply the gradients of weights by their masks, in place; to be called once after the last backward pass.

    Args:
        masked: Values of `fixed_masks`; weights without a gradient stay as they are.
    """
    pairs = [
        (weight.grad, mask) for weight, mask in masked if weight.grad is not None and not is_masked_gradient(weight)
    ]
    if pairs:
        torch._foreach_mul_([gradient for gradient, _ in pairs], [mask for _, mask in pairs])


def note_masked_gradient(weight: Tensor) -> None:
    """Note that a weight's gradient is 0 where it is pruned: no mask is needed as long as nothing else is written."""
    assert weight.grad is not None
    weight.__dict__[_MASKED_GRADIENT] = weight.grad, weight.grad._version


def is_masked_gradient(weight: Tensor) -> bool:
    """Whether a weight's gradient is one that was noted, and nothing else has been written to it."""
    noted, version = weight.__dict__.get(_MASKED_GRADIENT, (None, 0))
    return isinstance(noted, Tensor) and noted is weight.grad and noted._version == version


@torch.no_grad()
def mask_weights(masked: Sequence[tuple[nn.Parameter, Tensor]]) -> None:
    """Multiply weights by their masks, in place; for what may have moved pruned entries.

    Args:
        masked: Values of `fixed_masks`.
    """
    if masked:
        torch._foreach_mul_([weight for weight, _ in masked], [mask for _, mask in masked])


@contextmanager
def masked_autograd(net: nn.Module) -> Iterator[None]:
    """In its block autograd itself multiplies the gradients of weights by the masks beside them.

    So it does in derivatives of derivatives, which sums of products with gradients need. It costs more than
    `mask_gradients`, and is for what asks autograd for gradients without a training's loop.
    """
    pairs = [pair for pair in fixed_masks(net).values() if pair[0].requires_grad]
    handles = [weight.register_hook(mask.mul) for weight, mask in pairs]  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def parameters_in_order(net: nn.Module) -> list[nn.Parameter]:
    """A net's parameters in the order in which optimisers number them, each once.

    A weight with a mask comes after all else of its layer, where a gate's comes: snapshots hold the optimiser's state
    by these numbers, and those of earlier versions were written of gates.
    """

    def ordered(module: nn.Module) -> Iterator[nn.Parameter]:
        masked = _masked_tensors(module)
        yield from (value for name, value in module.named_parameters(recurse=False) if name not in masked)
        for child in module.children():
            yield from ordered(child)
        yield from (cast(nn.Parameter, module._parameters[name]) for name in masked)

    return list(dict.fromkeys(ordered(net)))


class MaskedCopy(nn.Module):
    """Holds a copy of a gated backbone on which the backbone's masks act too, such as a momentum encoder.

    Attributes:
        backbone: The copy.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone


def set_mask_everywhere(net: nn.Module, mask: Mask) -> None:
    """Set the mask on the net's `backbone` and on every copy of it in a `MaskedCopy` anywhere in the net."""
    for backbone in backbone_and_copies(net):
        set_mask(backbone, mask)


def backbone_and_copies(net: nn.Module) -> Iterator[nn.Module]:
    """The net's `backbone` and every copy of it in a `MaskedCopy` anywhere in the net."""
    yield net.get_submodule("backbone")
    yield from (module.backbone for module in net.modules() if isinstance(module, MaskedCopy))


@torch.no_grad()
def set_mask(backbone: nn.Module, mask: Mask) -> None:
    """Set masks; what a mask prunes becomes 0 in the stored weights too.

    With the stored entry at 0 and no gradient, momentum and weight decay leave it at exactly 0, so nothing pruned comes
    back in any saved file.
    """
    for name, layer in mask.items():
        own, stored = _mask_and_weight(backbone, name)
        own.copy_(layer)
        stored.mul_(own)


def stored_state(backbone: nn.Module) -> StateDict:
    """The stored parameters and buffers themselves, not copies, by their plain names."""
    return {own: value for name, value in backbone.state_dict().items() if (own := plain_name(name)) is not None}


def plain_name(name: str) -> str | None:
    """A parameter's or buffer's name in a backbone without masks; None for a mask, and for what is a gate's own."""
    if name.endswith(_MASK_SUFFIX):
        return None
    if _GATE_PREFIX not in name:
        return name
    return name.replace(_GATE_PREFIX, "").removesuffix(_STORED_SUFFIX) if name.endswith(_STORED_SUFFIX) else None


def use_plain_names(model: nn.Module) -> None:
    """Let the model's own `state_dict` and `load_state_dict` use plain names; all its gates must have fixed masks.

    Each gated layer has hooks of its own, so that they work below any prefix and in any copy of the model.
    """
    for module in model.modules():
        if _fixed_gates(module) and _save_plain_names not in module._state_dict_hooks.values():
            layer: Any = module
            layer.register_state_dict_post_hook(_save_plain_names)
            layer.register_load_state_dict_pre_hook(_load_plain_names)
            layer.register_load_state_dict_post_hook(_report_plain_names)


def _fixed_gates(module: nn.Module) -> dict[str, tuple[HardGate, Tensor]]:
    """The gates with fixed masks of a layer's own weights, and these weights as they are stored."""
    if not parametrize.is_parametrized(module):
        return {}
    found = cast("Mapping[str, parametrize.ParametrizationList]", module.parametrizations)
    return {name: (each[0], each.original) for name, each in found.items() if isinstance(each[0], HardGate)}


@torch.no_grad()
def _save_plain_names(module: nn.Module, state: dict[str, Tensor], prefix: str, metadata: object) -> None:
    """After `state_dict`: put plain names in place of a layer's own, in the order of a layer without gates."""
    fixed = _fixed_gates(module)
    if not fixed:
        return
    own = {name: state.pop(name) for name in list(state) if name.startswith(prefix)}
    for tensor, (gate, original) in fixed.items():
        # An optimiser that makes its own steps, as one that orthogonalises them, may have moved what never acts.
        # Writing to a state dict writes to the model, so the tensor itself is given, not a product.
        original.data.masked_fill_(gate.mask == 0, 0)
        state[f"{prefix}{tensor}"] = own.pop(f"{prefix}{_GATE_PREFIX}{tensor}{_STORED_SUFFIX}")
    state.update(own)


def _load_plain_names(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Before `load_state_dict`: take plain names; what the mask prunes stays pruned."""
    for tensor, (gate, _original) in _fixed_gates(module).items():
        if (value := state.pop(f"{prefix}{tensor}", None)) is not None:
            fits = value.shape == gate.mask.shape  # where it does not, torch raises its own error
            masked = value.masked_fill(gate.mask.to(value.device) == 0, 0) if fits else value
            state[f"{prefix}{_GATE_PREFIX}{tensor}{_STORED_SUFFIX}"] = masked


def _report_plain_names(module: nn.Module, keys: Any) -> None:
    """After `load_state_dict`: name what is missing as the plain network does."""
    keys.missing_keys[:] = [plain_name(name) or name for name in keys.missing_keys]


def remove_gates(model: nn.Module) -> nn.Module:
    """Take the gates with fixed masks away: layers get back their own classes and plain weights, 0 where pruned.

    The weights are the same `Parameter` objects, so an optimiser goes on with them, and nothing keeps zeros at 0. A
    copy of the model keeps its gates.

    Args:
        model: A network, changed in place.

    Returns:
        The same network.

    Raises:
        BadInput: If a gated layer has other parametrizations too.
    """
    for module in model.modules():
        fixed = _fixed_gates(module)
        if not fixed:
            continue
        all_of_it = cast("Mapping[str, parametrize.ParametrizationList]", module.parametrizations)
        if any(name not in fixed or len(each) > 1 for name, each in all_of_it.items()):
            raise BadInput(
                "the layers of a ticket must have no parametrizations beside its mask, got some on a "
                f"{parametrize.type_before_parametrizations(module).__name__}; remove them with "
                "torch.nn.utils.parametrize first"
            )
        bare = module._parameters.copy()
        module._parameters.clear()
        # The generated class is shared with copies of the layer, so it is left as it is.
        module.__class__ = parametrize.type_before_parametrizations(module)
        del module._modules["parametrizations"]
        for tensor, (gate, original) in fixed.items():
            original.data.masked_fill_(gate.mask == 0, 0)
            module.register_parameter(tensor, cast(nn.Parameter, original))
        module._parameters.update(bare)
    return model


def stored_weights(backbone: nn.Module, names: Iterable[str]) -> dict[str, Tensor]:
    """The stored parameters of these masked or gated weights, the leaves of autograd's graphs."""
    return {name: _mask_and_weight(backbone, name)[1] for name in names}


def learned_gates(net: nn.Module) -> dict[str, LearnedGate]:
    """The gates in a net or a backbone that learn their masks, by the names of their weights."""
    return {
        name.replace(_GATE_PREFIX, "").rpartition(".")[0]: module
        for name, module in net.named_modules()
        if isinstance(module, LearnedGate)
    }


def gate_scores(net: nn.Module) -> StateDict:
    """The tensors of a net's learned gates, not copies: NAME.score, and NAME.mask for what was pruned for good."""
    found = learned_gates(net)
    return {f"{name}.{part}": getattr(gate, part) for name, gate in found.items() for part in ("score", "mask")}


@torch.no_grad()
def write_gate_scores(net: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Write tensors that `gate_scores` has read back into the gates.

    Raises:
        BadInput: If the state is that of other gates.
    """
    targets = gate_scores(net)
    if targets.keys() != state.keys():
        raise BadInput(f"the gates' state must have {len(targets)} tensors, got {len(state)}; it is of another search")
    for name, target in targets.items():
        target.copy_(state[name])


def current_mask(backbone: nn.Module) -> Mask:
    """The mask of the weights that have one: what is not pruned for good."""
    masks = {name: _mask_and_weight(backbone, name)[0].detach().cpu() for name in gated_weights(backbone)}
    return Mask({name: (mask > 0).contiguous() for name, mask in masks.items()})


@torch.no_grad()
def read_state(backbone: nn.Module) -> StateDict:
    """A copy of the parameters and buffers on the CPU by their plain names, 0 where a weight is pruned.

    A mask that is still learned is not in the weights.
    """
    state: StateDict = {}
    masked = set(gated_weights(backbone))
    for name, value in stored_state(backbone).items():
        effective = value * _mask_and_weight(backbone, name)[0] if name in masked else value
        state[name] = effective.detach().to("cpu", copy=True).contiguous()
    return state


@torch.no_grad()
def write_state(backbone: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Set all parameters and buffers by their plain names; masks stay as they are.

    A state that is not 0 where a mask prunes wants `set_mask` after this, or `mask_weights`.

    Raises:
        BadInput: If names or shapes differ from the backbone's.
    """
    targets = stored_state(backbone)
    if odd := sorted(targets.keys() ^ state.keys()):
        raise BadInput(
            f"a state must have the tensors of the model, got {len(odd)} without a partner, such as {odd[0]}; it is of "
            "another model"
        )
    for name, target in targets.items():
        if target.shape != state[name].shape:
            theirs, ours = tuple(state[name].shape), tuple(target.shape)
            raise BadInput(f"{name} of a state must have shape {ours}, got {theirs}; it is of another model")
        target.copy_(state[name])


def _module_and_tensor(backbone: nn.Module, name: str) -> tuple[nn.Module, str]:
    module, _, tensor = name.rpartition(".")
    return backbone.get_submodule(module), tensor


def _parametrized_tensors(module: nn.Module) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", module.parametrizations) if parametrize.is_parametrized(module) else {}


def _has_mask(module: nn.Module, tensor: str) -> bool:
    return parametrize.is_parametrized(module, tensor) or f"{tensor}{_MASK_SUFFIX}" in module._buffers


def _masked_tensors(module: nn.Module) -> list[str]:
    """Names of a layer's own weights that have a mask beside them."""
    return [name.removesuffix(_MASK_SUFFIX) for name in module._buffers if name.endswith(_MASK_SUFFIX)]


def _mask_and_weight(backbone: nn.Module, name: str) -> tuple[Tensor, Tensor]:
    """The mask and the stored weight of this name, be they beside each other or a gate's."""
    module, tensor = _module_and_tensor(backbone, name)
    mask = module._buffers.get(f"{tensor}{_MASK_SUFFIX}")
    if mask is not None:
        return mask, cast(Tensor, module._parameters[tensor])
    parametrizations = cast(nn.ModuleDict, module.parametrizations)
    gates = cast(parametrize.ParametrizationList, parametrizations[tensor])
    return cast(Gate, gates[0]).mask, gates.original
