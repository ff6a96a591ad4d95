"""Dynamic sparse training: what is dropped and what grows, what it leaves, and that it may be stopped anywhere."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from sslticket.config.runtime import RuntimeConfig
from sslticket.config.training import Clock, Span
from sslticket.errors import BadInput
from sslticket.objectives.base import Objective
from sslticket.objectives.byol import BYOL
from sslticket.objectives.rotnet import RotNet
from sslticket.objectives.supervised import Supervised
from sslticket.pruning import pruned_model
from sslticket.pruning.mask import Mask
from sslticket.results.rows import row_error
from sslticket.search.dynamic import SET, DynamicSparseSearch, MaskUpdates, RigL, drop_and_grow, random_mask
from sslticket.search.plan import plan_search
from sslticket.search.run_search import run_search
from sslticket.ticket import Ticket
from sslticket.training.network import MaskedNetwork
from tests.runs import BATCH, STEPS, recipe, search, tickets
from tests.search.test_killed import files, told
from tests.training.test_snapshots import stopped_every
from tests.training.test_trial import Chosen

CONV3 = {"features.0.weight": 144, "features.4.weight": 4608, "features.8.weight": 9216}
RIGL = RigL(densities=(0.3, 0.1), update_interval="2it", update_until="100%")
SEARCHES: dict[str, DynamicSparseSearch] = {
    "rigl": RIGL,
    "set": SET(densities=(0.3, 0.1), update_interval="2it"),
}
DENSE = Mask(
    {
        "first": torch.ones(16, 3, 3, 3, dtype=torch.bool),
        "second": torch.ones(32, 16, 3, 3, dtype=torch.bool),
        "last": torch.ones(64, 128, dtype=torch.bool),
    }
)
CLOCK = Clock(Span.parse("100it"), 10, 500)


def counts(mask: Mask) -> list[int]:
    return [kept for kept, _ in mask.layer_counts().values()]


def test_layers_keep_what_the_distributions_say_and_all_together_exactly_their_share() -> None:
    """432, 4,608 and 8,192 weights; by hand, e is what is left over the sum of the factors times the weights."""
    uniform = random_mask(DENSE, 0.1, "uniform", 0)
    assert uniform.survivors == 1323
    assert counts(uniform) == [43, 461, 819]
    # (16+3)/48 x 432 = 171, (32+16)/512 x 4608 = 432, (64+128)/8192 x 8192 = 192: e = 1323/795 = 1.664.
    assert counts(random_mask(DENSE, 0.1, "er", 0)) == [285, 719, 319]
    # 25, 54 and 192, e = 1323/271 = 4.882.
    assert counts(random_mask(DENSE, 0.1, "erk", 0)) == [122, 264, 937]
    # At 0.2 "er" asks for 569 of the 432 weights of the first: all of them, and 2214 / 624 = 3.548 for the others.
    assert counts(random_mask(DENSE, 0.2, "er", 0)) == [432, 1533, 681]
    one, other = (random_mask(DENSE, 0.1, "erk", seed) for seed in (0, 1))
    assert counts(one) == counts(other) == counts(random_mask(DENSE, 0.1, "erk", None))
    assert not one.equals(other)
    assert one.equals(random_mask(DENSE, 0.1, "erk", 0))
    rows = one["last"].sum(1).float()
    assert rows.std() < 2 * math.sqrt(rows.mean()), "spread over the layer"


def test_the_smallest_go_the_largest_gradients_come_and_the_earlier_wins() -> None:
    mask = Mask({"w": torch.tensor([True, True, True, True, True, False, False, False, False, False])})
    weights = {"w": torch.tensor([-0.1, 2.0, 0.1, -3.0, 0.2, 9.0, 9.0, 9.0, 9.0, 9.0])}
    growth = {"w": torch.tensor([7.0, 7.0, 0.0, 7.0, 7.0, 1.0, 0.0, 4.0, 4.0, 4.0])}
    after = drop_and_grow(mask, weights, growth, 0.4)  # two of five: 0.1 and -0.1 have the least magnitude
    assert after["w"].nonzero().flatten().tolist() == [0, 1, 3, 4, 7], "0 comes back, and 7 comes before 8 and 9"
    after = drop_and_grow(mask, weights, growth, 0.39)  # int(1.95): of the two smallest the later goes
    assert after["w"].nonzero().flatten().tolist() == [0, 1, 3, 4, 7]
    assert drop_and_grow(mask, weights, growth, 0.19).equals(mask), "int(0.95) is none"
    whole = Mask({"w": torch.ones(10, dtype=torch.bool)})
    assert drop_and_grow(whole, weights, growth, 0.5).equals(whole), "in a dense layer there is nowhere to go"


class Trace:
    """What networks and optimisers hold before and after each change of the mask."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps: list[int] = []
        self.masks: list[Mask] = []
        real = MaskUpdates.update

        def update(updates: MaskUpdates, network: MaskedNetwork, optimizer: torch.optim.Optimizer, step: int) -> None:
            before = pruned_model.current_mask(network.backbone)
            stored = pruned_model.stored_weights(network.backbone, before)
            held = {name: weight.detach().clone() for name, weight in stored.items()}
            gradients = {name: None if weight.grad is None else weight.grad.clone() for name, weight in stored.items()}
            states = {name: dict(optimizer.state.get(weight, {})) for name, weight in stored.items()}
            momenta = {
                name: {key: torch.clone(value) for key, value in state.items()} for name, state in states.items()
            }
            real(updates, network, optimizer, step)
            after = pruned_model.current_mask(network.backbone)
            self.steps.append(step)
            self.masks.append(after)
            for name, weight in stored.items():
                self._check_layer(updates, step, before[name], after[name], held[name], weight, gradients[name])
                changed = before[name] ^ after[name]
                for key, value in optimizer.state.get(weight, {}).items():
                    expected = momenta[name][key]
                    assert torch.equal(value, expected.masked_fill(changed, 0) if value.dim() else expected), key
            for copy in list(pruned_model.backbone_and_copies(network))[1:]:
                assert pruned_model.current_mask(copy).equals(after), "of momentum encoders too"

        monkeypatch.setattr(MaskUpdates, "update", update)

    @staticmethod
    def _check_layer(
        updates: MaskUpdates,
        step: int,
        before: Tensor,
        after: Tensor,
        held: Tensor,
        weight: Tensor,
        gradient: Tensor | None,
    ) -> None:
        assert after.sum() == before.sum()
        assert not weight[~after].any()
        assert not weight[after & ~before].any(), "what has grown starts at 0"
        stays = after & before
        assert torch.equal(weight[stays], held[stays])
        moved = int(int(before.sum()) * updates.fraction(step))
        smallest = held[before].abs().sort().values
        gone = held[before & ~after].abs()
        assert len(gone) <= moved
        assert not len(gone) or gone.max() <= smallest[moved - 1]
        if gradient is not None and len(gone) and updates.needs_gradients:
            left_behind = gradient[~after & ~before].abs()
            assert gradient[after & ~before].abs().min() >= left_behind.max()
            assert left_behind.max() > 0, "gradients of pruned weights are there"


