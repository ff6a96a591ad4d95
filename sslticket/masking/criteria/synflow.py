"""SynFlow: how much of the network's flow goes through a weight (Tanaka et al. 2020)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from sslticket.errors import BadInput
from sslticket.masking import gate
from sslticket.masking.criteria.base import Criterion, Scores, Subject, slopes


@dataclass(frozen=True)
class SynFlow(Criterion):
    """|w dR/dw|, with R the sum of the backbone's outputs for an image of ones.

    Weights and buffers are taken at their absolute values, on a copy in float64, which a deep network's flow does not
    overflow; batch norm and dropout work as in evaluation. No image is looked at. Scores into and out of a hidden layer
    have equal sums, so that no layer is emptied where rounds are many (Tanaka et al. 2020, theorems 1 to 3).

    Attributes:
        rounds: in how many rounds weights are pruned (Tanaka et al. 2020, algorithm 1; 100 in their experiments).
    """

    rounds: int = 100

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise BadInput(f"{self.rounds} rounds prune nothing; give --rounds at least 1")

    def scores(self, subject: Subject, names: Sequence[str]) -> Scores:
        """See the base class."""
        backbone = subject.backbone
        device = next(backbone.parameters()).device
        if device.type == "mps":  # which knows no float64
            device = torch.device("cpu")
        originals = gate.originals(backbone, names)
        positive = {tensor: _positive(tensor, device) for tensor in (*backbone.parameters(), *backbone.buffers())}
        weights = [positive[weight].requires_grad_() for weight in originals.values()]
        state = {
            key: positive[tensor]
            for members in (backbone.named_parameters(), backbone.named_buffers())
            for key, tensor in members
        }
        ones = torch.ones(
            1, subject.channels, subject.image_size, subject.image_size, dtype=torch.float64, device=device
        )
        with _evaluating(backbone):
            flow = functional_call(backbone, state, (ones,)).sum()
        return {
            name: (weight.detach() * slope).abs()
            for name, weight, slope in zip(originals, weights, slopes(flow, weights), strict=True)
        }


def _positive(tensor: Tensor, device: torch.device) -> Tensor:
    found = tensor.detach().to(device)
    return found.double().abs() if found.is_floating_point() else found


@contextmanager
def _evaluating(backbone: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in backbone.modules()]
    backbone.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
