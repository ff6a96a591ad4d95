"""Optimisers from their description."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from sslticket import fit
from sslticket.fit import SGD, Adam, Optimizer
from sslticket.masking import gate
from sslticket.training.joined import Joined
from sslticket.training.lars import LARS
from sslticket.training.net import Net


def optimizer_of(net: Net, spec: Optimizer) -> torch.optim.Optimizer:
    """The optimiser of a net: of its weights as described, and of the scores of a mask that it learns as that says.

    No weight decay falls on scores (Savarese et al. 2019, section 4.2); weights that are frozen are left out.
    """
    if net.learning is None:
        return optimizer(spec, net.parameters())
    scores = optimizer(net.learning.optimizer, (one.score for one in gate.learnt(net).values()))
    for group in scores.param_groups:
        group["share"] = net.learning.optimizer.lr / spec.lr
    return scores if net.learning.frozen else Joined(optimizer(spec, net.weights()), scores)


def optimizer(spec: Optimizer, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The torch optimiser for a description, for the parameters that are trained.

    A group's "share", where it has one, is what its learning rate is of the schedule's.

    Weight decay falls on all of them, as in the papers; LARS leaves biases and batch norm out, as its own papers do.
    The fused implementations update all tensors in one call, on CPU and GPU; those without one take all tensors through
    an operation before the next one.
    """
    chosen = [parameter for parameter in parameters if parameter.requires_grad]
    if isinstance(spec, fit.LARS):
        return _lars(spec, chosen)
    if isinstance(spec, SGD):
        return torch.optim.SGD(
            chosen,
            lr=spec.lr,
            momentum=spec.momentum,
            weight_decay=spec.weight_decay,
            nesterov=spec.nesterov,
            fused=True,
        )
    if isinstance(spec, Adam):
        return torch.optim.Adam(chosen, lr=spec.lr, betas=spec.betas, weight_decay=spec.weight_decay, fused=True)
    return torch.optim.RMSprop(
        chosen,
        lr=spec.lr,
        alpha=spec.alpha,
        eps=spec.eps,
        momentum=spec.momentum,
        weight_decay=spec.weight_decay,
        foreach=True,
    )


def start(optimizer: torch.optim.Optimizer) -> None:
    """Give SGD's momentum its zeros where it has none yet; for optimisers whose first step may be skipped.

    Fused SGD takes fresh memory for it at its first step, which fills it. Where loss scaling skips that step on the
    device the memory stays what it was, and the second step would add it to the weights. Others need no start: Adam's
    means begin as zeros, and RMSprop's and LARS's steps are skipped before they are called.
    """
    for part in optimizer.parts if isinstance(optimizer, Joined) else (optimizer,):
        if isinstance(part, torch.optim.SGD):
            for group in part.param_groups:
                for parameter in group["params"] if group["momentum"] else ():
                    part.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))


def lay_out(optimizer: torch.optim.Optimizer) -> None:
    """Bring state that was read from a file into its parameter's memory layout; call it after each loading.

    Fused kernels walk parameter, gradient and state as they lie in memory, side by side: under channels-last a state in
    another order is another weight's on a CPU, and refused on CUDA.
    """
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if value.shape == parameter.shape and value.stride() != parameter.stride():
                values[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _lars(spec: fit.LARS, chosen: list[nn.Parameter]) -> torch.optim.Optimizer:
    scaled: dict[str, Any] = {"params": [parameter for parameter in chosen if parameter.dim() > 1]}
    share = 1.0 if spec.bias_lr is None else spec.bias_lr / spec.lr
    biases = [parameter for parameter in chosen if parameter.dim() <= 1]
    plain: dict[str, Any] = {"params": biases, "weight_decay": 0.0, "share": share}
    return LARS([scaled, plain], lr=spec.lr, momentum=spec.momentum, weight_decay=spec.weight_decay, trust=spec.trust)
