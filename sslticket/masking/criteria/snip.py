"""SNIP: how much the loss depends on a connection (Lee et al. 2019)."""

from collections.abc import Sequence
from dataclasses import dataclass

from sslticket.masking import gate
from sslticket.masking.criteria.base import FromLosses, Scores, Subject


@dataclass(frozen=True, kw_only=True)
class SNIP(FromLosses):
    """|w g| with the gradient g of the loss: |dL/dm| of a mask's entry m at 1 (Lee et al. 2019, section 4.1).

    The paper's division by the sum of all scores is left out, since it changes no rank.

    Attributes:
        score_images: training images that are looked at, rounded up to whole batches; None for ten a class.
    """

    def scores(self, subject: Subject, names: Sequence[str]) -> Scores:
        """See the base class."""
        weights = gate.originals(subject.backbone, names)
        gradient = self.gradient(subject, list(weights.values()))
        return {name: (w.detach() * g).abs() for (name, w), g in zip(weights.items(), gradient, strict=True)}
