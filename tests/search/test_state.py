"""Searches whose objectives have state: what is not in W_k's snapshot would show when a search is taken up again."""

from pathlib import Path

import pytest

from sslticket.config.recipe import Data
from sslticket.objectives.base import Objective
from sslticket.objectives.byol import BYOL
from sslticket.objectives.dino import DINO
from sslticket.objectives.exemplar import Exemplar
from sslticket.objectives.ibot import IBOT, DINOv2
from sslticket.objectives.mae import MAE
from sslticket.objectives.mocov2 import MoCoV2
from sslticket.objectives.s4l import S4LRotation
from sslticket.objectives.swav import SwAV
from tests.runs import recipe, search, tickets

OBJECTIVES = {
    "mocov2": MoCoV2(queue=96),
    "byol": BYOL(hidden=16, dim=8, momentum=0.9),
    "dino": DINO(hidden=16, bottleneck=8, outputs=16, momentum=0.9, head_norm=True),
    "swav": SwAV(hidden=16, dim=8, prototypes=12, frozen_for=0.5),
    "exemplar": Exemplar(dim=8),
    "s4l": S4LRotation(share=0.25),
    "mae": MAE(decoder_width=16, decoder_depth=1, decoder_heads=2),
    "dinov2": DINOv2(hidden=16, bottleneck=8, outputs=16, momentum=0.9, frozen_for=0.5, separate_heads=True),
}


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_a_search_that_is_taken_up_again_finds_the_same_tickets(tmp_path: Path, objective: Objective) -> None:
    # Patches of the smallest vision transformer have 16 pixels a side.
    model, size = ("test_vit", 32) if isinstance(objective, MAE | IBOT) else ("conv3", 16)
    which = recipe(objective, model=model, data=Data(dataset="digits", image_size=size, labels=0.2))
    planned = search(tmp_path, which)
    found = [ticket.hash for ticket in tickets(planned)]
    assert len(set(found)) == 4
    for level in (1, 2, 3):  # of the dense training only the snapshot at W_k is left
        planned.run_dir.ticket_path(level).unlink()
    assert [ticket.hash for ticket in tickets(search(tmp_path, which))] == found
