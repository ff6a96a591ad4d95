"""The objective that an example defines outside the package: its geometry, and a search with it."""

from pathlib import Path

import pytest
import torch

from sslticket.api import load_recipe
from sslticket.cli import recipe_commands as command
from sslticket.errors import BadInput
from sslticket.ticket import Ticket

EXAMPLE = Path(__file__).parent.parent / "examples" / "relative_position.py"
# What the classes mean, said in another way than in the example: which way the neighbour lies, down and right.
WAYS = [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)]


def coordinates(size: int, count: int) -> torch.Tensor:
    """Images whose first channel is the row and whose second the column, (count, 2, size, size)."""
    row = torch.arange(float(size))[:, None].expand(size, size)
    return torch.stack([row, row.T]).expand(count, 2, size, size)


@pytest.mark.parametrize(("size", "gap", "side"), [(32, 2, 8), (224, 24, 50), (33, 0, 11)])
def test_a_neighbour_lies_where_its_class_says_and_never_overlaps(size: int, gap: int, side: int) -> None:
    objective = load_recipe(EXAMPLE).objective.__class__(gap=gap)  # type: ignore[call-arg]
    place = torch.arange(8).repeat(50)
    shifts = torch.randint(gap + 1, (2, len(place), 2), generator=torch.Generator().manual_seed(0))
    centre, neighbour = objective.pair(coordinates(size, len(place)), place, shifts)  # type: ignore[attr-defined]
    assert centre.shape == neighbour.shape == (len(place), 2, side, side)
    for patches in (centre, neighbour):  # neither mirrored nor turned: coordinates grow down and to the right by 1
        assert torch.equal(patches[:, 0].diff(dim=1), torch.ones(len(place), side - 1, side))
        assert torch.equal(patches[:, 1].diff(dim=2), torch.ones(len(place), side, side - 1))
    ways = torch.tensor(WAYS)[place]
    offset = neighbour[:, :, 0, 0] - centre[:, :, 0, 0]
    assert torch.equal(offset[ways == 0].abs() <= gap, torch.ones(4 * 50, dtype=torch.bool)), "side by side"
    between = (offset * ways)[ways != 0] - side
    assert between.min() >= 0
    assert between.max() <= 2 * gap
    assert abs(between.mean() - gap) <= 0.1 * gap


def test_a_search_with_the_example_leaves_tickets(tmp_path: Path) -> None:
    words = f"--dataset digits --image-size 32 --length 4it --levels 1 --batch-size 16 --out {tmp_path}"
    command.run_with_flags(load_recipe(EXAMPLE), words.split())
    ticket = Ticket.load(next(tmp_path.glob("relativeposition-conv3-digits-*")) / "tickets" / "level-01.safetensors")
    assert ticket.mask.density == 0.5
    assert ticket.provenance["objective"] == "relativeposition"


def test_a_gap_as_wide_as_a_cell_is_refused() -> None:
    with pytest.raises(BadInput, match="--gap of 10 pixels leaves no patch; give one from 0 to 9"):
        command.run_with_flags(
            load_recipe(EXAMPLE), ["--gap", "10", "--dataset", "digits", "--image-size", "32", "--dry-run"]
        )
