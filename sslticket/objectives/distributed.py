"""Training on several processes: gathered batches, and the images that batch norm takes its statistics over.

Batch-norm layers stay the modules that they are, with their parameters, buffers and names: only their class changes, as
torch's parametrizations do it. In evaluation mode they compute the same as always.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.modules._functions import SyncBatchNorm
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle

from sslticket.errors import BadInput
from sslticket.pruning import pruned_model


def all_gather(values: Tensor) -> Tensor:
    """The values of all processes in the order of their ranks, (B, ...) -> (processes * B, ...).

    Gradients flow back to the process that a value came from, summed over all processes. With gradients averaged over
    processes, as distributed training does, a loss over all gathered values has the gradient that one process with the
    whole batch would have.
    """
    joined: Tensor = _AllGather.apply(values) if is_distributed() else values
    return joined


def all_gather_labels(values: Tensor) -> Tensor:
    """The values of all processes, without gradients, for whole numbers; see `all_gather`."""
    return _all_gather_tensor(values) if is_distributed() else values


class _AllGather(torch.autograd.Function):
    """Gathers with gradients; torch's own function has moved between the versions that are supported."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        return _all_gather_tensor(values)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Any:
        return _ReduceScatter.apply(*gradients)


class _ReduceScatter(torch.autograd.Function):
    """This process's chunk of the sum over all processes; each of the two functions is the other's gradient."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        total = values.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total.chunk(dist.get_world_size())[dist.get_rank()].clone()

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Any:
        return _AllGather.apply(*gradients)


def is_distributed() -> bool:
    """Whether other processes train too."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _all_gather_tensor(values: Tensor) -> Tensor:
    values = values.contiguous()  # before the buffers are made: they would else inherit another order of memory
    parts = [torch.empty_like(values) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, values)
    return torch.cat(parts)


@dataclass
class _StatisticsScheme:
    """How the layers of one network normalise; the backbones' layers have one scheme, and those of the heads another.

    Attributes:
        images: Number of images in this process's share of a batch.
        groups: Number of groups in which a layer normalises them, all views of an image in one.
        joined: Whether it normalises over the images of all processes together, in one group.
        rows: Number of images, all views counted, in the backbone's last input; None for layers with an input row for
            each.
        twice: Whether second derivatives are needed.
        hooks: The hooks that record `rows`.
    """

    images: int
    groups: int
    joined: bool
    rows: int | None = None
    twice: bool = False
    hooks: list[RemovableHandle] = field(default_factory=list, compare=False)

    def blocks(self, length: int) -> int:
        """Number of views in an input of this length, which lie one after the other."""
        blocks, odd = divmod(length if self.rows is None else self.rows, self.images)
        assert not odd, "views of all images of a share, one after the other"
        return blocks


def batchnorm_layers(net: nn.Module) -> list[_BatchNorm]:
    """The batch-norm layers of a network and of its momentum encoders."""
    return [module for module in net.modules() if isinstance(module, _BatchNorm)]


def set_batchnorm_scheme(
    net: nn.Module, *, batch_size: int, ghost_batch: int | None, processes: int, whole: bool
) -> None:
    """Let batch norm take its statistics over ghost batches of a global batch, or over all of it.

    Args:
        net: A network, with such a scheme or not; changed in place.
        batch_size: Number of images of a global batch.
        ghost_batch: Number of images whose statistics are taken together, of which a process's share is a multiple;
            None for all.
        processes: Number of processes that share the batch.
        whole: Whether a process's share goes through the network whole; else in micro-batches, each a ghost batch.

    Raises:
        BadInput: If a layer does more than batch norm, so that its statistics cannot be taken over other images.
    """
    share = batch_size // processes
    groups = share // ghost_batch if ghost_batch and whole else 1
    joined = ghost_batch is None and processes > 1
    for module in net.modules():
        if hasattr(module, "ghost_batches"):
            cast(Any, module).ghost_batches = batch_size // ghost_batch if ghost_batch else 1
    scheme = _StatisticsScheme(share, groups, joined)
    if (groups == 1 and not joined) or not batchnorm_layers(net):
        reset_batchnorm(net)
    elif not all(
        isinstance(layer, _SchemedBatchNorm) and _same_scheme(layer.scheme, scheme) for layer in batchnorm_layers(net)
    ):
        reset_batchnorm(net)
        _apply_scheme(net, scheme)


