"""Tickets that go on from trained weights: learning-rate rewinding, and fine-tuning."""

from pathlib import Path
from typing import Literal

import pytest
import torch

from sslticket.config.recipe import Recipe
from sslticket.config.training import LARS, SGD, TrainConfig
from sslticket.data.loader import Sampler
from sslticket.data.source import make_loader, open_split
from sslticket.errors import BadInput
from sslticket.objectives.supervised import Supervised
from sslticket.pruning import pruned_model
from sslticket.pruning.criteria import Magnitude
from sslticket.pruning.mask import StateDict
from sslticket.search.imp import IMP
from sslticket.search.plan import SearchPlan
from sslticket.seeds import derive_seed
from sslticket.ticket import Ticket
from sslticket.training import checkpoint
from sslticket.training.network import MaskedNetwork
from tests.runs import BATCH, REWIND, STEPS, recipe, search, tickets

Retrain = Literal["rate", "finetune"]
RATES = {"rate": [0.1, 0.1, 0.01, 0.01], "finetune": [0.01] * 4}  # from step 2 of 6, with a drop after step 4


def going_on(retrain: Retrain) -> Recipe:
    return recipe(search=IMP(levels=2, rate=0.5, rewind=f"{REWIND}it", retrain=retrain))


class Killed(Exception):
    """In place of a signal."""


@pytest.fixture(scope="module", params=["rate", "finetune"])
def retrain(request: pytest.FixtureRequest) -> Retrain:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def killed(retrain: Retrain, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, StateDict]:
    """The folder of a search that was killed at the end of level 1, and the net that it had carried there."""
    whole, calls = Magnitude.scores, 0
    out = tmp_path_factory.mktemp("killed")

    def scores(self: Magnitude, *given: object) -> dict[str, torch.Tensor]:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise Killed
        return whole(self, *given)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Magnitude, "scores", scores)
        with pytest.raises(Killed):
            search(out, going_on(retrain))
    (carried,) = out.glob("*/carried-*.safetensors")
    assert carried.name == "carried-01.safetensors"
    return out, checkpoint.load_network(carried)


@pytest.fixture(scope="module")
def found(retrain: Retrain, killed: tuple[Path, StateDict]) -> SearchPlan:
    """The same search, taken up again."""
    return search(killed[0], going_on(retrain))


def test_a_killed_search_goes_on_to_the_same_tickets(tmp_path: Path, retrain: Retrain, found: SearchPlan) -> None:
    whole = search(tmp_path, going_on(retrain)).run_dir
    for level in range(3):
        assert whole.ticket_path(level).read_bytes() == found.run_dir.ticket_path(level).read_bytes()
    assert not list(found.run_dir.path.glob("carried-*")), "what no ticket needs any more takes no room"


def test_weights_stay_where_the_level_before_left_them(killed: tuple[Path, StateDict], found: SearchPlan) -> None:
    dense, first, second = tickets(found)
    end = {name.removeprefix("backbone."): value for name, value in killed[1].items() if name.startswith("backbone.")}
    for name, value in first.weights.items():
        mask = first.mask.layers.get(name)
        assert torch.equal(value, end[name] if mask is None else end[name] * mask)
    plain = tickets(search(killed[0], recipe(search=IMP(levels=1, rate=0.5, rewind=f"{REWIND}it"))))
    assert first.mask.equals(plain[1].mask), "the dense training is the same"
    assert list(first.weights) == list(plain[1].weights), "or random tickets of the two would differ"
    assert all(torch.equal(dense.weights[name], value) for name, value in plain[0].weights.items())
    assert [ticket.provenance["weights"] for ticket in (dense, first, second)] == ["early", "trained", "trained"]
    assert {ticket.provenance["rewind_samples"] for ticket in (dense, first, second)} == {REWIND * BATCH}


def test_a_level_is_a_plain_training_at_these_rates(
    retrain: Retrain, killed: tuple[Path, StateDict], found: SearchPlan
) -> None:
    """Level 1 by hand: plain torch from the net that was carried, with a fresh optimiser, at rates told here."""
    _, first, second = tickets(found)
    which, source = going_on(retrain), open_split("digits", "train")
    net = MaskedNetwork.build("conv3", Supervised(), channels=1, image_size=8, classes=10, seed=0)
    pruned_model.write_state(net, killed[1])
    pruned_model.set_mask(net.backbone, first.mask)
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0, momentum=0.9, weight_decay=1e-4)
    batches = make_loader(
        source,
        (source.dataset.train_view,),
        Sampler(len(source.manifest), BATCH, derive_seed(which.seeds.order, 1)),
        augment_seed=derive_seed(which.seeds.augment, 1),
        device=torch.device("cpu"),
        threads=1,
        max_bad_images=0,
    )
    net.train()
    for rate, batch in zip(RATES[retrain], batches.train(REWIND, STEPS), strict=True):
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net.heads(net.backbone(batch.views[0])), batch.labels).backward()
        pruned_model.mask_gradients(pruned_model.fixed_masks(net).values())
        optimizer.step()
    trained = pruned_model.read_state(net.backbone)
    for name, value in second.weights.items():
        mask = second.mask.layers.get(name)
        expected = trained[name] if mask is None else trained[name] * mask
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-6)


def test_a_carried_net_that_is_gone_is_missed_by_name(tmp_path: Path) -> None:
    planned = search(tmp_path, going_on("rate"))
    planned.run_dir.ticket_path(2).unlink()
    with pytest.raises(BadInput, match=r"carried-01\.safetensors, from which level 1 is trained on, is gone; delete"):
        search(tmp_path, going_on("rate"))
    planned.run_dir.ticket_path(1).unlink()
    search(tmp_path, going_on("rate"))
    assert Ticket.load(planned.run_dir.ticket_path(2)).level == 2


@pytest.mark.parametrize(
    ("fit", "last"),
    [
        (TrainConfig(length="9ep", batch_size=50, optimizer=SGD(lr=0.1), warmup="1ep", drops=("3ep", "8ep")), 0.001),
        (TrainConfig(length="9ep", batch_size=50, optimizer=SGD(lr=0.1), drops=("3ep", "9ep")), 0.01),
        (TrainConfig(length="9ep", batch_size=50, optimizer=SGD(lr=0.1), decay="linear", last_lr=0.005), 0.005),
        (TrainConfig(length="9ep", batch_size=50, optimizer=LARS(lr=0.1, bias_lr=0.02), drops=("3ep",)), 0.01),
    ],
)
def test_fine_tuning_keeps_the_rate_of_the_last_step(fit: TrainConfig, last: float) -> None:
    tuned = fit.at_last_lr(1000)
    assert {round(tuned.schedule(1000).lr_at(samples), 12) for samples in range(50, 9001, 50)} == {last}
    assert (tuned.length, tuned.batch_size) == (fit.length, fit.batch_size)
    if isinstance(tuned.optimizer, LARS):
        assert tuned.optimizer.bias_lr == pytest.approx(0.002)


def test_a_last_rate_of_nothing_tunes_nothing() -> None:
    cosine = TrainConfig(length="9ep", batch_size=50, optimizer=SGD(lr=0.1), decay="cosine")
    with pytest.raises(BadInput, match="a cosine decay ends at 0; give --last-lr above 0, or --retrain rate"):
        IMP(retrain="finetune").check(cosine, Supervised())
    IMP(retrain="rate").check(cosine, Supervised())
