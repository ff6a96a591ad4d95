"""Fast protocols: their schedules, and trainings in which the images grow."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sslticket.config.recipe import Data
from sslticket.config.runtime import RuntimeConfig
from sslticket.config.training import SGD, Span, TrainConfig
from sslticket.data.augment import View
from sslticket.data.datasets.catalogue import get_dataset
from sslticket.data.loader import Batch
from sslticket.errors import BadInput
from sslticket.evaluation import tasks
from sslticket.evaluation.jobs import evaluate_tasks
from sslticket.evaluation.protocols import Protocol, find_protocol, own_protocol, propose_protocol
from sslticket.evaluation.trainer import GrowingLoader, MemoryEstimator, SplitCache
from sslticket.objectives.supervised import Supervised
from sslticket.registry import load_user_file
from sslticket.results.rows import row_error
from sslticket.results.table import read_rows
from sslticket.results.throughput import multiply_adds_of
from sslticket.training.engine import Engine
from sslticket.training.loop import TrainingLoop
from sslticket.training.network import MaskedNetwork
from tests.runs import recipe, search
from tests.search.test_killed import told
from tests.training.test_snapshots import stopped_every

IMAGENET, CIFAR10 = 1_281_167, 50_000
STEPS = TrainConfig(length="12it", batch_size=64, optimizer=SGD(lr=0.1))
GROWING = Protocol(name="growing", dataset="digits", training=STEPS, early_sizes=(("4it", 5), ("75%", 6)), seeds=(0,))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return search(tmp_path_factory.mktemp("runs")).run_dir.path


def scored(run: Path, protocol: Protocol) -> list[dict[str, Any]]:
    paths = tasks.find_ticket_files([run], tasks.Levels((1,)))
    asked = tasks.make_tasks(paths, [], [protocol], [0], ["new"])
    return list(evaluate_tasks(asked, Engine.create(RuntimeConfig(), "fp32")))


def test_imagenet_fast_is_the_public_schedule_of_sixteen_epochs() -> None:
    """ffcv-imagenet's get_cyclic_lr and get_resolution with rn50_16_epochs.yaml, for each of the epochs."""
    protocol = find_protocol("imagenet-fast")
    training = protocol.training_for("resnet50")
    schedule, clock = training.schedule(IMAGENET), training.clock(IMAGENET)
    assert (training.batch_size, training.ghost_batch, clock.total_steps) == (8 * 512, 512, 5005)
    middles = [schedule.lr_at((epoch + 0.5) * IMAGENET) for epoch in range(16)]
    published = np.interp([epoch + 0.5 for epoch in range(16)], [0, 2, 16], [0, 1.7, 0])
    np.testing.assert_allclose(middles, published, atol=1e-3)
    spans = protocol.size_spans("resnet50", IMAGENET)
    assert spans == ((clock.steps(Span.parse("12ep")), 160), (5005, 192))
    sizes = [next(size for end, size in spans if (epoch + 0.5) * IMAGENET / 4096 < end) for epoch in range(16)]
    interpolated = np.interp(np.arange(16), [11, 13], [160, 192])
    assert sizes == [int(np.round(side / 32)) * 32 for side in interpolated]
    assert protocol.size_schedule == "160 until 12ep, then 192"
    assert protocol.views(get_dataset("imagenet"))[1].size == 256


def test_cifar10_fast_has_the_schedule_of_airbench_at_the_rate_of_a_resnet20() -> None:
    training = find_protocol("cifar10-fast").training_for("resnet20")
    plain = find_protocol("cifar10-resnet20").training_for("resnet20").scaled_to_batch(training.batch_size)
    assert training.optimizer.lr == plain.optimizer.lr
    schedule, steps = training.schedule(CIFAR10), training.clock(CIFAR10).total_steps
    assert steps == 484
    rates = [schedule.lr_at(1024 * step) / training.optimizer.lr for step in range(1, steps + 1)]
    peak = int(0.23 * steps)  # as its get_lr has it, which begins at a fifth and not at 0
    assert rates[peak] == pytest.approx(1, abs=0.01)
    np.testing.assert_allclose(rates[:peak], np.linspace(0, 1, peak), atol=0.01)
    np.testing.assert_allclose(rates[peak:], np.linspace(1, 0.07, steps - peak), atol=0.01)


