import json
from pathlib import Path

import pytest
import torch

from sslticket.analysis.overlap import DeadChannels, dead_channels
from sslticket.evaluation import tasks
from sslticket.pruning.mask import Mask
from sslticket.results.rows import row_error
from sslticket.ticket import Ticket
from tests.runs import search


def test_a_channel_is_dead_where_all_of_its_weights_are_pruned() -> None:
    filters = torch.zeros(4, 2, 3, 3, dtype=torch.bool)
    filters[0, 1, 2, 2] = True  # a single weight keeps a filter alive
    filters[2] = True
    units = torch.tensor([[False, True], [False, False], [False, False]])
    gone = torch.zeros(5, 1, 1, 1, dtype=torch.bool)
    assert dead_channels(Mask({"conv": filters, "linear": units, "gone": gone})) == {
        "conv": (2, 4),
        "linear": (2, 3),
        "gone": (5, 5),
    }


def test_rows_tell_each_layer_of_each_ticket(tmp_path: Path) -> None:
    planned = search(tmp_path)
    rows = list(DeadChannels().rows(tasks.find_ticket_files([tmp_path])))
    assert [row["level"] for row in rows] == [0, 1, 2, 3]
    assert [row_error(row) for row in rows] == [None] * 4
    assert [json.loads(file.read_text()) for file in sorted(tmp_path.rglob("*.channels.jsonl"))] == rows
    assert {lost for lost, _ in rows[0]["dead"].values()} == {0}
    mask = Ticket.load(planned.run_dir.ticket_path(3)).mask
    assert sum(kept for kept, _ in rows[3]["layers"].values()) == mask.survivors
    for name, layer in mask.items():
        assert rows[3]["dead"][name] == [sum(not channel.any() for channel in layer), len(layer)]


@pytest.mark.parametrize(("lost", "told"), [(3, ""), (4, "; no weight is left of last")])
def test_a_layer_that_vanished_is_named(lost: int, told: str) -> None:
    row = {"density": 0.125, "dead": {"first": [1, 2], "last": [lost, 4]}}
    assert DeadChannels().describe_row(row) == f"density 12.500%, {1 + lost} of 6 output channels are dead{told}"
