import dataclasses
import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from sslticket.config.training import Clock, Span
from sslticket.data.source import open_split
from sslticket.errors import BadInput
from sslticket.objectives.rotnet import RotNet
from sslticket.objectives.supervised import Supervised
from sslticket.pruning import pruned_model
from sslticket.pruning.criteria import Criterion, ScoringInput
from sslticket.pruning.mask import Mask
from sslticket.results.rows import row_error
from sslticket.search.imp import IMP
from sslticket.training import checkpoint
from sslticket.training.network import MaskedNetwork
from tests.runs import BATCH, REWIND, STEPS, recipe, search, tickets

TOTAL = 13_968  # prunable weights of conv3 on one channel: 3x3x(16 + 16x32 + 32x32)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return search(tmp_path_factory.mktemp("runs")).run_dir.path


def test_every_level_keeps_exactly_its_share_of_the_total_and_masks_nest(tmp_path: Path) -> None:
    found = tickets(search(tmp_path))
    assert [ticket.mask.survivors for ticket in found] == [round(TOTAL * 0.5**level) for level in range(4)]
    assert found[0].mask.density == 1
    for denser, sparser in itertools.pairwise(found):
        assert sparser.mask.is_subset_of(denser.mask)


def test_every_ticket_holds_the_same_early_weights_times_its_mask(run: Path) -> None:
    from sslticket.ticket import Ticket

    found = [Ticket.load(path) for path in sorted((run / "tickets").iterdir())]
    early = found[0].weights
    for ticket in found:
        for name, value in ticket.weights.items():
            mask = ticket.mask.layers.get(name)
            assert torch.equal(value, early[name] if mask is None else early[name] * mask)
    assert found[0].provenance["rewind_samples"] == REWIND * BATCH
    assert found[3].provenance["search_samples"] == (REWIND + 3 * (STEPS - REWIND)) * BATCH


def test_early_weights_are_those_of_a_plain_training_stopped_at_k(run: Path) -> None:
    """W_k by hand: plain torch, no gates, no accelerate, on the batches that the order names."""
    which = recipe()
    source = open_split("digits", "train")
    net = MaskedNetwork.build("conv3", Supervised(), channels=1, image_size=8, classes=10, seed=which.seeds.init)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    from sslticket.data.loader import Sampler
    from sslticket.data.source import make_loader
    from sslticket.seeds import derive_seed

    batches = make_loader(
        source,
        (source.dataset.train_view,),
        Sampler(len(source.manifest), BATCH, derive_seed(which.seeds.order, 0)),
        augment_seed=derive_seed(which.seeds.augment, 0),
        device=torch.device("cpu"),
        threads=1,
        max_bad_images=0,
    )
    net.train()
    for batch in batches.train(0, REWIND):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net.heads(net.backbone(batch.views[0])), batch.labels).backward()
        optimizer.step()
    expected, early = pruned_model.read_state(net), checkpoint.load_network(run / "early.safetensors")
    assert expected.keys() == early.keys()
    for name, value in expected.items():
        torch.testing.assert_close(early[name], value, rtol=1e-5, atol=1e-6)


def test_running_the_command_again_changes_no_byte(run: Path) -> None:
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in run.rglob("*") if path.is_file()}
    search(run.parent)
    after = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in run.rglob("*") if path.is_file()}
    assert after == before


@pytest.mark.parametrize("lost", [1, 2, 3])
@pytest.mark.parametrize("objective", [Supervised(), RotNet()], ids=["supervised", "rotnet"])
def test_a_search_cut_off_between_levels_ends_with_the_same_bytes(
    tmp_path: Path, objective: Supervised | RotNet, lost: int
) -> None:
    which = recipe(objective, momentum=lost != 2)
    whole = search(tmp_path / "whole", which).run_dir
    cut = search(tmp_path / "cut", which).run_dir
    for level in range(lost, 4):
        cut.ticket_path(level).unlink()
    search(tmp_path / "cut", which)
    for level in range(4):
        assert cut.ticket_path(level).read_bytes() == whole.ticket_path(level).read_bytes(), f"level {level}"


def test_what_is_half_written_is_never_taken_for_whole(tmp_path: Path) -> None:
    folder = search(tmp_path).run_dir
    whole = folder.ticket_path(2).read_bytes()
    folder.ticket_path(2).unlink()
    folder.ticket_path(3).unlink()
    (folder.path / "tickets" / ".level-02.safetensors.123.part").write_bytes(whole[:100])
    search(tmp_path)
    assert folder.ticket_path(2).read_bytes() == whole
    folder.ticket_path(1).write_bytes(folder.ticket_path(1).read_bytes()[:-1])
    with pytest.raises(BadInput, match="copy it anew"):
        search(tmp_path)


