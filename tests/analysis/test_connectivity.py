"""The line between two trainings, and batch-norm statistics measured anew on it."""

import shutil
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from sslticket.analysis.connectivity import (
    Connectivity,
    barrier_height,
    batch_norm_layers,
    interpolate,
    recalibrate_batch_norm,
)
from sslticket.analysis.endpoints import EndpointStore, find_targets
from sslticket.config.runtime import RuntimeConfig
from sslticket.config.training import SGD, TrainConfig
from sslticket.data.loader import Batch
from sslticket.errors import BadInput
from sslticket.evaluation.protocols import Protocol
from sslticket.evaluation.tasks import EvalTask, Levels, find_ticket_files
from sslticket.evaluation.trainer import SplitCache
from sslticket.objectives.supervised import Supervised
from sslticket.pruning import pruned_model
from sslticket.results.work_queue import WorkQueue
from sslticket.training.engine import Engine
from sslticket.training.network import MaskedNetwork
from sslticket.training.numerics import Numerics
from sslticket.training.progress import Progress
from tests.runs import recipe, search

SHORT = Protocol(
    name="short", dataset="digits", training=TrainConfig(length="60it", batch_size=64, optimizer=SGD(lr=0.1)), start="k"
)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return search(tmp_path_factory.mktemp("runs")).run_dir.path


@pytest.fixture
def run(found: Path, tmp_path: Path) -> Path:
    return shutil.copytree(found, tmp_path / found.name)


def engine() -> Engine:
    return Engine.create(RuntimeConfig(), "fp32")


def test_a_barrier_is_the_highest_point_above_the_mean_of_the_ends() -> None:
    assert barrier_height([0.1, 0.5, 0.3]) == pytest.approx(0.3)
    assert barrier_height([0.25, 0.25, 0.25]) == 0
    assert barrier_height([0.4, 0.1, 0.2]) == pytest.approx(0.1), "the ends are on the line"
    assert barrier_height([0.1, None, 0.3]) is None


def test_the_ends_of_the_line_are_the_networks_themselves() -> None:
    one = {"w": torch.tensor([0.1, 0.7, 1e8]), "steps": torch.tensor(3)}
    other = {"w": torch.tensor([0.3, -0.9, 1e-8]), "steps": torch.tensor(5)}
    assert torch.equal(interpolate(one, other, 0.0)["w"], one["w"])
    assert torch.equal(interpolate(one, other, 1.0)["w"], other["w"])
    torch.testing.assert_close(interpolate(one, other, 0.25)["w"], torch.tensor([0.15, 0.3, 0.75e8]))


def test_a_row_has_the_ends_own_scores_at_its_ends(run: Path) -> None:
    (row,) = Connectivity(points=5).rows(find_ticket_files([run], Levels((1,))), SHORT, [0], engine())
    assert [point[0] for point in row["points"]] == [0, 0.25, 0.5, 0.75, 1]
    split_cache = SplitCache(None)
    task = EvalTask(find_ticket_files([run], Levels((1,)))[0], "ticket", SHORT, 0, "own")
    (target,) = find_targets([task], split_cache, Numerics(precision="fp32"), dense=False)
    with Progress(0, show=False) as progress:
        endpoints = EndpointStore(split_cache, engine(), progress)
        told = [endpoints.measurements(training) for training in (target.training, target.training_in_order(1))]
    for point, end in zip((row["points"][0], row["points"][-1]), told, strict=True):
        _, error, loss, recalibrated_error, recalibrated_loss = point
        assert (error, loss) == (1 - end["top1"], end["loss"])
        assert recalibrated_loss != loss
        assert recalibrated_error == pytest.approx(error, abs=0.15), "the statistics are those of the same weights"
    barrier = barrier_height([point[1] for point in row["points"]])
    assert barrier is not None
    assert row["barrier"] == barrier >= 0
    assert row["loss_barrier_recalibrated"] == barrier_height([point[4] for point in row["points"]])
    assert (row["steps"], row["samples"]) == (2 * 59, 2 * 59 * 64)
    assert list(Connectivity(points=5).rows(find_ticket_files([run], Levels((1,))), SHORT, [0], engine())) == []
    (finer,) = Connectivity(points=3).rows(find_ticket_files([run], Levels((1,))), SHORT, [0], engine())
    assert [point[:3] for point in finer["points"]] == [point[:3] for point in row["points"][::2]]


