"""Whole searches on the pretend accelerator."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from sslticket.config.recipe import Recipe
from sslticket.config.runtime import RuntimeConfig
from sslticket.search.plan import plan_search
from sslticket.search.run_search import run_search
from sslticket.ticket import Ticket
from sslticket.training.loop import TrainingLoop
from tests.device import cases
from tests.device.conftest import Device
from tests.training.test_snapshots import stopped_every


def found(which: Recipe, out: Path, machine: RuntimeConfig = cases.MACHINE) -> list[Ticket]:
    """The tickets of a search that is run to its end, on whatever there is."""
    planned = plan_search(which, machine, out)
    run_search(planned, machine)
    return [Ticket.load(planned.run_dir.ticket_path(level)) for level in range(planned.levels + 1)]


def assert_equal(some: list[Ticket], others: list[Ticket]) -> None:
    """To the bit: masks, weights and heads."""
    assert len(some) == len(others)
    for one, other in zip(some, others, strict=True):
        assert one.mask.equals(other.mask)
        for mine, theirs in ((one.weights, other.weights), (one.head, other.head)):
            assert mine.keys() == theirs.keys()
            assert all(torch.equal(value, theirs[name]) for name, value in mine.items())


def assert_finite(tickets: list[Ticket]) -> None:
    assert len(tickets) > 1
    assert all(bool(value.float().isfinite().all()) for ticket in tickets for value in ticket.weights.values())


@pytest.mark.parametrize("objective", cases.OBJECTIVES)
def test_every_objective_finds_the_tickets_of_the_cpu(tmp_path: Path, device: Device, objective: str) -> None:
    which = cases.recipe(objective, batch_size=cases.MEASURED)
    # The CPU's fused attention sums in another order than the plain products that the device has.
    with sdpa_kernel(SDPBackend.MATH):
        expected = found(which, tmp_path / "cpu")
        with device():
            assert_equal(found(which, tmp_path / "there"), expected)


@pytest.mark.parametrize("search", cases.SEARCHES)
def test_every_search_and_criterion_finds_the_tickets_of_the_cpu(tmp_path: Path, device: Device, search: str) -> None:
    which = cases.recipe(search=cases.SEARCHES[search])
    expected = found(which, tmp_path / "cpu")
    with device():
        assert_equal(found(which, tmp_path / "there"), expected)


@pytest.mark.parametrize("optimizer", ["Adam", "AdamW", "RMSprop", "LARS"])
def test_every_optimiser_finds_the_tickets_of_the_cpu(tmp_path: Path, device: Device, optimizer: str) -> None:
    which = cases.recipe(optimizer=optimizer)
    expected = found(which, tmp_path / "cpu")
    with device():
        assert_equal(found(which, tmp_path / "there"), expected)


@pytest.mark.parametrize("objective", cases.OBJECTIVES)
def test_every_objective_runs_in_bfloat16(tmp_path: Path, device: Device, objective: str) -> None:
    with device():
        assert_finite(found(cases.recipe(objective, search=cases.imp(levels=1), precision="bf16"), tmp_path))


@pytest.mark.parametrize("search", ["CS", "ISS", "edge-popup", "one shot by SNIP", "one shot by GraSP"])
def test_searches_with_parameters_or_scores_of_their_own_run_in_bfloat16(
    tmp_path: Path, device: Device, search: str
) -> None:
    with device():
        assert_finite(found(cases.recipe(search=cases.SEARCHES[search], precision="bf16"), tmp_path))


@pytest.mark.parametrize(
    ("objective", "search", "optimizer"),
    [
        ("supervised", "IMP", "SGD"),
        ("supervised", "IMP", "Adam"),
        ("supervised", "IMP", "RMSprop"),
        ("simclr", "IMP", "LARS"),
        ("vicreg", "IMP", "SGD"),
        ("supervised", "CS", "SGD"),
        ("supervised", "RigL", "Adam"),
        ("supervised", "IMP by SNIP", "Adam"),
    ],
)
def test_float16_gets_over_a_first_step_that_overflows(
    tmp_path: Path, device: Device, overflowing: list[float], objective: str, search: str, optimizer: str
) -> None:
    how = cases.SEARCHES.get(search, cases.imp())
    with device():
        assert_finite(found(cases.recipe(objective, search=how, optimizer=optimizer, precision="fp16"), tmp_path))
    assert overflowing, "no step has overflowed"


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_channels_last_finds_the_tickets_of_the_cpu(tmp_path: Path, device: Device, optimizer: str) -> None:
    which, machine = cases.recipe(optimizer=optimizer), replace(cases.MACHINE, channels_last=True)
    expected = found(which, tmp_path / "cpu", machine)
    with device():
        assert_equal(found(which, tmp_path / "there", machine), expected)


@pytest.mark.parametrize(
    "search",
    [
        "CS",
        "ISS",
        "edge-popup",
        "RigL",
        "one shot by SNIP",
    ],
)
def test_learnt_masks_and_scores_have_the_layout_of_their_weights(tmp_path: Path, device: Device, search: str) -> None:
    which, machine = cases.recipe(search=cases.SEARCHES[search]), replace(cases.MACHINE, channels_last=True)
    expected = found(which, tmp_path / "cpu", machine)
    with device():
        assert_equal(found(which, tmp_path / "there", machine), expected)


def test_accumulated_and_clipped_gradients_find_the_tickets_of_the_cpu(tmp_path: Path, device: Device) -> None:
    which, machine = cases.recipe(model="lenet300", clip=0.1), replace(cases.MACHINE, accumulate=2)
    expected = found(which, tmp_path / "cpu", machine)
    with device():
        assert_equal(found(which, tmp_path / "there", machine), expected)


@pytest.mark.parametrize(
    ("search", "optimizer", "precision", "calls"),
    [
        pytest.param("IMP", "SGD", "fp32", 1, id="IMP at W_k"),
        pytest.param("IMP", "SGD", "fp32", 2, id="IMP inside a level"),
        pytest.param("CS", "Adam", "fp32", 2, id="CS inside a level"),
        pytest.param("IMP", "Adam", "fp16", 1, id="float16 at W_k"),
        pytest.param("IMP", "Adam", "fp16", 2, id="float16 inside a level"),
    ],
)
def test_a_killed_search_goes_on_to_the_same_tickets(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    device: Device,
    overflowing: list[float],
    search: str,
    optimizer: str,
    precision: str,
    calls: int,
) -> None:
    how = cases.SEARCHES.get(search, cases.imp())
    which = cases.recipe(search=how, optimizer=optimizer, precision=precision)  # type: ignore[arg-type]
    with device():
        expected = found(which, tmp_path / "whole")
        whole, seen = TrainingLoop.run, list[int]()

        def killed(self: TrainingLoop, start: int, stop: int) -> None:
            if len(seen) == calls:
                whole(self, start, start + (calls - 1) * 2)
                raise KeyboardInterrupt
            seen.append(start)
            whole(self, start, stop)

        monkeypatch.setattr(TrainingLoop, "run", killed)
        with pytest.raises(KeyboardInterrupt):
            found(which, tmp_path / "killed")
        monkeypatch.setattr(TrainingLoop, "run", whole)
        assert_equal(found(which, tmp_path / "killed"), expected)


@pytest.mark.parametrize(("optimizer", "precision"), [("Adam", "fp16"), ("SGD", "bf16")])
def test_a_search_that_is_stopped_inside_its_levels_goes_on_with_its_scale_to_the_same_tickets(
    tmp_path: Path, device: Device, overflowing: list[float], optimizer: str, precision: str
) -> None:
    which = cases.recipe(optimizer=optimizer, precision=precision)  # type: ignore[arg-type]
    with device():
        expected = found(which, tmp_path / "whole")
        assert stopped_every(3, lambda: found(which, tmp_path / "stopped")) >= 2
        assert_equal(found(which, tmp_path / "stopped"), expected)


def test_a_probe_sees_what_it_sees_on_the_cpu(tmp_path: Path, device: Device) -> None:
    which, machine = cases.recipe("rotnet", search=cases.imp(levels=1)), replace(cases.MACHINE, probe="3it")

    def seen(out: Path) -> list[dict[str, float]]:
        planned = plan_search(which, machine, out)
        run_search(planned, machine)
        rows = (json.loads(planned.run_dir.row_path(level).read_text(encoding="utf-8")) for level in (0, 1))
        return [row["probe"] for row in rows]

    expected = seen(tmp_path / "cpu")
    assert expected[1].keys() == {"3", "5"}
    with device():
        assert seen(tmp_path / "there") == expected
