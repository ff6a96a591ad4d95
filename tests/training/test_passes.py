"""What a training costs: images that go through the backbone, each time they do."""

import json

import pytest

from sslticket.config.runtime import RuntimeConfig
from sslticket.objectives.barlowtwins import BarlowTwins
from sslticket.objectives.base import Objective
from sslticket.objectives.byol import BYOL
from sslticket.objectives.exemplar import Exemplar
from sslticket.objectives.mocov2 import MoCoV2
from sslticket.objectives.rotnet import RotNet
from sslticket.objectives.s4l import S4LRotation
from sslticket.objectives.simclr import SimCLR
from sslticket.objectives.simsiam import SimSiam
from sslticket.objectives.supervised import Supervised
from sslticket.results.rows import row_error
from sslticket.search.imp import IMP
from sslticket.search.plan import plan_search
from sslticket.search.run_search import run_search
from tests.runs import BATCH, REWIND, STEPS, recipe, search, tickets


@pytest.mark.parametrize(
    ("objective", "forward", "backward"),
    [
        (Supervised(), 1, 1),
        (RotNet(), 4, 4),  # four turns of each image
        (S4LRotation(), 4, 4),
        (Exemplar(copies=3), 3, 3),
        (SimCLR(), 2, 2),
        (SimSiam(), 2, 2),
        (BarlowTwins(), 2, 2),
        (MoCoV2(), 2, 1),  # the key encoder gets no gradient
        (BYOL(), 4, 2),  # both views through both networks
    ],
    ids=lambda value: value.name if isinstance(value, Objective) else "",
)
def test_an_image_counts_as_often_as_it_goes_through_a_backbone(tmp_path, objective, forward, backward):
    planned = search(tmp_path, recipe(objective, search=IMP(levels=1, rate=0.5, rewind=f"{REWIND}it")))
    rows = [json.loads(planned.run_dir.row_path(level).read_text()) for level in (0, 1)]
    assert [row_error(row) for row in rows] == [None, None]
    steps = (REWIND, STEPS - REWIND)
    assert [row["samples"] for row in rows] == [BATCH * each for each in steps]
    assert [row["forward_images"] for row in rows] == [forward * BATCH * each for each in steps]
    assert [row["backward_images"] for row in rows] == [backward * BATCH * each for each in steps]
    assert rows[1]["search_forward_images"] == forward * BATCH * STEPS
    assert tickets(planned)[1].provenance["search_forward_images"] == forward * BATCH * STEPS


@pytest.mark.slow
def test_a_compiled_backbone_counts_as_often(tmp_path):
    which = recipe(RotNet(), search=IMP(levels=1, rate=0.5, rewind=f"{REWIND}it"))
    planned = plan_search(which, RuntimeConfig(compile=True), tmp_path)
    run_search(planned, RuntimeConfig(compile=True))
    assert json.loads(planned.run_dir.row_path(1).read_text())["search_forward_images"] == 4 * BATCH * STEPS
