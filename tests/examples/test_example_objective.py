"""The example of an objective of one's own is searched, evaluated and reported, by commands and from Python."""

from pathlib import Path

import torch
from torch import nn

from sslticket import evaluate_tickets, find_tickets, write_report
from sslticket.objectives import OBJECTIVES
from tests.examples.own_parts import SHORT, evaluate_and_report_by_commands, example, search_by_commands
from tests.runs import recipe

PATCH_ORDER = example("patch_order.py:PatchOrder")


def test_the_four_orders_move_each_quarter_to_each_place() -> None:
    seen = []

    class Net:
        backbone = nn.Flatten()
        heads = nn.Identity()

    Net.backbone.register_forward_hook(lambda module, given, output: seen.append(given[0]))
    image = torch.tensor([[0.0, 1.0], [2.0, 3.0]]).repeat_interleave(2, 0).repeat_interleave(2, 1)[None, None]
    _, orders = OBJECTIVES.get(PATCH_ORDER)()._logits_and_orders(Net(), image)
    corners = seen[0][:, 0, ::2, ::2].flatten(1)
    assert corners.tolist() == [[0, 1, 2, 3], [1, 0, 3, 2], [2, 3, 0, 1], [3, 2, 1, 0]]
    assert orders.tolist() == [0, 1, 2, 3]


def test_an_objective_of_ones_own_is_searched_evaluated_and_reported_by_commands(tmp_path: Path) -> None:
    run = search_by_commands([*SHORT.split(), "--objective", PATCH_ORDER], tmp_path)
    assert run.name.startswith("patchorder-conv3-digits-")
    evaluate_and_report_by_commands(run)
    assert "patchorder" in (run / "report.html").read_text()


def test_an_objective_of_ones_own_is_searched_evaluated_and_reported_from_python(tmp_path: Path) -> None:
    tickets = find_tickets(recipe(OBJECTIVES.get(PATCH_ORDER)()), out=tmp_path / "runs", progress=False)
    assert not evaluate_tickets(tickets[-1], protocol="own", progress=False).empty
    write_report(tmp_path / "runs", tmp_path / "report.html")
