"""Ghost batches: what batch norm sees, and so what is learnt, is the same however a batch is shared and cut."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm.layers
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sslticket.config.recipe import Recipe
from sslticket.config.runtime import RuntimeConfig
from sslticket.config.training import SGD, TrainConfig
from sslticket.data.loader import Batch
from sslticket.errors import BadInput
from sslticket.objectives import distributed
from sslticket.objectives.base import Objective
from sslticket.objectives.exemplar import Exemplar
from sslticket.objectives.mocov2 import MoCoV2
from sslticket.objectives.simclr import SimCLR
from sslticket.objectives.simsiam import SimSiam
from sslticket.objectives.supervised import Supervised
from sslticket.pruning import pruned_model
from sslticket.search.imp import IMP
from sslticket.search.plan import plan_search
from sslticket.search.run_search import run_search
from sslticket.ticket import Ticket
from sslticket.training.engine import Engine
from sslticket.training.network import MaskedNetwork, RunningStatistics, sync_buffers
from sslticket.training.progress import Progress
from tests import runs
from tests.gloo import run_in_processes

BATCH, STEPS, PROCESSES = 32, 5, 2
FIT = TrainConfig(length=f"{STEPS}it", batch_size=BATCH, optimizer=SGD(lr=0.05))
GHOSTS = replace(FIT, ghost_batch=8)


class Holds(nn.Module):
    """As a net holds its backbone."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.backbone, self.heads = nn.Sequential(layer), nn.Identity()

    def forward(self, values: Tensor) -> Tensor:
        found: Tensor = self.backbone(values)
        return found


LAYERS: dict[str, tuple[Callable[[], _BatchNorm], tuple[int, ...]]] = {
    "2d": (lambda: nn.BatchNorm2d(5), (4, 3)),
    "1d": (lambda: nn.BatchNorm1d(5), ()),
    "1d of sequences": (lambda: nn.BatchNorm1d(5), (7,)),
    "mean over all": (lambda: nn.BatchNorm2d(5, momentum=None), (4, 3)),
    "without weights": (lambda: nn.BatchNorm2d(5, affine=False), (4, 3)),
    "without statistics": (lambda: nn.BatchNorm2d(5, track_running_stats=False), (4, 3)),
    "timm": (lambda: timm.layers.BatchNormAct2d(5, act_layer=nn.GELU), (4, 3)),
}


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize("last", [False, True])
def test_each_group_is_normalised_as_torch_normalises_it_alone(kind: str, views: int, last: bool) -> None:
    """Of 12 images in 3 groups; every view of an image is in its group, and running statistics move once."""
    make, size = LAYERS[kind]
    torch.manual_seed(0)
    layer = make()
    if layer.affine:
        nn.init.normal_(layer.weight), nn.init.normal_(layer.bias)
    ours, theirs = Holds(copy.deepcopy(layer)), [copy.deepcopy(layer) for _ in range(3)]
    distributed.set_batchnorm_scheme(ours, batch_size=12, ghost_batch=4, processes=1, whole=True)
    for _ in range(2):
        values = 3 + 2 * torch.randn(views * 12, 5, *size)
        if last and values.dim() == 4:
            values = values.contiguous(memory_format=torch.channels_last)
        mine, other = values.clone().requires_grad_(), values.clone().requires_grad_()
        found, expected = ours(mine), torch.empty_like(values)
        for number, alone in enumerate(theirs):
            rows = [view * 12 + number * 4 + image for view in range(views) for image in range(4)]
            expected[rows] = alone(other[rows])
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        assert found.is_contiguous(memory_format=torch.channels_last) == (values.dim() == 4 and last)
        away = torch.randn_like(found)
        (found * away).sum().backward(), (expected * away).sum().backward()
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-3, atol=1e-4)
    (normalised,) = distributed.batchnorm_layers(ours)
    for name in ("weight", "bias") if layer.affine else ():
        sums = sum(getattr(alone, name).grad for alone in theirs)
        torch.testing.assert_close(getattr(normalised, name).grad, sums, rtol=1e-4, atol=1e-4)
    for name, value in normalised.named_buffers():
        mean = torch.stack([dict(alone.named_buffers())[name].double() for alone in theirs]).mean(dim=0)
        torch.testing.assert_close(value.double(), mean, rtol=1e-5, atol=1e-6)


