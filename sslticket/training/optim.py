"""Optimisers: torch's own from their description, LARS (You et al. 2017), rates by layer, and two that step as one."""

import inspect
from collections.abc import Callable, Collection, Iterable
from fnmatch import fnmatchcase
from itertools import chain
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor, nn

from sslticket.config.training import LARS, SGD, Adam, AdamW, Optimizer, RMSprop
from sslticket.errors import BadInput
from sslticket.pruning import pruned_model
from sslticket.training.network import MaskedNetwork


class _EagerOptimizer(torch.optim.Optimizer):
    """Torch's own methods without their guards against the compiler, which import it at the first call.

    That takes a second of every process, and no optimiser here is ever compiled.
    """

    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)


class _SGD(_EagerOptimizer, torch.optim.SGD):
    """See the base classes."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.SGD.step))


class _Adam(_EagerOptimizer, torch.optim.Adam):
    """See the base classes."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.Adam.step))


class _AdamW(_EagerOptimizer, torch.optim.AdamW):
    """See the base classes."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))


class _RMSprop(_EagerOptimizer, torch.optim.RMSprop):
    """See the base classes."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.RMSprop.step))


class CombinedOptimizer(torch.optim.Optimizer):
    """Steps with two optimisers; its parameters are numbered through, those of the first come first.

    With fp16 a step is skipped for both or for none, which two optimisers side by side would not ensure.

    Attributes:
        optimizers: Both of them.
    """

    def __init__(self, first: torch.optim.Optimizer, second: torch.optim.Optimizer) -> None:
        # Not the base class's: it would keep groups and state of its own.
        self.optimizers = (first, second)

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """Whether both skip a step on the device, so that no host waits to know; torch's gradient scaler asks."""
        return all(getattr(each, "_step_supports_amp_scaling", False) for each in self.optimizers)

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]  # read only: both hold them
        """The groups of both."""
        return [group for each in self.optimizers for group in each.param_groups]

    @property
    def state(self) -> dict[torch.Tensor, Any]:  # type: ignore[override]  # read only: both hold it
        """The state of both, by parameter."""
        return {key: value for each in self.optimizers for key, value in each.state.items()}

    def zero_grad(self, set_to_none: bool = True) -> None:
        """See the base class."""
        for each in self.optimizers:
            each.zero_grad(set_to_none)

    def step(self, closure: None = None) -> None:  # type: ignore[override]  # no optimiser here needs a closure
        """See the base class."""
        # What torch's gradient scaler lays on an optimiser for the time of a step, where that skips by itself.
        scaling = {name: getattr(self, name) for name in ("grad_scale", "found_inf") if hasattr(self, name)}
        for each in self.optimizers:
            for name, value in scaling.items():
                setattr(each, name, value)
            each.step()
            for name in scaling:
                delattr(each, name)

    def state_dict(self) -> dict[str, Any]:
        """See the base class."""
        first, second = (each.state_dict() for each in self.optimizers)
        offset = self._offset
        shifted = [
            {**group, "params": [number + offset for number in group["params"]]} for group in second["param_groups"]
        ]
        state = first["state"] | {number + offset: value for number, value in second["state"].items()}
        return {"state": state, "param_groups": [*first["param_groups"], *shifted]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See the base class."""
        offset, groups = self._offset, state_dict["param_groups"]
        count = len(self.optimizers[0].param_groups)
        mine = {number: value for number, value in state_dict["state"].items() if number < offset}
        theirs = {number - offset: value for number, value in state_dict["state"].items() if number >= offset}
        shifted = [{**group, "params": [number - offset for number in group["params"]]} for group in groups[count:]]
        self.optimizers[0].load_state_dict({"state": mine, "param_groups": groups[:count]})
        self.optimizers[1].load_state_dict({"state": theirs, "param_groups": shifted})

    @property
    def _offset(self) -> int:
        return sum(len(group["params"]) for group in self.optimizers[0].param_groups)


_EPSILON = 1e-8  # below the fraction, as in lightly's; of norms far above it


class LARSOptimizer(_EagerOptimizer):
    """SGD with momentum whose rate is scaled for each tensor by the norms of weight and gradient (You et al. 2017).

    The step is that of lightly's LARS, to the bit on a CPU, and so is what it keeps for each tensor. It is our own
    since lightly's asks the device whether each tensor's norms are zero, a wait a tensor, and takes ten small
    operations for each, which is most of a step of a small network; timm's goes through the tensors one by one too.
    Here norms, decay and momentum of all tensors are an operation each; on CUDA only the multiplication by a tensor's
    own rate, a number that the host never sees, is still a launch a tensor.

    Nothing is kept before the first step that is taken, so a step that loss scaling skips leaves no trace.

    Args:
        params: Tensors, or groups of them. Of a group without weight decay the rate is not scaled, as in SimCLR and
            after; these are biases and batch norm.
        lr: The learning rate.
        momentum: Momentum of the gradient's running sum, in all groups; 0 keeps none.
        weight_decay: Factor of the L2 penalty.
        trust: The trust coefficient.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        *,
        lr: float,
        momentum: float,
        weight_decay: float,
        trust: float,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]  # none has a closure
        """See the base class; tensors without a gradient stay as they are."""
        assert closure is None, "no optimiser here is given a closure"
        moved = [[tensor for tensor in group["params"] if tensor.grad is not None] for group in self.param_groups]
        steps = [_scaled_gradients(tensors, group) for tensors, group in zip(moved, self.param_groups, strict=True)]
        if (momentum := self.defaults["momentum"]) and any(moved):
            sums = [[self._momentum_buffer(tensor) for tensor in tensors] for tensors in moved]
            torch._foreach_mul_([*chain(*sums)], momentum)
            torch._foreach_add_([*chain(*sums)], [*chain(*steps)])
            steps = sums
        of_rate: dict[float, tuple[list[Tensor], list[Tensor]]] = {}
        for tensors, step, group in zip(moved, steps, self.param_groups, strict=True):
            alike = of_rate.setdefault(group["lr"], ([], []))
            alike[0].extend(tensors)
            alike[1].extend(step)
        for lr, (tensors, step) in of_rate.items():
            if tensors:
                torch._foreach_add_(tensors, step, alpha=-lr)

    def _momentum_buffer(self, tensor: Tensor) -> Tensor:
        """The running sum, in the memory order of the tensor itself."""
        state = self.state[tensor]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(tensor, memory_format=torch.preserve_format)
        found: Tensor = state["momentum_buffer"]
        return found


