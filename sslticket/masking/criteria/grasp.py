"""GraSP: what keeps the gradient flowing (Wang et al. 2020)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sslticket.errors import BadInput
from sslticket.masking import gate
from sslticket.masking.criteria.base import FromLosses, Scores, Subject, slopes


@dataclass(frozen=True, kw_only=True)
class GraSP(FromLosses):
    """w (Hg), with the gradient g and the Hessian H of the loss; the lowest are removed.

    Removing w changes the squared norm of the gradient by about -2 w (Hg) (Wang et al. 2020, section 4), so the lowest
    are those whose removal lets the gradient grow most. Scores are divided by the absolute value of their sum, as in
    the authors' code, which goes over the images twice as well.

    Attributes:
        score_images: training images that are looked at, rounded up to whole batches; None for ten a class.
        logit_temperature: by which logits are divided (200 in the authors' code); 1 for objectives without logits.
    """

    passes = 2

    logit_temperature: float = 200.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.logit_temperature > 0:
            raise BadInput(
                f"logits cannot be divided by {self.logit_temperature:g}; give --logit-temperature above 0, such as 200"
            )

    def check(self, scope: str, logits: bool) -> None:
        """See the base class; a temperature needs logits."""
        if not logits and self.logit_temperature != 1:
            raise BadInput(
                f"this objective has no logits to divide by {self.logit_temperature:g}; give --logit-temperature 1"
            )

    def scores(self, subject: Subject, names: Sequence[str]) -> Scores:
        """See the base class."""
        originals = gate.originals(subject.backbone, names)
        weights = list(originals.values())
        whole = self.gradient(subject, weights, self.logit_temperature)
        product = [torch.zeros_like(weight) for weight in weights]
        for loss in subject.losses(self.logit_temperature):
            own = slopes(loss, weights, create_graph=True)
            # H g of this loss is the gradient of its gradient's product with the fixed g; no Hessian is ever built.
            along = torch.stack([(part * fixed).sum() for part, fixed in zip(own, whole, strict=True)]).sum()
            for part, second in zip(product, slopes(along, weights), strict=True):
                part += second
        scores = {
            name: weight.detach() * subject.reduce(part)
            for (name, weight), part in zip(originals.items(), product, strict=True)
        }
        total = torch.stack([score.double().sum() for score in scores.values()]).sum().abs()
        tiny = torch.finfo(total.dtype).tiny
        return {name: (score.double() / total.clamp(min=tiny)).to(score.dtype) for name, score in scores.items()}