def test_without_batch_norm_both_numbers_are_the_same(tmp_path: Path) -> None:
    run = search(tmp_path, recipe(model="lenet300")).run_dir.path
    (row,) = Connectivity(points=3).rows(find_ticket_files([run], Levels((1,))), SHORT, [0], engine())
    assert all(point[1:3] == point[3:] for point in row["points"])
    assert (row["barrier"], row["loss_barrier"]) == (row["barrier_recalibrated"], row["loss_barrier_recalibrated"])


def test_two_points_are_no_line() -> None:
    with pytest.raises(BadInput, match=r"--points must be at least 3, .*, got 2"):
        Connectivity(points=2).rows([], SHORT, [0], engine())


class Doubling(nn.Module):
    """Batch norm behind dropout, which recalibration must leave alone."""

    def __init__(self) -> None:
        super().__init__()
        self.drop, self.norm = nn.Dropout(0.5), nn.BatchNorm1d(2, momentum=0.3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        normed: torch.Tensor = self.norm(self.drop(2 * x))
        return normed


@pytest.mark.parametrize("parts", [1, 2])
def test_recalibrated_statistics_are_means_over_batches_or_their_parts(parts: int) -> None:
    net = MaskedNetwork(Doubling(), nn.Identity(), Supervised())
    images = (torch.tensor([[1.0, 0.0], [3.0, 0.0]]), torch.tensor([[5.0, 2.0], [5.0, 4.0]]))
    batches = [Batch((view,), torch.zeros(2, dtype=torch.int64), torch.arange(2)) for view in images]
    (layer,) = batch_norm_layers(net)
    assert layer.running_mean is not None
    assert layer.running_var is not None
    layer.running_mean.fill_(99)
    if parts == 2:
        batches = [Batch((torch.cat(images),), torch.zeros(4, dtype=torch.int64), torch.arange(4))]
    recalibrate_batch_norm(Accelerator(cpu=True), net, batches, parts)
    # Twice the pixels: means 4 and 10, unbiased variances 8 and 0; and 0 and 6, 0 and 8.
    assert layer.running_mean.tolist() == [7, 3]
    assert layer.running_var.tolist() == [4, 4]
    assert (layer.momentum, layer.training) == (0.3, False)


def statistics(layer: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """A copy of the running mean and variance of a layer of batch norm, (C,) each."""
    state = layer.state_dict()
    return state["running_mean"].clone(), state["running_var"].clone()


def test_recalibration_restores_the_statistics_of_a_training_that_has_come_to_rest(run: Path) -> None:
    fit = TrainConfig(length="70it", batch_size=64, optimizer=SGD(lr=0.1), drops=("20it", "21it", "22it", "23it"))
    task = EvalTask(
        find_ticket_files([run], Levels((0,)))[0], "ticket", Protocol(name="rests", dataset="digits", training=fit), 0
    )
    split_cache = SplitCache(None)
    (target,) = find_targets([task], split_cache, Numerics(precision="fp32"), dense=False)
    with Progress(0, show=False) as progress:
        endpoints = EndpointStore(split_cache, engine(), progress)
        assert WorkQueue(list, endpoints, endpoints.engine, progress).attempt(target.training) == []
        eval_run = endpoints.eval_run(target.training)
        net = eval_run.build_net()
        pruned_model.write_state(net, endpoints.read(target.training).state)
        layers = batch_norm_layers(net)
        before = [statistics(layer) for layer in layers]
        for layer in layers:
            layer.reset_running_stats()
        recalibrate_batch_norm(
            endpoints.engine.accelerator, net, endpoints.evaluator.training_loader(eval_run).train(0, 20)
        )
    assert len(layers) == 3
    for layer, (mean, variance) in zip(layers, before, strict=True):
        # What is left is chance: running means are over about ten batches. Two trainings were 0.02 and 0.1 off.
        new_mean, new_variance = statistics(layer)
        assert ((new_mean - mean) / variance.sqrt()).abs().max() < 0.05
        assert (new_variance / variance).log().abs().max() < 0.2
