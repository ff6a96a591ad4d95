"""A criterion of one's own: weights are kept where the loss changes fastest with them.

Run       sslticket run supervised_digits --criterion examples/gradient_size.py:GradientSize --score-images 100
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sslticket.pruning import pruned_model
from sslticket.pruning.criteria import GradientCriterion, Scores, ScoringInput


@dataclass(frozen=True, kw_only=True)
class GradientSize(GradientCriterion):
    """|g| |w|^power, with the gradient g of the loss; SNIP has a power of 1.

    Attributes:
        power: Exponent of the weight's own size; 0 leaves it out.
    """

    power: float = 0.0

    def scores(self, inputs: ScoringInput, names: Sequence[str]) -> Scores:
        """See the base class."""
        weights = pruned_model.stored_weights(inputs.backbone, names)
        gradients = self.gradient(inputs, list(weights.values()))
        pairs = zip(weights.values(), gradients, strict=True)
        return dict(zip(names, (g.abs() * w.detach().abs() ** self.power for w, g in pairs), strict=True))
