"""Batch norm over all processes by the kernels that torch has for GPUs is what it is by plain arithmetic.

The kernels exist on GPUs alone; here their definitions stand in for them, in two processes.
"""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sslticket.objectives import distributed
from tests.gloo import run_in_processes

PROCESSES, SHAPE = 2, (6, 5, 4, 3)


def _columns(values: Tensor) -> Tensor:
    """(N, C, ...) -> (rows, C)."""
    return values.transpose(0, 1).flatten(1).T


def _wide(row: Tensor, values: Tensor) -> Tensor:
    return row.view(1, -1, *(1,) * (values.dim() - 2))


def _stats(values: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    var, mean = torch.var_mean(_columns(values).float(), 0, correction=0)
    return mean, (var + eps).rsqrt()


def _gather(
    values: Tensor,
    means: Tensor,
    deviations: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    momentum: float,
    eps: float,
    counts: Tensor,
) -> tuple[Tensor, Tensor]:
    share, total = (counts / counts.sum())[:, None], counts.sum()
    mean = (means * share).sum(0)
    var = ((deviations**-2 - eps + (means - mean) ** 2) * share).sum(0)
    if running_mean is not None and running_var is not None:
        running_mean.lerp_(mean, momentum)
        running_var.lerp_(var * total / (total - 1), momentum)
    return mean, (var + eps).rsqrt()


def _elemt(
    values: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, deviation: Tensor, eps: float
) -> Tensor:
    scale = deviation if weight is None else deviation * weight
    shifted = (values.float() - _wide(mean, values)) * _wide(scale, values)
    return (shifted if bias is None else shifted + _wide(bias, values)).to(values.dtype)


def _reduce(
    gradient: Tensor,
    values: Tensor,
    mean: Tensor,
    deviation: Tensor,
    weight: Tensor | None,
    of_input: bool,
    of_weight: bool,
    of_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    total = _columns(gradient).float().sum(0)
    product = (_columns(gradient).float() * (_columns(values) - mean)).sum(0)
    return total, product, product * deviation, total.clone()


def _backward(
    gradient: Tensor,
    values: Tensor,
    mean: Tensor,
    deviation: Tensor,
    weight: Tensor | None,
    total: Tensor,
    product: Tensor,
    counts: Tensor,
) -> Tensor:
    scale = deviation if weight is None else deviation * weight
    count = counts.sum()
    inner = gradient - _wide(total / count, values)
    inner = inner - (values - _wide(mean, values)) * _wide(product / count * deviation**2, values)
    return (inner * _wide(scale, values)).to(values.dtype)


def both(rank: int) -> list[dict[str, Tensor]]:
    """What a layer makes of this process's part, by kernels and by arithmetic."""
    found = []
    for name, last in (("_by_kernels", True), ("_by_kernels", False), ("_joined", False)):
        torch.manual_seed(0)
        layer = nn.BatchNorm2d(SHAPE[1])
        nn.init.normal_(layer.weight)
        nn.init.normal_(layer.bias)
        net = nn.Module()
        net.backbone, net.heads = layer, nn.Identity()
        distributed.set_batchnorm_scheme(
            net, batch_size=PROCESSES * SHAPE[0], ghost_batch=None, processes=PROCESSES, whole=False
        )
        values, wanted = torch.randn(2, PROCESSES * SHAPE[0], *SHAPE[1:]).chunk(PROCESSES, dim=1)[rank]
        values = (values * (1 + rank) + rank).contiguous(
            memory_format=torch.channels_last if last else torch.contiguous_format
        )
        output = getattr(layer, name)(values.requires_grad_())
        (output * wanted).sum().backward()
        state = {key: value.clone() for key, value in layer.state_dict().items()}
        gradients = {"of values": values.grad, "of weight": layer.weight.grad, "of bias": layer.bias.grad}
        found.append({"output": output.detach()} | state | gradients)
    return found


def process(rank: int, folder: str) -> None:
    library = torch.library.Library("aten", "IMPL")
    for name, definition in {
        "batch_norm_stats": _stats,
        "batch_norm_gather_stats_with_counts": _gather,
        "batch_norm_elemt": _elemt,
        "batch_norm_backward_reduce": _reduce,
        "batch_norm_backward_elemt": _backward,
    }.items():
        library.impl(name, definition, "CPU")
    torch.save(both(rank), f"{folder}/{rank}.pt")


@pytest.mark.slow
def test_torchs_kernels_give_what_plain_arithmetic_gives(tmp_path: Path) -> None:
    run_in_processes(process, tmp_path, PROCESSES)
    for rank in range(PROCESSES):
        last, first, plain = torch.load(tmp_path / f"{rank}.pt")
        assert plain["num_batches_tracked"] == 1
        for key, value in plain.items():
            for ours in (last, first):
                torch.testing.assert_close(
                    ours[key], value, rtol=1e-4, atol=1e-5, msg=lambda text, key=key: f"{key}: {text}"
                )