@pytest.mark.parametrize("momentum", [True, False], ids=["sgd", "adam"])
@pytest.mark.parametrize("kind", SEARCHES)
@pytest.mark.parametrize(
    "objective", [Supervised(), RotNet(), BYOL(hidden=16, dim=8)], ids=["supervised", "rotnet", "byol"]
)
def test_every_change_is_that_of_the_papers_and_tickets_hold_what_it_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, objective: Objective, kind: str, momentum: bool
) -> None:
    trace, which = Trace(monkeypatch), recipe(objective, search=SEARCHES[kind], momentum=momentum)
    planned = search(tmp_path, which)
    dense, *found = tickets(planned)
    assert trace.steps == [2, 4, 2, 4]
    assert dense.mask.density == 1
    for ticket, mask, density in zip(found, trace.masks[1::2], (0.3, 0.1), strict=True):
        assert ticket.mask.equals(mask)
        assert ticket.mask.survivors == round(13_968 * density)
        assert ticket.provenance["weights"] == "trained"
        for name, layer in ticket.mask.items():
            assert not ticket.weights[name][~layer].any()
            assert not torch.equal(ticket.weights[name], dense.weights[name].where(layer, 0.0))
    first = [random_mask(dense.mask, density, which.search.distribution, 3) for density in (0.3, 0.1)]  # type: ignore[attr-defined]
    assert [counts(ticket.mask) for ticket in found] == [counts(mask) for mask in first]
    rows = [json.loads(planned.run_dir.row_path(level).read_text()) for level in range(3)]
    assert [row["steps"] for row in rows] == [0, STEPS, STEPS]
    assert [row["search_samples"] for row in rows] == [0, STEPS * BATCH, STEPS * BATCH], "no ticket owes another"
    views = {"supervised": 1, "rotnet": 4, "byol": 4}[objective.name]
    assert [row["forward_images"] for row in rows] == [0, *[views * STEPS * BATCH] * 2], "changes see no more"
    assert [row.get("trained_density") for row in rows[1:]] == [ticket.mask.density for ticket in found]
    assert all(row_error(row) is None for row in rows)


