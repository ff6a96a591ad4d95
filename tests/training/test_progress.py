"""Who listens to a training hears what it shows; the status file is there while it trains."""

import math
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from sslticket.config.runtime import RuntimeConfig
from sslticket.config.training import SGD, TrainConfig
from sslticket.errors import BadInput, Diverged
from sslticket.search.plan import plan_search
from sslticket.search.run_search import run_search
from sslticket.training import loop as loops
from sslticket.training.engine import Engine
from sslticket.training.progress import (
    STATUS_FOLDER,
    Progress,
    ProgressUpdate,
    StatusFileTracker,
    Tracker,
    own_status_file,
    read_statuses,
)
from tests.runs import recipe


class Ear(Tracker):
    def __init__(self) -> None:
        self.looks: list[ProgressUpdate] = []
        self.values: list[tuple[int, Mapping[str, float]]] = []
        self.closed = False

    def log_progress(self, look: ProgressUpdate) -> None:
        self.looks.append(look)

    def log_metrics(self, samples: int, values: Mapping[str, float]) -> None:
        self.values.append((samples, values))

    def close(self) -> None:
        self.closed = True


def test_listeners_hear_step_samples_loss_and_rate_of_their_training_only() -> None:
    ear = Ear()
    with Progress(300, show=False) as progress:
        progress.start_task("first", 10)
        progress.advance(1, 20)
        progress.log_loss(2.0, 0.1)
        with progress.log_to(ear):
            progress.start_task("second", 5)
            for step in (1, 2, 3):
                progress.advance(step, 20)
            progress.log_loss(1.5, 0.01)
            progress.log_probe(0.25)
        progress.log_loss(1.0, 0.01)
    (look,) = ear.looks
    assert (look.task, look.step, look.steps, look.samples) == ("second", 3, 5, 60)
    assert (look.loss, look.lr) == (1.5, 0.01)
    # 300 samples in all, of which the first training saw 20 and this one 60 so far.
    assert look.left * look.rate == pytest.approx(220)
    assert ear.values == [(60, {"probe": 0.25})]
    assert ear.closed


def look(**changes: object) -> ProgressUpdate:
    shown = {
        "task": "level 1/3",
        "step": 4,
        "steps": 6,
        "samples": 128,
        "rate": 99.5,
        "loss": 2.0,
        "lr": 0.1,
        "left": 9.0,
    }
    return ProgressUpdate(**(shown | changes))  # type: ignore[arg-type]


def test_the_status_file_tells_what_goes_on_and_goes_in_the_end(tmp_path: Path) -> None:
    file = StatusFileTracker(tmp_path, "search.level-00")
    file.log_metrics(64, {"probe": 0.5, "top1": 0.4})
    file.log_progress(look())
    file.log_progress(look(step=5))  # too soon to be written
    (told,) = read_statuses(tmp_path)
    assert (told.task, told.step, told.steps, told.rate, told.probe, told.left) == ("level 1/3", 4, 6, 99.5, 0.5, 9.0)
    assert told.silent_seconds is None
    own_status_file(tmp_path).write_text("{half", encoding="utf-8")
    assert read_statuses(tmp_path) == []
    file.close()
    assert list((tmp_path / STATUS_FOLDER).iterdir()) == []


def test_a_diverged_training_leaves_no_status_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "_CHECK_SECONDS", 0.0)
    fit = TrainConfig(length="20it", batch_size=32, optimizer=SGD(lr=1e30))
    planned = plan_search(recipe(training=fit), RuntimeConfig(), tmp_path)
    with pytest.raises(Diverged):
        run_search(planned, RuntimeConfig())
    assert list((planned.run_dir.path / STATUS_FOLDER).glob("*")) == []


def test_without_the_package_tensorboard_is_refused_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(BadInput, match=r"pip install 'sslticket\[tensorboard\]'") as caught:
        Engine.create(RuntimeConfig(tensorboard=True), "fp32")
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of TensorBoard's own imports
def test_tensorboards_files_hold_each_value_against_the_samples_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.setattr(loops, "_CHECK_SECONDS", -1.0)  # a look at every step
    machine = RuntimeConfig(tensorboard=True, probe="3it")
    planned = plan_search(
        recipe(training=TrainConfig(length="6it", batch_size=300, optimizer=SGD(lr=0.1), drops=("4it",))),
        machine,
        tmp_path,
    )
    run_search(planned, machine)
    folders = sorted(path.name for path in (planned.run_dir.path / "tensorboard").iterdir())
    assert folders == [f"search.level-{level:02d}" for level in range(4)]
    read = accumulator.EventAccumulator(str(planned.run_dir.path / "tensorboard" / "search.level-01"))
    read.Reload()
    scalars = {name: [(each.step, each.value) for each in read.Scalars(name)] for name in read.Tags()["scalars"]}
    assert [samples for samples, _ in scalars["loss"]] == [900, 1200, 1500, 1800]  # W_k is at step 2
    assert [value for _, value in scalars["lr"]] == pytest.approx([0.1, 0.1, 0.01, 0.01])
    assert [samples for samples, _ in scalars["probe"]] == [900, 1800]
    ((samples, top1),) = scalars["metrics/top1"]
    assert samples == 1800
    assert 0 < top1 <= 1
    assert all(math.isfinite(value) for _, value in scalars["samples a second"])


LONG = "cifar10-imagenet level-03.ticket preserved seed 0"


@pytest.mark.parametrize(
    ("columns", "task", "line"),
    [
        (120, "level 12/21", "level 12/21 step 123/456, loss 2.303, nearest neighbours 12.3%:"),
        (80, "level 12/21", "level 12/21 step 123/456, loss 2.303, nearest neighbours 12.3%:"),
        (80, LONG, f"{LONG} step 123/456, loss 2.303"),
        (40, "level 12/21", "level 12/21 step 123/456, loss 2.303"),
        (40, LONG, "cifar10-imagen step 123/456, loss 2.303"),
        (20, LONG, "cifar10- loss 2.303"),
        (4, LONG, "ci"),
        (80, "evil\x1b[2J\nname", "evil\\x1b[2J\\nname step 123/456, loss 2.303"),
    ],
)
def test_the_bar_shows_the_loss_within_the_terminals_columns(
    columns: int, task: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tqdm.std._screen_shape_wrapper", lambda: lambda file: (columns, 24))
    monkeypatch.delenv("COLUMNS", raising=False)
    with Progress(10_000) as progress:
        progress.start_task(task, 456)
        progress.advance(123, 64)
        progress.log_loss(2.30259, 0.1)
        progress.log_probe(0.123)
        shown = str(progress._bar)
    assert shown.startswith(line)
    assert len(shown) < columns
