"""Magnitude (Han et al. 2015)."""

from collections.abc import Sequence
from dataclasses import dataclass

from sslticket.masking import gate
from sslticket.masking.criteria.base import Criterion, Scores, Subject


@dataclass(frozen=True)
class Magnitude(Criterion):
    """|w| as it stands: of trained weights at the end of a training (Frankle & Carbin 2019), or of W_k and W_0."""

    def scores(self, subject: Subject, names: Sequence[str]) -> Scores:
        """See the base class."""
        stored = gate.stored(subject.backbone)
        return {name: stored[name].abs() for name in names}
