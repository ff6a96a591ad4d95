"""Scores by which weights are kept; a criterion only scores, `Mask.top` selects."""

from collections.abc import Mapping

from torch import Tensor


def magnitude(state: Mapping[str, Tensor], names: list[str]) -> dict[str, Tensor]:
    """|w| of the trained weights (Han et al. 2015; Frankle & Carbin 2019)."""
    return {name: state[name].abs() for name in names}