def test_seed_and_objective_change_what_they_should(tmp_path: Path) -> None:
    base, rotnet, other = (tickets(search(tmp_path, which)) for which in (recipe(), recipe(RotNet()), recipe(seed=1)))
    assert not base[3].mask.equals(rotnet[3].mask)
    assert not base[3].mask.equals(other[3].mask)
    nets = [
        MaskedNetwork.build("conv3", objective, channels=1, image_size=8, classes=10, seed=5)
        for objective in (Supervised(), RotNet())
    ]
    first, second = (pruned_model.read_state(net.backbone) for net in nets)
    assert all(torch.equal(first[name], second[name]) for name in first), "the same W_0 whatever the objective"


def test_the_rows_say_what_each_ticket_cost(run: Path) -> None:
    rows = [json.loads(path.read_text()) for path in sorted((run / "rows").glob("search.level-*"))]
    assert [row["steps"] for row in rows] == [REWIND] + [STEPS - REWIND] * 3
    assert [row["search_samples"] for row in rows] == [64, 192, 320, 448]
    assert [row["density"] for row in rows] == pytest.approx([1, 0.5, 0.25, 0.125], abs=1e-4)
    assert [row["bad_images"] for row in rows] == [0] * 4
    assert sum(kept for kept, _ in rows[2]["layers"].values()) == round(TOTAL / 4)
    assert {(row["search"], row["settings"]["rate"], row["rewind_samples"]) for row in rows} == {("IMP", 0.5, 64)}


def test_own_metrics_are_measured_unless_that_takes_longer_than_a_trial(tmp_path: Path) -> None:
    evaluation = len(open_split("digits", "eval").manifest)
    for steps, measured in ((evaluation // BATCH, False), (evaluation // BATCH + 1, True)):
        fit = dataclasses.replace(recipe().training, length=f"{steps}it")
        folder = search(tmp_path, recipe(RotNet(), training=fit, search=IMP(levels=1, rate=0.5, rewind="1it"))).run_dir
        metrics = json.loads(folder.row_path(1).read_text())["metrics"]
        assert ("rotation accuracy" in metrics) == measured
        assert all(0 <= metrics[name] <= 1 for name in metrics if name != "loss")


def test_rewinding_to_the_start_resets_to_the_initialisation(tmp_path: Path) -> None:
    planned = search(tmp_path, recipe(search=IMP(levels=1, rate=0.5, rewind="0it")))
    start = MaskedNetwork.build("conv3", Supervised(), channels=1, image_size=8, classes=10, seed=recipe().seeds.init)
    initial = pruned_model.read_state(start.backbone)
    dense, sparse = tickets(planned)
    assert all(torch.equal(dense.weights[name], value) for name, value in initial.items())
    name = "features.4.weight"
    assert torch.equal(sparse.weights[name], initial[name] * sparse.mask[name])
    row = json.loads(planned.run_dir.row_path(0).read_text(), parse_constant=pytest.fail)
    assert (row["loss"], row["steps"], row_error(row)) == (None, 0, None)


def test_per_layer_pruning_gives_every_layer_the_same_density(tmp_path: Path) -> None:
    which = recipe(search=IMP(levels=2, rate=0.5, rewind="1it", scope="layer"))
    mask = tickets(search(tmp_path, which))[2].mask
    assert all(kept == round(total / 4) for kept, total in mask.layer_counts().values())


def ones(*sizes: int) -> Mask:
    return Mask({f"layer{number}": torch.ones(size, dtype=torch.bool) for number, size in enumerate(sizes)})


def test_a_rewind_point_beyond_the_end_and_too_many_levels_are_refused() -> None:
    clock = Clock(Span.parse("40it"), 16, 1000)
    with pytest.raises(BadInput, match=r"must lie before the end of a training .* got 3840000samples"):
        IMP(rewind="3840000samples").stages(clock, ones(1000))
    with pytest.raises(BadInput, match="give --levels 14 or less"):
        IMP(rate=0.5, levels=30, rewind="1it").stages(clock, ones(TOTAL))
    assert IMP(rewind="3840000samples").rewound_within(clock).stages(clock, ones(TOTAL)).rewind == 4
    assert IMP(rewind="39it").rewound_within(clock) == IMP(rewind="39it")


def test_one_seed_can_be_varied_alone() -> None:
    seeds = recipe().seeds
    assert len(set(dataclasses.astuple(seeds))) == 5
    assert dataclasses.replace(seeds, order=7).init == seeds.init


@dataclasses.dataclass(frozen=True)
class Smallest(Criterion):
    """Keeps the smallest weights: a criterion as somebody would write it in a recipe."""

    def scores(self, subject: ScoringInput, names: Sequence[str]) -> dict[str, torch.Tensor]:
        return {name: -pruned_model.stored_state(subject.backbone)[name].abs() for name in names}


def test_another_criterion_finds_other_tickets_in_a_folder_of_its_own(tmp_path: Path) -> None:
    usual = search(tmp_path, recipe(search=IMP(levels=1, rate=0.5, rewind="1it")))
    other = search(tmp_path, recipe(search=IMP(levels=1, rate=0.5, rewind="1it", criterion=Smallest())))
    kept, left = tickets(usual)[1].mask, tickets(other)[1].mask
    assert not any((kept[name] & left[name]).any() for name in kept), "largest half and smallest half"
    assert usual.run_dir.path != other.run_dir.path