def _scaled_gradients(tensors: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
    """The gradients with weight decay, times their tensors' rates."""
    gradients = [cast(Tensor, tensor.grad) for tensor in tensors]
    if not tensors or not group["weight_decay"]:
        return gradients
    steps = list(torch._foreach_add(gradients, tensors, alpha=group["weight_decay"]))
    torch._foreach_mul_(steps, _trust_ratios(tensors, gradients, group["weight_decay"], group["trust"]))
    return steps


def _trust_ratios(tensors: list[Tensor], gradients: list[Tensor], decay: float, trust: float) -> list[Tensor]:
    """`trust * |w| / (|g| + decay * |w|)` of each tensor, () each; 1 where all weights are 0.

    Where the whole gradient is 0 the rate is 0, so that decay alone does not move a tensor either.
    """
    norms = torch.stack(torch._foreach_norm([*tensors, *gradients]))
    weight, gradient = norms.chunk(2)
    has_weight, has_gradient = (norms != 0).chunk(2)
    rate = weight / (gradient + weight * decay + _EPSILON) * trust
    return list(rate.where(has_weight & has_gradient, has_gradient).unbind())


def build_network_optimizer(
    network: MaskedNetwork, spec: Optimizer, *, layer_decay: float = 1.0
) -> torch.optim.Optimizer:
    """The optimiser of a network's weights, and of the scores of the masks that it learns.

    No weight decay falls on scores (Savarese et al. 2019, section 4.2); weights that are frozen are left out.

    Args:
        network: The network.
        spec: The description of the weights' optimiser.
        layer_decay: See `TrainConfig`; scores have one rate.

    Raises:
        BadInput: If rates are to fall by layers and nobody has counted those of the network.
    """

    def of_weights() -> torch.optim.Optimizer:
        spared = undecayed_weights(network) if isinstance(spec, AdamW) and spec.spare == "tokens" else ()
        optimizer = build_optimizer(spec, network.weight_parameters(), spared=spared)
        if layer_decay != 1:
            _scale_rates(optimizer, network, layer_scales(network.backbone, layer_decay))
        return optimizer

    learning = network.mask_learning
    if learning is None:
        return of_weights()
    gates = pruned_model.learned_gates(network).values()
    scores = build_optimizer(learning.optimizer, (gate.score for gate in gates))
    for group in scores.param_groups:
        group["lr_scale"] = learning.optimizer.lr / spec.lr
    return scores if learning.frozen else CombinedOptimizer(of_weights(), scores)


def undecayed_weights(network: MaskedNetwork) -> list[nn.Parameter]:
    """The parameters that the backbone itself wants to be spared by weight decay, as timm's transformers do."""
    named: Collection[str] = getattr(network.backbone, "no_weight_decay", tuple)()
    return [
        parameter
        for name, parameter in network.backbone.named_parameters()
        if any(fnmatchcase(pruned_model.plain_name(name) or "", pattern) for pattern in named)
    ]


def layer_scales(backbone: nn.Module, decay: float) -> dict[str, float]:
    """What the learning rate of each weight is of that of the heads, where each layer has a fraction of the next one's.

    Args:
        backbone: A network of timm's, which knows its layers: the stem first, then block by block, a norm at the end
            with the last block, and the heads.
        decay: That fraction.

    Returns:
        Plain names of its parameters -> their factors.

    Raises:
        BadInput: If the network does not know its layers.
    """
    if (matcher := getattr(backbone, "group_matcher", None)) is None:
        raise BadInput(
            f"--layer-decay must have a network that knows its layers, which {type(backbone).__name__} does not; give "
            "a --model of timm's, such as vit_small_patch16_224 or convnext_tiny, or --layer-decay 1"
        )
    from timm.models import group_parameters

    # The classification layer, which a backbone is without, has its place among them.
    last = getattr(backbone, "pretrained_cfg", {}).get("classifier") or "head"
    head = f"{last if isinstance(last, str) else last[0]}.weight"
    names = [name for each, _ in backbone.named_parameters() if (name := pruned_model.plain_name(each)) is not None]
    whole = SimpleNamespace(named_parameters=lambda: ((name, None) for name in [*names, head]))
    layers = group_parameters(whole, matcher(coarse=False), reverse=True)
    return {name: float(decay ** (layers[head] - layers[name])) for name in names}


def _scale_rates(optimizer: torch.optim.Optimizer, network: MaskedNetwork, scales: dict[str, float]) -> None:
    """Parts each group of an optimiser, of one's own too, by the factors of its parameters' rates; heads have 1."""
    factors = {
        id(parameter): scales[plain]
        for name, parameter in network.backbone.named_parameters()
        if (plain := pruned_model.plain_name(name)) is not None
    }
    parts: list[dict[str, Any]] = []
    for group in optimizer.param_groups:
        members: dict[float, list[nn.Parameter]] = {}
        for parameter in group["params"]:
            members.setdefault(factors.get(id(parameter), 1.0), []).append(parameter)
        own = group.get("lr_scale", 1.0)
        parts += [{**group, "params": each, "lr_scale": own * factor} for factor, each in sorted(members.items())]
    optimizer.param_groups[:] = parts


def build_optimizer(
    spec: Optimizer, parameters: Iterable[nn.Parameter], *, spared: Collection[nn.Parameter] = ()
) -> torch.optim.Optimizer:
    """The torch optimiser for a description, for the parameters that are trained.

    The learning rate of a group is the schedule's times the group's "lr_scale", where it has one; its weight decay is
    what its "decay_at" gives for the progress of the training, where it has one.

    Weight decay falls on all of them, as in the papers; LARS leaves biases and batch norm out, as its own papers do,
    and AdamW what its description says. The fused implementations update all tensors in one call, on CPU and GPU; those
    without one take all tensors through an operation before the next one.

    Args:
        spec: The description.
        parameters: The parameters; those that need no gradient are left out.
        spared: Those of them that AdamW shall not let decay, beside what it spares for its shape.
    """
    chosen = [parameter for parameter in parameters if parameter.requires_grad]
    if isinstance(spec, AdamW):
        return _build_adamw(spec, chosen, spared)
    if isinstance(spec, LARS):
        return _build_lars(spec, chosen)
    if isinstance(spec, SGD):
        return _SGD(
            chosen,
            lr=spec.lr,
            momentum=spec.momentum,
            weight_decay=spec.weight_decay,
            nesterov=spec.nesterov,
            fused=True,
        )
    if isinstance(spec, Adam):
        return _Adam(chosen, lr=spec.lr, betas=spec.betas, weight_decay=spec.weight_decay, fused=True)
    if isinstance(spec, RMSprop):
        return _RMSprop(
            chosen,
            lr=spec.lr,
            alpha=spec.alpha,
            eps=spec.eps,
            momentum=spec.momentum,
            weight_decay=spec.weight_decay,
            foreach=True,
        )
    return spec.build(chosen)


def init_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Sets SGD's momentum to zeros where it has none yet; for optimisers whose first step may be skipped.

    Fused SGD takes fresh memory for it at its first step, which fills it. Where loss scaling skips that step on the
    device the memory stays what it was, and the second step would add it to the weights. Others need no start: Adam's
    means begin as zeros, and RMSprop's and LARS's steps are skipped before they are called.
    """
    for part in optimizer.optimizers if isinstance(optimizer, CombinedOptimizer) else (optimizer,):
        if isinstance(part, torch.optim.SGD):
            for group in part.param_groups:
                for parameter in group["params"] if group["momentum"] else ():
                    part.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))


def match_memory_format(optimizer: torch.optim.Optimizer) -> None:
    """Brings state that was read from a file into its parameter's memory layout; to be called after each loading.

    Fused kernels walk parameter, gradient and state as they lie in memory, side by side: under channels-last a state in
    another order is another weight's on a CPU, and refused on CUDA.
    """
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if not isinstance(value, Tensor):  # numbers of a user's optimiser
                continue
            if value.shape == parameter.shape and value.stride() != parameter.stride():
                values[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _build_adamw(spec: AdamW, chosen: list[nn.Parameter], spared: Collection[nn.Parameter]) -> torch.optim.Optimizer:
    named = {id(parameter) for parameter in spared}

    def decays(parameter: nn.Parameter) -> bool:
        return spec.spare == "nothing" or (parameter.dim() > 1 and id(parameter) not in named)

    decayed: dict[str, Any] = {"params": [parameter for parameter in chosen if decays(parameter)]}
    if spec.last_weight_decay is not None:
        decayed["decay_at"] = spec.decay_at
    plain: dict[str, Any] = {"params": [each for each in chosen if not decays(each)], "weight_decay": 0.0}
    groups = [group for group in (decayed, plain) if group["params"]]
    return _AdamW(groups, lr=spec.lr, betas=spec.betas, weight_decay=spec.weight_decay, fused=True)


def _build_lars(spec: LARS, chosen: list[nn.Parameter]) -> torch.optim.Optimizer:
    scaled: dict[str, Any] = {"params": [parameter for parameter in chosen if parameter.dim() > 1]}
    lr_scale = 1.0 if spec.bias_lr is None else spec.bias_lr / spec.lr
    biases = [parameter for parameter in chosen if parameter.dim() <= 1]
    plain: dict[str, Any] = {"params": biases, "weight_decay": 0.0, "lr_scale": lr_scale}
    return LARSOptimizer(
        [scaled, plain], lr=spec.lr, momentum=spec.momentum, weight_decay=spec.weight_decay, trust=spec.trust
    )
