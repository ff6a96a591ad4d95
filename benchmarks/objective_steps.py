"""The training step of each objective, against supervised steps with as many forward images; see `objectives`."""

from compare import Line
from images import Images
from objectives import step_lines


def lines(images: Images) -> list[Line]:
    """A line for each objective."""
    return step_lines()