def test_a_ticket_may_hold_the_initial_weights_and_a_mask_may_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = Trace(monkeypatch)
    static = RigL(densities=(0.3,), update_until="0it", ticket_weights="initial")
    dense, ticket = tickets(search(tmp_path, recipe(search=static)))
    assert trace.steps == []
    assert (ticket.provenance["weights"], ticket.provenance["rewind_samples"]) == ("early", 0)
    for name, layer in ticket.mask.items():
        assert torch.equal(ticket.weights[name], dense.weights[name].where(layer, 0.0))


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("kind", SEARCHES)
def test_it_may_be_stopped_within_an_interval_and_at_a_change(tmp_path: Path, kind: str, steps: int) -> None:
    which = recipe(BYOL(hidden=16, dim=8), search=SEARCHES[kind])
    search(tmp_path / "whole", which)
    assert stopped_every(steps + 1, lambda: search(tmp_path / "stopped", which)) >= 2
    assert told(tmp_path / "stopped") == told(tmp_path / "whole")
    assert files(tmp_path / "stopped") == files(tmp_path / "whole")


def test_layers_that_compute_with_kept_weights_follow_the_mask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    which = recipe(search=RigL(densities=(0.3, 0.004), distribution="er", update_interval="2it", update_until="100%"))
    plain = tickets(search(tmp_path / "plain", which))
    chosen = Chosen(monkeypatch, innermost=True)
    planned = search(tmp_path / "whole", which)
    assert chosen.asked[1:] == [ticket.mask.density for ticket in plain[1:]]
    assert chosen.left_out[-1], "channels that the first mask killed, and others later"
    for one, other in zip(plain, tickets(planned), strict=True):
        assert one.mask.equals(other.mask)
        assert all((value - other.weights[name]).abs().max() < 1e-5 for name, value in one.weights.items())
    assert stopped_every(3, lambda: search(tmp_path / "stopped", which)) >= 2
    assert told(tmp_path / "stopped") == told(tmp_path / "whole")
    assert files(tmp_path / "stopped") == files(tmp_path / "whole")