def test_a_layer_that_sees_a_row_for_each_patch_keeps_images_together() -> None:
    class Patches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(5)

        def forward(self, values: Tensor) -> Tensor:  # (B, patches, 5)
            found: Tensor = self.norm(values.flatten(0, 1)).reshape_as(values)
            return found

    net, values = Holds(Patches()), torch.randn(2 * 6, 7, 5)
    distributed.set_batchnorm_scheme(net, batch_size=6, ghost_batch=3, processes=1, whole=True)
    rows = [3, 4, 5, 9, 10, 11]
    expected = nn.BatchNorm1d(5)(values[rows].flatten(0, 1)).view(6, 7, 5)
    torch.testing.assert_close(net(values)[rows], expected, rtol=1e-4, atol=1e-5)


def test_evaluation_names_and_what_is_put_back_are_a_plain_layers() -> None:
    net, values = Holds(nn.BatchNorm2d(5)), torch.randn(8, 5, 2, 2)
    other, names = copy.deepcopy(net), list(net.state_dict())
    distributed.set_batchnorm_scheme(net, batch_size=8, ghost_batch=4, processes=1, whole=True)
    assert list(net.state_dict()) == names
    assert not torch.allclose(net(values), other(values))
    other.load_state_dict(net.state_dict())
    assert torch.equal(net.eval()(values), other.eval()(values))
    distributed.reset_batchnorm(net)
    assert type(distributed.batchnorm_layers(net)[0]) is nn.BatchNorm2d
    assert torch.equal(net.train()(values), other.train()(values))
    assert not net.backbone._forward_pre_hooks


