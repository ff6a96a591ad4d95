"""A few thousand of the mutations that `python -m tests.fuzz.run` makes a million of."""

import pytest

from tests.fuzz.readers import READERS
from tests.fuzz.run import several


@pytest.mark.parametrize("name", sorted(READERS))
def test_what_is_damaged_is_refused_in_a_line_or_read(name: str) -> None:
    found = several(name, 0, 300, seed=1)
    assert [what for what in found if what.startswith("FAULT")] == []
    assert found["refused"] > 0
