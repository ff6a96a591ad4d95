"""The example of a gate of one's own is searched, evaluated and reported, by commands and from Python."""

from pathlib import Path

import pytest
import torch

from sslticket import evaluate_tickets, find_tickets, write_report
from sslticket.pruning import GATES
from sslticket.search.learned import MaskTraining
from tests.examples.own_parts import SHORT, evaluate_and_report_by_commands, example, search_by_commands
from tests.runs import recipe

HARD_CONCRETE = example("hard_concrete.py:HardConcrete")


def test_the_masks_of_the_example_are_0_as_often_as_its_probabilities_say() -> None:
    gate = GATES.get(HARD_CONCRETE)().build(torch.zeros(100_000), 0.5)
    gate.on_step(0.0, seed=1)
    soft = gate.soft_mask()
    assert soft.gt(0).float().mean().item() == pytest.approx(gate.keep_prob()[0].item(), abs=0.01)
    assert soft.min() == 0
    assert soft.max() == 1
    assert gate.score.grad_fn is None
    assert torch.autograd.grad(soft.sum(), gate.score)[0].abs().sum() > 0


def test_a_gate_of_ones_own_is_searched_evaluated_and_reported_by_commands(tmp_path: Path) -> None:
    flags = ["--search", "MaskTraining", "--gate", HARD_CONCRETE, "--score-lr", "0.5", "--initial-score", "0.1"]
    run = search_by_commands([*SHORT.replace("--levels 1", "").split(), *flags], tmp_path)
    rows = evaluate_and_report_by_commands(run)
    assert rows.search.str.contains("MaskTraining").any()


@pytest.mark.parametrize("name", ["SigmoidMask", "BernoulliMask", "TopKMask", HARD_CONCRETE])
def test_every_gate_is_trained_from_python(name: str, tmp_path: Path) -> None:
    search = MaskTraining(gate=GATES.get(name)(), initial_score=0.1, score_lr=0.5, rewind="2it")
    tickets = find_tickets(recipe(search=search), out=tmp_path / "runs", progress=False)
    assert 0 < tickets[-1].mask.density < 1
    if name == HARD_CONCRETE:
        assert not evaluate_tickets(tickets[-1], protocol="own", progress=False).empty
        write_report(tmp_path / "runs", tmp_path / "report.html")