def test_on_a_gpu_the_statistics_of_all_processes_are_left_to_torchs_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU: which way is taken on another device than the CPU."""
    net = Holds(timm.layers.BatchNormAct2d(5, act_layer=nn.GELU)).to("meta")
    distributed.set_batchnorm_scheme(net, batch_size=8, ghost_batch=None, processes=2, whole=False)
    called: list[int] = []

    def kernels(self: nn.Module, values: Tensor) -> Tensor:
        called.append(1)
        return values

    monkeypatch.setattr(distributed._SchemedBatchNorm, "_by_kernels", kernels)
    assert net(torch.empty(4, 5, 3, 3, device="meta")).shape == (4, 5, 3, 3)
    assert called
    with distributed.twice_differentiable(net):
        assert net(torch.empty(4, 5, 3, 3, device="meta")).shape == (4, 5, 3, 3)
    assert len(called) == 1


def test_a_layer_that_does_more_than_batch_norm_is_refused() -> None:
    class Odd(nn.BatchNorm2d):
        def forward(self, input: Tensor) -> Tensor:  # noqa: A002
            return 2 * super().forward(input)

    with pytest.raises(BadInput, match=r"batch norm must be torch's own .*, got a Odd; give another --model"):
        distributed.set_batchnorm_scheme(Holds(Odd(3)), batch_size=8, ghost_batch=4, processes=1, whole=True)


def test_running_statistics_move_once_a_step_by_the_mean_of_its_parts() -> None:
    net, alone = Holds(nn.BatchNorm1d(5)), [nn.BatchNorm1d(5) for _ in range(3)]
    running = RunningStatistics(net, 3)
    for _ in range(2):
        running.on_step_begin()
        for number, part in enumerate(torch.randn(12, 5).chunk(3)):
            torch.testing.assert_close(net(part), alone[number](part))
            running.on_micro_batch(number)
    for name, value in distributed.batchnorm_layers(net)[0].named_buffers():
        mean = torch.stack([dict(each.named_buffers())[name].double() for each in alone]).mean(dim=0)
        torch.testing.assert_close(value.double(), mean, rtol=1e-5, atol=1e-6)


def test_a_ghost_batch_as_large_as_the_batch_is_none_and_has_no_key() -> None:
    recipe = runs.recipe(training=FIT)
    assert replace(FIT, ghost_batch=BATCH) == replace(FIT, ghost_batch=2 * BATCH) == FIT
    assert replace(GHOSTS, batch_size=4) == replace(FIT, batch_size=4)
    assert "ghost_batch" not in recipe.to_dict()["fit"]
    assert replace(recipe, training=GHOSTS).key != recipe.key
    assert TrainConfig.from_dict(replace(recipe, training=GHOSTS).to_dict()["fit"]) == GHOSTS


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (1, "--ghost-batch must be 2 or more, got 1"),
        (12, "--batch-size must be a multiple of --ghost-batch 12, got 32"),
    ],
)
def test_ghost_batches_that_cannot_be_are_refused(size: int, text: str) -> None:
    with pytest.raises(BadInput, match=text):
        replace(FIT, ghost_batch=size)


def parts(
    machine: RuntimeConfig, fit: TrainConfig, objective: Objective | None = None, *, normalised: bool = True
) -> int:
    objective = objective or Supervised()
    whole = objective.needs_whole_batch
    return machine.accumulation_steps(
        fit.batch_size, fit.ghost_batch, objective.name, whole=whole, normalised=normalised
    )


def test_the_parts_of_a_share_follow_from_the_ghost_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [parts(RuntimeConfig(), fit) for fit in (FIT, GHOSTS)] == [1, 4]
    assert parts(RuntimeConfig(accumulate=4), GHOSTS) == 4
    assert parts(RuntimeConfig(accumulate=2), FIT, normalised=False) == 2
    assert [parts(RuntimeConfig(), GHOSTS, objective) for objective in (SimCLR(), MoCoV2(), SimSiam())] == [1, 1, 4]
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert [parts(RuntimeConfig(), fit) for fit in (FIT, GHOSTS, replace(FIT, ghost_batch=4))] == [1, 1, 2]


@pytest.mark.parametrize(
    ("accumulate", "processes", "fit", "objective", "text"),
    [
        (2, 1, FIT, Supervised(), "must be 1 where batch norm sees the whole batch, got 2; .* --ghost-batch 16"),
        (2, 1, GHOSTS, Supervised(), "must be 4 for 32 images a process in ghost batches of 8, got 2; leave it out"),
        (1, 1, GHOSTS, Supervised(), "must be 4 for 32 images a process in ghost batches of 8, got 1; leave it out"),
        (2, 1, GHOSTS, SimCLR(), "simclr compares the images of a batch, so --accumulate must be 1, got 2; leave"),
        (None, 8, GHOSTS, Supervised(), "ghost batches of 8 cannot be divided among 8 processes; start 1 or 2 or 4 "),
        (
            None,
            3,
            FIT,
            Supervised(),
            "--batch-size must be a multiple of 3, the number of processes, got 32",
        ),
    ],
)
def test_settings_of_the_machine_that_would_change_what_is_learnt_are_refused(
    monkeypatch: pytest.MonkeyPatch,
    accumulate: int | None,
    processes: int,
    fit: TrainConfig,
    objective: Objective,
    text: str,
) -> None:
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    with pytest.raises(BadInput, match=text) as told:
        parts(RuntimeConfig(accumulate=accumulate), fit, objective)
    assert "\n" not in str(told.value)


def test_accumulation_with_batch_norm_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    """Also where only the heads have it."""
    with pytest.raises(BadInput, match="--accumulate must be 1 where batch norm sees"):
        plan_search(runs.recipe(training=FIT), RuntimeConfig(accumulate=2), tmp_path)
    planned = plan_search(
        runs.recipe(SimSiam(dim=8, predictor=4), model="lenet300"), RuntimeConfig(accumulate=2), tmp_path
    )
    with pytest.raises(BadInput, match="--accumulate must be 1 where batch norm sees"):
        run_search(planned, RuntimeConfig(accumulate=2))
    assert not list(tmp_path.iterdir())


class Numbers:
    """Random "images" of a global batch, of which each process takes its share."""

    unreadable: dict[str, str] = {}  # noqa: RUF012

    def __init__(self, rank: int = 0, processes: int = 1) -> None:
        each = BATCH // processes
        self.rows = slice(rank * each, (rank + 1) * each)

    def train(self, start: int, stop: int) -> Iterator[Batch]:
        for step in range(start, stop):
            noise = torch.Generator().manual_seed(step)
            shift = torch.linspace(-2, 2, BATCH).view(-1, 1, 1, 1)  # so that parts have other statistics than the whole
            views = [shift + torch.randn(BATCH, 1, 8, 8, generator=noise) for _ in range(2)]
            label = torch.randint(10, (BATCH,), generator=noise)
            yield Batch(tuple(view[self.rows] for view in views), label[self.rows], torch.arange(BATCH)[self.rows])

    def once(self) -> Iterator[Batch]:
        return self.train(0, 1)


def dropping(net: MaskedNetwork) -> MaskedNetwork:
    """Dropout behind each activation of the backbone."""
    features = net.backbone.features
    assert isinstance(features, nn.Sequential)
    for number, layer in enumerate(features):
        if isinstance(layer, nn.ReLU):
            features[number] = nn.Sequential(layer, nn.Dropout(0.3))
    return net


LOOPS: dict[str, tuple[Objective, TrainConfig, bool]] = {
    "labels with dropout": (Supervised(), GHOSTS, True),
    "labels over all": (Supervised(), FIT, False),
    "simsiam": (SimSiam(dim=8, predictor=4), GHOSTS, False),
    "simsiam over all": (SimSiam(dim=8, predictor=4), FIT, False),
    "simclr": (SimCLR(dim=6), GHOSTS, False),
    "simclr over all": (SimCLR(dim=6), FIT, False),
    "simclr of two": (SimCLR(dim=6), replace(FIT, ghost_batch=16), False),
    "exemplar": (Exemplar(dim=6), GHOSTS, False),
    "mocov2": (MoCoV2(dim=6, queue=64, momentum=0.9), GHOSTS, False),
    "mocov2 over all": (MoCoV2(dim=6, queue=64, momentum=0.9), FIT, False),
}


def looped(name: str, rank: int = 0, processes: int = 1) -> dict[str, Tensor]:
    """Everything that a net holds after a few steps."""
    objective, fit, drops = LOOPS[name]
    net = MaskedNetwork.build("conv3", objective, channels=1, image_size=8, classes=10, seed=3)
    net = dropping(net) if drops else net
    bench = Engine.create(RuntimeConfig(), "fp32")
    with bench.prepare(net) as wrapped:
        quiet = Progress(0, show=False)
        batches = Numbers(rank, processes)
        bench.make_loop(net, wrapped, batches, fit, set_size=BATCH, seed=0, progress=quiet).run(0, STEPS)
    sync_buffers(net)
    return pruned_model.read_state(net)


SEARCHES: dict[str, Recipe] = {
    "ghosts": runs.recipe(training=GHOSTS, search=IMP(levels=1, rate=0.5, rewind="2it")),
    "over all": runs.recipe(training=FIT, search=IMP(levels=1, rate=0.5, rewind="2it")),
    "resnet": runs.recipe(model="resnet20", training=GHOSTS, search=IMP(levels=1, rate=0.2, rewind="2it")),
}


def searched(name: str, out: Path) -> None:
    planned = plan_search(SEARCHES[name], RuntimeConfig(), out)
    run_search(planned, RuntimeConfig())


def process(rank: int, folder: str) -> None:
    found = {name: looped(name, rank, PROCESSES) for name in LOOPS}
    torch.save(found, f"{folder}/{rank}.pt")
    for name in SEARCHES:
        searched(name, Path(folder, "two"))


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes have left."""
    folder = tmp_path_factory.mktemp("ghost")
    run_in_processes(process, folder, PROCESSES)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", LOOPS)