def test_sizes_and_smoothing_are_settings_and_change_the_hash_of_a_protocol() -> None:
    plain = replace(GROWING, early_sizes=())
    variants = (plain, GROWING, replace(GROWING, early_sizes=(("4it", 5),)), replace(plain, label_smoothing=0.1))
    assert len({each.hash_for("conv3") for each in variants}) == len(variants)
    assert len({each.pinned().name for each in variants}) == len(variants)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"early_sizes": (("20it", 6),)}, "before the training of 12 steps does, got 6 until 20it"),
        ({"early_sizes": (("8it", 5), ("4it", 6))}, "one after the other"),
        ({"early_sizes": (("0it", 5),)}, "one after the other"),
        ({"early_sizes": (("4it", 0),)}, "sides of 1 pixel or more, got 0"),
        ({"early_sizes": (("four", 5),)}, "early_sizes must be like"),
        ({"label_smoothing": 1.0}, r"label_smoothing must be in \[0, 1\), got 1"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_is_written(
    run: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        scored(run, replace(GROWING, name="never", **changes))
    assert not list((run / "rows").glob("*never*"))


def test_a_network_of_one_size_is_refused_by_the_first_tensor_that_does_not_fit(tmp_path: Path) -> None:
    flat = search(tmp_path, recipe(model="lenet300")).run_dir.path
    with pytest.raises(BadInput, match=r"growing shows 5: fc1.weight of lenet300 is \(300, 64\) there and \(300, 25\)"):
        scored(flat, GROWING)


def test_images_grow_at_their_steps_and_rows_say_so(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, torch.Size]] = []
    take = TrainingLoop._run_step

    def noting(loop: TrainingLoop, batch: Batch, step: int, progress: float) -> Tensor:
        seen.append((step, batch.views[0].shape[-2:]))
        return take(loop, batch, step, progress)

    monkeypatch.setattr(TrainingLoop, "_run_step", noting)
    (row,) = scored(run, GROWING)
    assert seen == [(step, (size, size)) for step, size in enumerate([5] * 4 + [6] * 5 + [8] * 3)]
    assert row_error(row) is None
    assert (row["size_schedule"], row["steps"]) == ("5 until 4it, 6 until 75%, then 8", 12)
    assert row["protocol_hash"] == GROWING.hash_for("conv3")
    (plain,) = scored(run, replace(GROWING, name="plain", early_sizes=()))
    assert "size_schedule" not in plain
    assert plain["top1"] != row["top1"]


def test_a_growing_training_that_is_stopped_within_and_between_sizes_ends_as_one_that_never_was(
    run: Path, tmp_path: Path
) -> None:
    whole, stopped = (shutil.copytree(run, tmp_path / name / run.name) for name in ("whole", "stopped"))
    protocol = replace(GROWING, name="stopped")
    scored(whole, protocol)
    for every in (2, 4):  # at the very steps of the changes, and between them
        shutil.rmtree(stopped)
        shutil.copytree(run, stopped)
        assert stopped_every(every, lambda: scored(stopped, protocol)) >= 2
        assert told(stopped.parent) == told(whole.parent)


def test_one_loader_is_there_at_a_time_and_steps_may_be_taken_from_anywhere() -> None:
    made: list[int] = []

    class Sized:
        def __init__(self, size: int) -> None:
            made.append(size)
            self.size, self.unreadable = size, {f"{size}.jpg": "damaged"}

        def train(self, start: int, stop: int) -> Any:
            yield from ((self.size, step) for step in range(start, stop))

        def once(self) -> Any:
            yield (self.size, -1)

    loader = GrowingLoader([(3, 5), (5, 6), (9, 8)], Sized)  # type: ignore[arg-type]
    assert (made, loader.unreadable) == ([], {})
    assert list(loader.train(1, 6)) == [(5, 1), (5, 2), (6, 3), (6, 4), (8, 5)]  # type: ignore[comparison-overlap]
    assert list(loader.train(6, 6)) == []
    assert list(loader.train(6, 9)) == [(8, 6), (8, 7), (8, 8)]  # type: ignore[comparison-overlap]
    assert made == [5, 6, 8]
    assert loader.unreadable.keys() == {"5.jpg", "6.jpg", "8.jpg"}
    assert list(loader.once()) == [(8, -1)]  # type: ignore[comparison-overlap]


@pytest.mark.data
def test_photographs_grow_by_dali_and_go_on_after_a_stop_at_the_change(
    few_photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shape of imagenet-fast on real photographs, a few steps of it."""
    (tmp_path / "folder").symlink_to(few_photographs)
    monkeypatch.setenv("SSLTICKET_DATA", str(tmp_path))
    data = Data(dataset="folder", image_size=32)
    found = search(tmp_path / "runs", recipe(data=data)).run_dir.path
    fast = find_protocol("imagenet-fast")
    training = replace(fast.training, length="4it", batch_size=8, ghost_batch=None, warmup="25%")
    views = {"train": View(size=48, crop="resized", flip=True), "eval": View(size=64, resize=73)}
    small = replace(fast, name="small", dataset="folder", training=training, early_sizes=(("75%", 40),), **views)
    whole, stopped = (shutil.copytree(found, tmp_path / name / found.name) for name in ("whole", "stopped"))
    (row,) = scored(whole, small)
    assert stopped_every(3, lambda: scored(stopped, small)) == 1
    assert told(stopped.parent) == told(whole.parent)
    assert row["size_schedule"] == "40 until 75%, then 48"


def test_a_plan_counts_the_multiply_adds_of_each_size_and_writes_nothing(run: Path, tmp_path: Path) -> None:
    expected = sum(
        share * multiply_adds_of("conv3", 1, size) for share, size in ((4 / 12, 5), (5 / 12, 6), (3 / 12, 8))
    )
    assert tasks.protocol_multiply_adds(GROWING, "conv3", 1) == pytest.approx(3 * expected)
    file = tmp_path / "mine.py"
    file.write_text(
        "from tests.evaluation.test_fast_protocols import GROWING as _GROWING\nfrom dataclasses import replace\n"
        "MINE = replace(_GROWING, name='mine')\n"
    )
    before = sorted(run.rglob("*"))
    command = [sys.executable, "-m", "sslticket", "evaluate", str(run), "--levels", "1", "--dry-run"]
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [*command, "--protocol", f"{file}:MINE"],
        env=os.environ | {"PYTHONPATH": str(root)},
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert replace(GROWING, name="mine").pinned().name in done.stdout
    assert sorted(run.rglob("*")) == before


def test_the_memory_of_a_training_is_that_of_its_largest_images() -> None:
    estimator, splits = MemoryEstimator(Engine.create(RuntimeConfig(), "fp32")), SplitCache(None)
    shrinking, plain = replace(GROWING, early_sizes=(("4it", 12),)), replace(GROWING, early_sizes=())
    sizes = (replace(plain, image_size=12), shrinking, GROWING, plain)
    needs = [estimator.needs(each, "conv3", splits.get(each, 1)) for each in sizes]
    twelve, shrunk, grown, eight = (each and each.estimate(64).activations for each in needs)
    assert shrunk == twelve
    assert grown == eight
    assert shrunk > grown


def test_smoothed_labels_are_targets_of_the_loss_and_not_of_what_is_measured() -> None:
    objective, plain = Supervised(label_smoothing=0.2), Supervised()
    net = MaskedNetwork.build("conv3", objective, channels=1, image_size=8, classes=10, seed=0).double()
    rng = np.random.default_rng(0)
    images, labels = torch.from_numpy(rng.normal(size=(16, 1, 8, 8))), torch.from_numpy(rng.integers(0, 10, 16))
    batch = Batch((images,), labels, torch.arange(16))
    net.eval()
    log_p = net.heads(net.backbone(images)).log_softmax(dim=1)
    target = 0.8 * torch.nn.functional.one_hot(labels, 10).double() + 0.2 / 10
    expected = -(target * log_p).sum(dim=1).mean()
    torch.testing.assert_close(objective.loss(net, batch, 0.0)["labels"], expected, rtol=0, atol=1e-12)
    same = [each.metrics(net, batch) for each in (objective, plain)]
    assert all(torch.equal(same[0][name], same[1][name]) for name in same[1])


def test_smoothing_is_in_a_recipes_key_only_where_it_is_on_and_its_own_protocol_has_it() -> None:
    plain, smooth = recipe(), recipe(Supervised(label_smoothing=0.1))
    assert plain.key == recipe(Supervised(label_smoothing=0.0)).key != smooth.key
    assert "label_smoothing" not in plain.to_dict()["objective"]
    assert own_protocol(plain.to_dict()).label_smoothing == 0
    assert own_protocol(smooth.to_dict()).label_smoothing == 0.1
    with pytest.raises(BadInput, match=r"--label-smoothing must be in \[0, 1\], got 2"):
        Supervised(label_smoothing=2.0)


def test_fast_protocols_are_proposed_for_searches_that_train_so_and_for_no_others() -> None:
    fast = find_protocol("cifar10-fast")
    data = Data(dataset="cifar10", augment=fast.train)
    same = recipe(Supervised(label_smoothing=0.2), data=data, training=fast.training).to_dict()
    assert propose_protocol(same) == fast
    unlike = recipe(data=data, training=fast.training).to_dict()
    assert propose_protocol(unlike) != fast
    large = recipe(model="resnet50", data=Data(dataset="imagenet", image_size=192, subset=0.1)).to_dict()
    assert propose_protocol(large) == find_protocol("imagenet")


@pytest.mark.parametrize(
    ("script", "rows", "page", "least"),
    [
        ("agreement/rank_agreement.py", "evaluation/agreement.parquet", "evaluation.md", 12),
        ("early_bird/front.py", "searches/early_bird.parquet", "searches.md", 12),
        ("early_bird/front.py", "searches/early_bird_resnet8.parquet", "searches.md", 4),
    ],
)
def test_the_pages_numbers_are_those_of_the_rows(script: str, rows: str, page: str, least: int) -> None:
    """Of fast protocols and of early birds: each line that the script makes of the committed rows is in the page."""
    root = Path(__file__).parents[2]
    made = load_user_file(root / "experiments" / script)
    given = read_rows([root / "docs" / rows])
    lines = [*made.table_lines(given), *(made.score_lines(given) if hasattr(made, "score_lines") else ())]
    assert len(lines) >= least
    text = (root / "docs" / page).read_text()
    assert [line for line in lines if line not in text] == []