def reset_batchnorm(net: nn.Module) -> None:
    """Undo `set_batchnorm_scheme`: every layer normalises all images of its input together."""
    for layer in batchnorm_layers(net):
        if isinstance(layer, _SchemedBatchNorm):
            for hook in layer.scheme.hooks:
                hook.remove()
            del layer.scheme
            cast(_BatchNorm, layer).__class__ = layer.kind


@contextmanager
def twice_differentiable(net: nn.Module) -> Iterator[None]:
    """Within it, gradients have gradients, which torch's statistics of several GPUs do not have; but it is slower."""
    schemes = {
        id(layer.scheme): layer.scheme for layer in batchnorm_layers(net) if isinstance(layer, _SchemedBatchNorm)
    }
    for scheme in schemes.values():
        scheme.twice = True
    try:
        yield
    finally:
        for scheme in schemes.values():
            scheme.twice = False


class _SchemedBatchNorm(_BatchNorm):
    """A layer of class `kind` whose statistics in training are those of a scheme.

    The layers of timm have dropout and an activation in them, which follow.
    """

    kind: type[_BatchNorm]
    scheme: _StatisticsScheme
    together: Callable[[Tensor], Tensor]  # `_joined`, which stays out of compiled graphs

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # the base class's name
        """See the base class."""
        if not self.training:
            return super().forward(input)
        output = self.together(input) if self.scheme.joined else self._grouped(input)
        for name in ("drop", "act"):
            if (after := getattr(self, name, None)) is not None:
                output = after(output)
        return output

    def _joined(self, values: Tensor) -> Tensor:
        """Over the images of all processes, which have as many each."""
        if values.device.type != "cpu" and not self.scheme.twice and self.momentum is not None:
            return self._by_kernels(values)
        others = [dim for dim in range(values.dim()) if dim != 1]
        wide = values.to(torch.promote_types(values.dtype, torch.float32))
        var, mean = torch.var_mean(wide, others, correction=0)
        means, variances = all_gather(torch.stack([mean, var])[None]).unbind(1)
        mean = means.mean(dim=0)
        var = variances.mean(dim=0) + (means - mean).square().mean(dim=0)
        count = len(means) * values.numel() // values.shape[1]
        self._move(mean.detach(), var.detach() * count / (count - 1))
        scale = (var + self.eps).rsqrt()
        scale = scale if self.weight is None else scale * self.weight
        shift = -mean * scale
        shift = shift if self.bias is None else shift + self.bias
        shape = [-1 if dim == 1 else 1 for dim in range(values.dim())]
        return torch.addcmul(shift.view(shape), wide, scale.view(shape)).to(values.dtype)

    def _by_kernels(self, values: Tensor) -> Tensor:
        """The same by the kernels that torch has for it on GPUs."""
        tracked = (self.running_mean, self.running_var) if self.track_running_stats else (None, None)
        if self.track_running_stats and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        output: Tensor = _SyncStatistics.apply(values, self.weight, self.bias, *tracked, self.eps, self.momentum)
        return output

    def _grouped(self, values: Tensor) -> Tensor:
        """Each group of images as channels of their own, so that one call of torch's function normalises them all."""
        groups, blocks = self.scheme.groups, self.scheme.blocks(len(values))
        apart, together = _group_permutations(values, blocks, groups)
        mean, var = (
            values.new_zeros(groups * self.num_features, dtype=cast(Tensor, tracked).dtype)
            if self.track_running_stats
            else None
            for tracked in (self.running_mean, self.running_var)
        )
        weight, bias = (None if each is None else each.repeat(groups) for each in (self.weight, self.bias))
        # With a momentum of 1 the running statistics become those of the batch.
        output = F.batch_norm(apart(values), mean, var, weight, bias, True, 1.0, self.eps)
        if mean is not None and var is not None:
            self._move(*(each.view(groups, -1).mean(dim=0) for each in (mean, var)))
        return together(output)

    @torch.no_grad()
    def _move(self, mean: Tensor, var: Tensor) -> None:
        """Move the running statistics towards these."""
        if not self.track_running_stats:
            return
        assert self.num_batches_tracked is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        self.num_batches_tracked.add_(1)
        factor = 1 / self.num_batches_tracked.float() if self.momentum is None else self.momentum
        for own, new in ((self.running_mean, mean), (self.running_var, var)):
            own.lerp_(new.to(own.dtype), factor)


