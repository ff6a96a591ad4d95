"""Optimisers from their description."""

from collections.abc import Iterable

import torch
from torch import nn

from sslticket.fit import SGD, Adam


def optimizer(spec: SGD | Adam, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The torch optimiser for a description; weight decay falls on all parameters, as in the papers.

    The fused implementations update all tensors in one call, on CPU and GPU.
    """
    chosen = list(parameters)
    if isinstance(spec, SGD):
        return torch.optim.SGD(
            chosen,
            lr=spec.lr,
            momentum=spec.momentum,
            weight_decay=spec.weight_decay,
            nesterov=spec.nesterov,
            fused=True,
        )
    return torch.optim.Adam(chosen, lr=spec.lr, betas=spec.betas, weight_decay=spec.weight_decay, fused=True)