def test_two_processes_learn_what_one_learns(two: Path, name: str) -> None:
    """One in four parts or groups, two in two each; or batch norm sees all, in two processes as in one."""
    first, second = (torch.load(two / f"{rank}.pt")[name] for rank in range(PROCESSES))
    for key, value in looped(name).items():
        assert torch.equal(first[key], second[key]), key
        torch.testing.assert_close(first[key], value, rtol=1e-3, atol=1e-4, msg=f"{key} differs")


@pytest.mark.parametrize("name", ["simclr", "labels with dropout"])
def test_what_batch_norm_sees_matters(name: str) -> None:
    """Else the tests above would be none."""
    objective, fit, drops = LOOPS[name]
    LOOPS["other"] = (objective, replace(fit, ghost_batch=16), drops)
    try:
        one, other = looped(name), looped("other")
    finally:
        del LOOPS["other"]
    assert not all(torch.allclose(value, other[key], rtol=1e-2, atol=1e-2) for key, value in one.items())


@pytest.mark.slow
@pytest.mark.parametrize("name", SEARCHES)
def test_two_processes_find_the_tickets_that_one_finds(two: Path, tmp_path: Path, name: str) -> None:
    searched(name, tmp_path)
    (run_folder,) = tmp_path.iterdir()
    for file in sorted(run_folder.glob("tickets/*")):
        ours, theirs = Ticket.load(file), Ticket.load(two / "two" / run_folder.name / "tickets" / file.name)
        for key, value in ours.weights.items():
            both: Any = (ours.mask[key] & theirs.mask[key]) if key in ours.mask else ...
            torch.testing.assert_close(value[both], theirs.weights[key][both], rtol=1e-3, atol=1e-4)
        differ = sum(int((ours.mask[key] ^ theirs.mask[key]).sum()) for key in ours.mask)
        assert differ <= 0.001 * ours.mask.total
