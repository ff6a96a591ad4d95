import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sslticket.config.training import Clock, Span
from sslticket.errors import BadInput
from sslticket.objectives.rotnet import RotNet
from sslticket.objectives.simclr import SimCLR
from sslticket.objectives.supervised import Supervised
from sslticket.pruning import pruned_model
from sslticket.pruning.criteria import ERK, SNIP, Criterion, GraSP, Magnitude, SynFlow
from sslticket.pruning.mask import Mask
from sslticket.pruning.prunable import prunable_weights
from sslticket.results.rows import row_error
from sslticket.search.imp import IMP
from sslticket.search.oneshot import OneShot
from sslticket.search.plan import SearchPlan
from sslticket.training.network import MaskedNetwork
from tests.runs import BATCH, REWIND, STEPS, recipe, search, tickets

TOTAL = 13_968  # prunable weights of conv3 on one channel
EARLY, WHOLE = REWIND * BATCH, STEPS * BATCH
IMAGES = 4 * BATCH  # ten of each of ten digits, in whole batches


def oneshot(criterion: Criterion | None = None, **changes: Any) -> OneShot:
    settings: dict[str, Any] = {
        "levels": 3,
        "rate": 0.5,
        "rewind": f"{REWIND}it",
        "criterion": criterion or Magnitude(),
    }
    return OneShot(**settings | changes)


def rows(planned: SearchPlan) -> list[dict[str, Any]]:
    return [json.loads(planned.run_dir.row_path(level).read_text(), parse_constant=pytest.fail) for level in range(4)]


def test_at_the_end_all_levels_are_cut_from_the_training_that_imp_begins_with(tmp_path: Path) -> None:
    once = tickets(search(tmp_path, recipe(search=oneshot())))
    again = tickets(search(tmp_path, recipe()))
    assert once[1].mask.equals(again[1].mask), "one round of IMP is one shot"
    assert not once[2].mask.equals(again[2].mask)
    assert [ticket.mask.survivors for ticket in once] == [round(TOTAL * 0.5**level) for level in range(4)]
    for ticket, other in zip(once, again, strict=True):
        assert ticket.mask.is_subset_of(once[max(0, ticket.level - 1)].mask)
        for name, value in ticket.weights.items():
            early = other.weights[name] if name not in ticket.mask else again[0].weights[name] * ticket.mask[name]
            assert value.equal(early), "W_k, whenever the mask was cut"


def test_at_the_start_magnitudes_are_those_of_the_initialisation(tmp_path: Path) -> None:
    which = recipe(search=oneshot(rewind="0it", scored="start"))
    found = tickets(search(tmp_path, which))
    net = MaskedNetwork.build("conv3", Supervised(), channels=1, image_size=8, classes=10, seed=which.seeds.init)
    initial, ones = pruned_model.read_state(net.backbone), found[0].mask
    assert list(ones) == prunable_weights(net.backbone)
    for ticket in found:
        sizes = {name: initial[name].abs() for name in ones}
        assert ticket.mask.equals(Mask.top(sizes, keep=round(TOTAL * 0.5**ticket.level), within=ones))


@pytest.mark.parametrize("criterion", [SNIP(), GraSP(), SynFlow(rounds=3)], ids=lambda each: type(each).__name__)
@pytest.mark.parametrize("scored", ["start", "end"])
def test_a_search_that_is_taken_up_again_ends_with_the_same_bytes(
    tmp_path: Path, criterion: Criterion, scored: str
) -> None:
    which = recipe(RotNet(), search=oneshot(criterion, scored=scored))
    folder = search(tmp_path, which).run_dir
    whole = [folder.ticket_path(level).read_bytes() for level in range(4)]
    for level in (2, 3):
        folder.ticket_path(level).unlink()
    search(tmp_path, which)
    assert [folder.ticket_path(level).read_bytes() for level in range(4)] == whole


@pytest.mark.parametrize(
    ("which", "steps", "samples", "known"),
    [
        (oneshot(), [REWIND, STEPS - REWIND, 0, 0], [EARLY, WHOLE - EARLY, 0, 0], [EARLY, *[WHOLE] * 3]),
        (oneshot(SynFlow(rounds=2), scored="start"), [REWIND, 0, 0, 0], [EARLY, 0, 0, 0], [EARLY] * 4),
        (oneshot(SNIP(), scored="start"), [REWIND, 0, 0, 0], [EARLY, IMAGES, 0, 0], [EARLY, *[EARLY + IMAGES] * 3]),
        (
            oneshot(GraSP(score_images=40), scored="start", rewind="0it"),
            [0] * 4,
            [0, 2 * 2 * BATCH, 0, 0],
            [0, *[4 * BATCH] * 3],
        ),
        (
            IMP(levels=3, rate=0.5, rewind=f"{REWIND}it", criterion=SNIP(score_images=BATCH)),
            [REWIND, *[STEPS - REWIND] * 3],
            [EARLY, *[WHOLE - EARLY + BATCH] * 3],
            [EARLY, WHOLE + BATCH, 2 * (WHOLE + BATCH) - EARLY, 3 * (WHOLE + BATCH) - 2 * EARLY],
        ),
    ],
    ids=["magnitude-end", "synflow", "snip", "grasp", "imp-snip"],
)
def test_rows_count_images_of_the_one_training_and_of_scores(
    tmp_path: Path, which: OneShot | IMP, steps: list[int], samples: list[int], known: list[int]
) -> None:
    planned = search(tmp_path, recipe(search=which))
    found = rows(planned)
    assert [row["steps"] for row in found] == steps
    assert [row["samples"] for row in found] == samples
    assert [row["search_samples"] for row in found] == known
    assert [planned.cumulative_samples(level) for level in range(4)] == known, "as planned"
    assert [row_error(row) for row in found] == [None] * 4
    assert all(not row["metrics"] for row in found if not row["steps"]), "of no training, nothing is told"
    assert [ticket.mask.survivors for ticket in tickets(planned)] == [round(TOTAL * 0.5**level) for level in range(4)]


def test_what_cannot_be_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    clock, dense = Clock(Span.parse("40it"), 16, 1000), Mask({"layer": torch.ones(TOTAL, dtype=torch.bool)})
    with pytest.raises(BadInput, match="leave none of 13,968 weights; give --levels 14 or less"):
        oneshot(levels=30).stages(clock, dense)
    with pytest.raises(BadInput, match=r"must lie before the end of a training .* got 40it"):
        oneshot(rewind="40it").stages(clock, dense)
    with pytest.raises(BadInput, match="--levels must be at least 1, got 0"):
        oneshot(levels=0)
    with pytest.raises(BadInput, match="give --logit-temperature 1"):
        search(tmp_path, recipe(SimCLR(), search=oneshot(GraSP())))
    for which in (oneshot(ERK(), scope="layer"), IMP(criterion=ERK(), scope="layer")):
        with pytest.raises(BadInput, match="give --scope global"):
            search(tmp_path, recipe(search=which))
    assert not list(tmp_path.iterdir())