class _SyncStatistics(SyncBatchNorm):
    """Torch's own function without its three waits to leave out processes without images; here all have some."""

    @staticmethod
    def forward(  # type: ignore[override]  # it is given less
        context: Any,
        values: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        eps: float,
        momentum: float,
    ) -> Tensor:
        if not values.is_contiguous(memory_format=torch.channels_last):
            values = values.contiguous()
        found = all_gather_labels(torch.cat(torch.batch_norm_stats(values, eps))[None])  # (processes, 2 * C)
        means, deviations = found.chunk(2, dim=1)
        counts = means.new_full((len(found),), values.numel() // values.shape[1])
        mean, deviation = torch.batch_norm_gather_stats_with_counts(
            values, means, deviations, running_mean, running_var, momentum, eps, counts
        )
        # As torch's backward pass expects it.
        context.save_for_backward(values, weight, mean, deviation, counts.to(torch.int32)[:, None])
        context.process_group = dist.group.WORLD
        return torch.batch_norm_elemt(values, weight, bias, mean, deviation, eps)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Any:
        return SyncBatchNorm.backward(context, *gradients)[:7]  # type: ignore[no-untyped-call]


_SCHEMED_CLASSES: dict[type[_BatchNorm], type[_BatchNorm]] = {}


def _apply_scheme(net: nn.Module, scheme: _StatisticsScheme) -> None:
    inner = _StatisticsScheme(scheme.images, scheme.groups, scheme.joined, rows=scheme.images)
    within: set[int] = set()
    for backbone in pruned_model.backbone_and_copies(net):
        own = {id(layer) for layer in batchnorm_layers(backbone)}
        within |= own
        if own and not scheme.joined:
            inner.hooks.append(backbone.register_forward_pre_hook(_row_recorder(inner)))
    for layer in batchnorm_layers(net):
        kind = type(layer)
        if kind.forward is not _BatchNorm.forward and not hasattr(layer, "act"):
            raise BadInput(
                "batch norm must be torch's own to take statistics over other images than those of its input, got a "
                f"{kind.__name__}; give another --model, or one process and no --ghost-batch"
            )
        layer.__class__ = _schemed_class(kind)
        cast(_SchemedBatchNorm, layer).scheme = inner if id(layer) in within else scheme


def _row_recorder(scheme: _StatisticsScheme) -> Callable[[nn.Module, Any], None]:
    # Some layers see more rows than there are images, such as a row for each patch.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def record(module: nn.Module, given: Any) -> None:
        scheme.rows = len(given[0])

    return cast(Callable[[nn.Module, Any], None], record)


def _same_scheme(one: _StatisticsScheme, other: _StatisticsScheme) -> bool:
    return (one.images, one.groups, one.joined) == (other.images, other.groups, other.joined)


def _schemed_class(kind: type[_BatchNorm]) -> type[_BatchNorm]:
    if kind not in _SCHEMED_CLASSES:  # one class for each, since compiled graphs look at it
        # Here and not as a decorator: it imports the compiler, for which a dry run, which arranges none, has no time.
        together = torch.compiler.disable(_SchemedBatchNorm._joined)  # type: ignore[no-untyped-call]
        own = {"kind": kind, "together": together, "__module__": kind.__module__}
        _SCHEMED_CLASSES[kind] = type(kind.__name__, (_SchemedBatchNorm, kind), own)
    return _SCHEMED_CLASSES[kind]


def _group_permutations(
    values: Tensor, blocks: int, groups: int
) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """Functions (V * n, C, ...) -> (V * n / G, G * C, ...) and back.

    Group j has the images from j * n / G on, of each of the V blocks. The order of memory stays, since channels last is
    what fast kernels want.
    """
    last = values.dim() == 4 and values.is_contiguous(memory_format=torch.channels_last)
    place = values.dim() - 1 if last else 1  # of the channels

    def apart(given: Tensor) -> Tensor:
        flat = given.permute(0, 2, 3, 1) if last else given
        split = flat.reshape(blocks, groups, -1, *flat.shape[1:]).movedim(1, place + 1)
        moved = split.flatten(place + 1, place + 2).flatten(0, 1)
        return moved.permute(0, 3, 1, 2) if last else moved

    def together(given: Tensor) -> Tensor:
        flat = given.permute(0, 2, 3, 1) if last else given
        split = flat.reshape(
            blocks, -1, *flat.shape[1:place], groups, flat.shape[place] // groups, *flat.shape[place + 1 :]
        )
        moved = split.movedim(place + 1, 1).flatten(0, 2)
        return moved.permute(0, 3, 1, 2) if last else moved

    return apart, together