def test_micro_batches_grow_what_the_whole_batch_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without batch norm the gradients of four parts are those of the batch, but for rounding."""
    which = recipe(model="lenet300", search=RIGL)

    def found(out: str, machine: RuntimeConfig) -> list[Ticket]:
        planned = plan_search(which, machine, tmp_path / out)
        run_search(planned, machine)
        return tickets(planned)

    whole, parts = found("whole", RuntimeConfig()), found("parts", RuntimeConfig(accumulate=4))
    for one, other in zip(whole, parts, strict=True):
        differ = sum(int((one.mask[name] ^ other.mask[name]).sum()) for name in one.mask)
        assert differ <= 0.0005 * one.mask.total


def test_a_change_whose_gradients_overflow_is_left_out_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real, updates = MaskUpdates.update, []

    def update(self: MaskUpdates, network: MaskedNetwork, optimizer: torch.optim.Optimizer, step: int) -> None:
        weight = next(iter(pruned_model.stored_weights(network.backbone, self.start).values()))
        if step == 2:
            cast(Tensor, weight.grad)[0] = math.inf
        before = pruned_model.current_mask(network.backbone)
        real(self, network, optimizer, step)
        updates.append((step, pruned_model.current_mask(network.backbone).equals(before)))

    monkeypatch.setattr(MaskUpdates, "update", update)
    search(tmp_path, recipe(search=RigL(densities=(0.3,), update_interval="2it", update_until="100%")))
    assert updates == [(2, True), (4, False)]
    assert (
        "level 1: 1 of 2 changes of the mask were left out, since gradients were not finite" in capsys.readouterr().err
    )


def test_fractions_fall_by_half_a_cosine_and_changes_end_where_they_should() -> None:
    rigl = RigL(update_interval="10it", update_until="80%")
    assert list(rigl.update_steps(CLOCK)) == [10, 20, 30, 40, 50, 60, 70]
    updates = MaskUpdates(rigl, DENSE, CLOCK, 0)
    assert [updates.is_due(step) for step in (0, 10, 15, 70, 80, 90)] == [False, True, False, True, False, False]
    assert [updates.fraction(step) for step in (0, 40, 80)] == pytest.approx([0.3, 0.15, 0.0])
    evolving = SET()
    assert list(evolving.update_steps(CLOCK)) == [50], "after every epoch but the last"
    assert MaskUpdates(evolving, DENSE, CLOCK, 0).fraction(50) == 0.3
    stages = RigL(densities=(0.5, 0.1)).rewound_within(CLOCK).stages(CLOCK, DENSE)
    assert stages.cumulative_steps == (0, 100, 200)
    assert stages.survivors == (13_232, 6616, 1323)
    assert RigL().rewound_within(CLOCK).update_interval == "10%"
    assert rigl.rewound_within(CLOCK) == rigl


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: RigL(densities=()),
            r"--densities must be in \(0, 1\) and fall .* got none; give some such as 0.2 0.1",
        ),
        (lambda: RigL(densities=(1.0, 0.5)), r"--densities must be in \(0, 1\) .* got 1 0.5"),
        (lambda: SET(densities=(0.1, 0.2)), "fall from one to the next, got 0.1 0.2"),
        (lambda: RigL(densities=(0.1, math.nan)), "got 0.1 nan"),
        (lambda: RigL(drop_fraction=0.0), r"--drop-fraction must be in \(0, 1\), got 0; .*--update-until 0it"),
        (lambda: SET(drop_fraction=1.0), r"--drop-fraction must be in \(0, 1\), got 1"),
        (lambda: RigL(update_interval="0it"), "--update-interval must be above 0, got 0it; give 100it, for one"),
        (lambda: RigL(update_until="late"), "--update-until must be like 90ep"),
        (lambda: RigL(update_until="200%"), "--update-until must be at most 100%, got 200%; give 75%"),
        (lambda: RigL(distribution=cast(Any, "even")), "--distribution must be uniform or er or erk, got 'even'"),
        (lambda: RigL(drop_decay=cast(Any, "none")), "--drop-decay must be cosine or constant, got 'none'"),
        (lambda: SET(ticket_weights=cast(Any, "late")), "--ticket-weights must be trained or initial, got 'late'"),
        (
            lambda: RigL(update_until="50it").stages(CLOCK, DENSE),
            "--update-until must leave room .* got 50it of 100it and --update-interval 100it; .*--update-until 0it",
        ),
        (
            lambda: RigL(densities=(0.5, 0.0008), distribution="uniform", update_interval="10it").stages(CLOCK, DENSE),
            "--densities must leave a weight in every layer, and 0.0008 leaves none of 432 in first; give more than "
            "0.0008, or another --distribution than uniform",
        ),
        (
            lambda: RigL(densities=(1e-5,), update_interval="10it").stages(CLOCK, DENSE),
            "--densities must leave a weight, and 1e-05 leaves none of 13,232; give more than 1e-05",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused_in_a_line(make: Callable[[], object], words: str) -> None:
    with pytest.raises(BadInput, match=words) as refusal:
        make()
    assert "\n" not in str(refusal.value)


def test_the_plan_knows_its_trainings(tmp_path: Path) -> None:
    planned = plan_search(recipe(search=RIGL), RuntimeConfig(), tmp_path)
    assert planned.total_steps == 2 * STEPS
    assert [stage.density for stage in planned.training_stages[1:]] == pytest.approx([0.3, 0.1], abs=1e-4)
    assert f"{STEPS} sparse, then {STEPS} a level; {2 * STEPS} in all" in planned.describe()
    assert "1,397 remain at level 2" in planned.describe()
