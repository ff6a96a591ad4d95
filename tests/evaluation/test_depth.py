"""Tickets of which only some layers might be pruned: found, kept, applied, and scored beside controls of their own."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sslticket import models
from sslticket.cli.inspect_commands import describe_ticket
from sslticket.config.runtime import RuntimeConfig
from sslticket.config.training import SGD, TrainConfig
from sslticket.errors import BadInput
from sslticket.evaluation import tasks
from sslticket.evaluation.controls import NaturalMask, get_control, make_control
from sslticket.evaluation.jobs import EvaluationPlan, evaluate_tasks
from sslticket.evaluation.protocols import Protocol
from sslticket.pruning import pruned_model
from sslticket.pruning.mask import Mask
from sslticket.pruning.prunable import prunable_weights
from sslticket.results.rows import row_error
from sslticket.search.imp import IMP
from sslticket.search.plan import SearchPlan, plan_search
from sslticket.ticket import Ticket
from sslticket.training.engine import Engine
from sslticket.training.numerics import Numerics
from tests.runs import recipe, search, tickets

SHORT = Protocol(
    name="short", dataset="digits", training=TrainConfig(length="4it", batch_size=32, optimizer=SGD(lr=0.1))
)
LIMITED = IMP(levels=2, rate=0.5, rewind="2it", prune_up_to="conv2")
FIRST, DENSE = ["features.0.weight", "features.4.weight"], "features.8.weight"
TOTAL = 144 + 4608  # 3 x 3 x 16, and 16 x 32 more of them


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> SearchPlan:
    return search(tmp_path_factory.mktemp("runs"), recipe(search=LIMITED))


def network(seed: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return pruned_model.read_state(models.create_model("conv3", channels=1, image_size=8))


def test_only_the_first_layers_are_pruned_and_all_are_trained(tmp_path: Path, found: SearchPlan) -> None:
    dense, first, second = tickets(found)
    assert [list(ticket.mask) for ticket in (dense, first, second)] == [FIRST] * 3
    assert [ticket.mask.survivors for ticket in (dense, first, second)] == [TOTAL, TOTAL // 2, TOTAL // 4]
    assert second.mask.density == 0.25
    assert found.num_prunable == TOTAL
    assert f"{TOTAL:,} of 13,968 may be pruned, up to conv2; 1,188 remain" in found.describe()
    for ticket in (first, second):
        assert torch.equal(ticket.weights[DENSE], dense.weights[DENSE])
        assert all(torch.equal(ticket.weights[name], dense.weights[name] * ticket.mask[name]) for name in FIRST)
    # Trained weights are in the tickets of a search that goes on from these.
    went_on = tickets(search(tmp_path, recipe(search=replace(LIMITED, retrain="rate"))))
    endpoints = [ticket.weights[DENSE] for ticket in went_on]
    assert all((one != other).all() for one, other in ((endpoints[0], endpoints[1]), (endpoints[1], endpoints[2])))
    rows = [json.loads(found.run_dir.row_path(level).read_text()) for level in range(3)]
    assert [(row["within"], list(row["layers"])) for row in rows] == [("up to conv2", FIRST)] * 3
    assert [row_error(row) for row in rows] == [None] * 3


def test_exclusions_find_the_tickets_that_a_depth_limit_finds(tmp_path: Path, found: SearchPlan) -> None:
    excluding = search(tmp_path, recipe(search=replace(LIMITED, prune_up_to=None, exclude=("features.8",))))
    for one, other in zip(tickets(found), tickets(excluding), strict=True):
        assert one.mask.equals(other.mask)


def test_a_limit_that_names_no_layer_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="--prune-up-to must name a layer, got conv4; give conv1 to conv3"):
        plan_search(recipe(search=replace(LIMITED, prune_up_to="conv4")), RuntimeConfig(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_ticket_is_read_back_shown_and_applied(tmp_path: Path, found: SearchPlan) -> None:
    _, _, ticket = tickets(found)
    path = tmp_path / "ticket.safetensors"
    ticket.save(path)
    back = Ticket.load(path)
    assert back.hash == ticket.hash
    assert back.mask.equals(ticket.mask)
    text = describe_ticket(back, "there", 1)
    assert "1,188 of 4,752 prunable weights; pruned up to conv2" in text
    (line,) = (line for line in text.splitlines() if line.startswith(DENSE))
    assert line.split()[1:] == ["9,216", "9,216", "not", "pruned"]
    model = back.apply(models.create_model("conv3", channels=1, image_size=8))
    torch.nn.functional.mse_loss(model(torch.ones(2, 1, 8, 8)), torch.ones(2, 32)).backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    trained = pruned_model.read_state(model)
    assert (trained[DENSE] != 0).all()
    for name in FIRST:
        assert (trained[name][~back.mask[name]] == 0).all()


def test_a_ticket_opens_what_the_one_before_it_had_closed(found: SearchPlan) -> None:
    weights = network(3)
    names = prunable_weights(models.create_model("conv3", channels=1, image_size=8))
    ones = Mask.ones_like(weights, names)
    sparse = Mask.top({name: torch.rand_like(weights[name]) for name in names}, keep=500, within=ones)
    model = Ticket.from_dense_weights(sparse, weights, level=1, recipe={}, provenance={}).apply(
        models.create_model("conv3", channels=1)
    )
    _, _, ticket = tickets(found)
    assert all(
        torch.equal(value, ticket.weights[name]) for name, value in pruned_model.read_state(ticket.apply(model)).items()
    )


@pytest.mark.parametrize("kind", ["random", "local", "preserved", "adjusted"])
def test_controls_prune_where_the_search_might(found: SearchPlan, kind: str) -> None:
    _, _, ticket = tickets(found)
    initial = network(5)
    natural = Mask({name: initial[name] > 0 for name in FIRST})
    random = make_control(ticket, get_control(kind), initial=initial, seed=7, natural=natural)
    assert list(random.mask) == FIRST
    assert random.mask.survivors == ticket.mask.survivors
    assert torch.equal(random.weights[DENSE], initial[DENSE])


def test_tickets_are_scored_beside_all_their_controls(found: SearchPlan) -> None:
    paths = tasks.find_ticket_files([found.run_dir.path], tasks.Levels((2,)))
    rows = tasks.make_tasks(paths, ["random", "local", "preserved", "adjusted"], [SHORT], [0])
    measured = list(evaluate_tasks(rows, Engine.create(RuntimeConfig(), "fp32")))
    assert [row_error(row) for row in measured] == [None] * 5
    assert {row["within"] for row in measured} == {"up to conv2"}
    assert {row["density"] for row in measured} == {0.25}
    (adjusted,) = (row for row in measured if row["control"] == "adjusted")
    (file,) = (found.run_dir.path / "natural").glob("*.safetensors")
    natural = NaturalMask.load(file).mask
    assert list(natural) == [*FIRST, DENSE], "of the whole network, for tickets of any depth"
    assert adjusted["natural_density"] == natural.restrict(FIRST).density
    assert adjusted["control_density"] == 0.25


def test_random_tickets_of_other_layers_are_other_trainings(found: SearchPlan, tmp_path: Path) -> None:
    """The trap: 100 weights of the one layer and 100 of another are no one random ticket."""
    whole = tickets(found)[0]
    for run, names in (("a", FIRST[:1]), ("b", FIRST[1:]), ("c", FIRST[1:])):
        ones = Mask.ones_like(whole.weights, names)
        scores = {name: torch.rand(whole.weights[name].shape) for name in names}
        mask = Mask.top(scores, keep=100, within=ones)
        ticket = Ticket.from_dense_weights(
            mask, whole.weights, level=1, recipe=whole.recipe, provenance=whole.provenance
        )
        ticket.save(tmp_path / run / "tickets" / "level-01.safetensors")
    rows = tasks.make_tasks(tasks.find_ticket_files([tmp_path]), ["random", "adjusted"], [SHORT], [0])
    counts = Counter(
        getattr(each, "control", "natural")
        for each in EvaluationPlan.build(rows, None, Numerics(precision="fp32")).jobs()
    )
    assert counts == {"ticket": 3, "random": 2, "adjusted": 2, "natural": 1}
