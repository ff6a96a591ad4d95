"""Who listens to a training hears what it shows; the status file is there while it trains."""

import fcntl
import io
import os
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest
from rich.console import Console

from sslticket.cli.commands import run_command
from sslticket.config.runtime import RuntimeConfig
from sslticket.config.training import SGD, TrainConfig
from sslticket.errors import BadInput, Diverged
from sslticket.search.plan import plan_search
from sslticket.search.run_search import run_search
from sslticket.training import display
from sslticket.training import loop as loops
from sslticket.training.display import Look, Stage, TimeLeft, screen_lines
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

ROOT = Path(__file__).parents[2]


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


def test_listeners_hear_step_samples_loss_and_rate_of_their_training_only(monkeypatch: pytest.MonkeyPatch) -> None:
    ear, now = Ear(), 0.0
    monkeypatch.setattr("sslticket.training.progress.time.monotonic", lambda: now)
    with Progress(300, show=False) as progress:
        progress.start_task("first", 10)
        progress.advance(1, 20)
        progress.log_loss(2.0, 0.1)
        with progress.log_to(ear):
            progress.start_task("second", 5)
            for step in (1, 2, 3):
                now += 1.0
                progress.advance(step, 20)
            progress.log_loss(1.5, 0.01)
            progress.log_probe(0.25)
        progress.log_loss(1.0, 0.01)
    (look,) = ear.looks
    assert (look.task, look.step, look.steps, look.samples) == ("second", 3, 5, 60)
    assert (look.loss, look.lr) == (1.5, 0.01)
    # 300 samples in all, of which the first training saw 20 and this one 60 so far, 20 a second.
    assert look.rate == 20.0
    assert look.left == pytest.approx(11.0)
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


LONG = "cifar10-imagenet level-03.ticket preserved seed 0"
TOLD = Look(0.27, "level 12/21, density 6.9%", "step 1,234/19,500", "loss 2.303", "nearest neighbours 12.3%", "", "")


@pytest.mark.parametrize(
    ("columns", "task", "line"),
    [
        (120, TOLD.task, "level 12/21, density 6.9%, step 1,234/19,500, loss 2.303, nearest neighbours 12.3%"),
        (80, TOLD.task, "level 12/21, density 6.9%, step 1,234/19,500, loss 2.303"),
        (80, LONG, "cifar10-imagenet level-03.ticket preserved seed…, step 1,234/19,500, loss 2.303"),
        (40, TOLD.task, "level 12/21, density 6.9%, loss 2.303"),
        (40, LONG, "cifar10-imagenet level-03.…, loss 2.303"),
        (20, LONG, "cifar1…, loss 2.303"),
        (80, "evil[bold]", "evil[bold], step 1,234/19,500, loss 2.303, nearest neighbours 12.3%"),
    ],
)
def test_a_terminal_shows_the_loss_within_its_columns(columns: int, task: str, line: str) -> None:
    console = Console(width=columns, file=io.StringIO())
    look = TOLD._replace(task=task, rate="3,120 images/s", left="1 h 03 min left")
    with console.capture() as shown:
        console.print(screen_lines(look, console))
    first, second = shown.get().rstrip().splitlines()
    assert first.rstrip() == line
    assert "27%" in second
    assert ("1 h 03 min left" in second) == (columns >= 40)
    assert max(len(first), len(second)) < columns


def test_where_there_is_no_terminal_lines_have_the_time_and_a_log_gets_them_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TQDM_DISABLE", "")
    monkeypatch.setattr(display.Lines, "interval", 0.0)
    log = tmp_path / "run.log"
    with Progress(320, log_file=log) as progress:
        progress.start_task("level 1/3\x1b[2J", 5, {"density": 0.512})
        for step in (1, 2):
            progress.advance(step, 64)
            progress.log_loss(2.30259, 0.1)
        progress.advance(3, 64)
        progress.note("a note")
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == log.read_text()
    lines = shown.err.splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \S", line) for line in lines)
    told = lines[-2][20:]
    assert told.startswith("level 1/3\\x1b[2J, density 51.2%, step 3/5, loss 2.303, ")
    assert re.search(r" images/s, 60% of all, \d+ s left$", told)
    assert lines[-1].endswith(" a note")


def test_a_quiet_search_says_nothing_and_writes_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TQDM_DISABLE", "")
    words = ["run", "supervised_digits", "--length", "6it", "--levels", "1", "--rewind", "2it", "--batch-size", "32"]
    log = tmp_path / "run.log"
    run_command([*words, "--out", str(tmp_path / "runs"), "--quiet", "--log-file", str(log)])
    shown = capsys.readouterr()
    assert shown.err == ""
    assert "next: sslticket evaluate" in shown.out
    for text in ("with --batch-size 32", "1 training of", "level 0: density 100.000%", "level 1: density 50.000%"):
        assert any(text in line for line in log.read_text().splitlines()), text
    with pytest.raises(BadInput, match="--log-file must be a file in a folder that is there"):
        RuntimeConfig(log_file=tmp_path / "nowhere" / "run.log")
    os.mkfifo(tmp_path / "pipe")  # which nobody reads
    for place in (tmp_path / "pipe", tmp_path / ("x" * 300)):
        with pytest.raises(BadInput, match=r"--log-file .* cannot be written \(.*\); give another file"):
            RuntimeConfig(log_file=place)


@pytest.mark.slow
def test_a_terminal_is_drawn_in_place_and_left_empty(tmp_path: Path) -> None:
    """A real one of 80 columns, by which the command is started."""
    words = ["-m", "sslticket", "run", "supervised_digits", "--length", "190it", "--levels", "2", "--rewind", "2it"]
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = {**os.environ, "TERM": "xterm", "TQDM_DISABLE": "", "SSLTICKET_CACHE": str(tmp_path / "cache")}
    environment = {name: value for name, value in environment.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    with subprocess.Popen(
        [sys.executable, *words, "--out", str(tmp_path)],
        stdout=subprocess.DEVNULL,
        stderr=slave,
        env=environment | {"PYTHONPATH": str(ROOT)},
    ) as started:
        os.close(slave)
        shown = b""
        with suppress(OSError):  # the end, where nobody writes any more
            while read := os.read(master, 1 << 16):
                shown += read
    os.close(master)
    assert started.returncode == 0
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode())
    lines = [line.strip() for line in re.split(r"[\r\n]+", text)]
    drawn = [line for line in lines if re.match(r"level \d/2, density \d+\.0%", line)]
    assert any(", step " in line for line in drawn)
    assert all(len(line) < 80 for line in drawn)
    assert any(re.search(r"\d% .* left$", line) for line in lines)
    assert "level 2: density 25.000%, found by training at density 50.000%" in text
    assert shown.decode().rstrip().endswith(("\x1b[2K", "\x1b[?25h")), "the bars are gone at the end"


def test_time_left_counts_on_levels_as_they_were_measured() -> None:
    """Levels of 100 images at 2, 1.5, ... seconds an image: half of it falls with the density."""
    stages = [Stage(100, density) for density in (1.0, 0.5, 0.25, 0.125)]
    left, now, clock = 400, 0.0, TimeLeft(stages)
    assert clock.seconds(left) is None

    def train(level: int, images: int) -> None:
        nonlocal left, now
        for _ in range(images):
            left, now = left - 1, now + 1.0 + stages[level].density
            clock.advance(left, 1, now)

    clock.pause(now)
    now += 60.0  # what is done once, before the first image
    clock.pause(now)
    train(0, 50)
    assert clock.seconds(left) == pytest.approx(350 * 2.0), "no level is cheaper before it was measured"
    train(0, 50)
    assert clock.seconds(left) == pytest.approx(300 * 2.0)
    now += 5.0
    clock.pause(now)  # a level ends: it is measured and saved
    train(1, 50)
    # The rest of this level, and levels at the densities of the line through both, with what is between them.
    assert clock.seconds(left) == pytest.approx(50 * 1.5 + 100 * 1.25 + 100 * 1.125 + 3 * 5.0)
    train(1, 50)
    assert clock.seconds(left) == pytest.approx(100 * 1.25 + 100 * 1.125 + 2 * 5.0)


def test_levels_of_an_earlier_process_count_and_a_sparser_one_is_never_taken_for_slower() -> None:
    clock = TimeLeft([Stage(100, 1.0), Stage(100, 0.5), Stage(100, 0.25)])
    clock.know(0, 100, 100.0)
    assert clock.seconds(200) == pytest.approx(200.0)
    clock.know(1, 100, 300.0)  # on a busy machine
    assert clock.seconds(100) == pytest.approx(200.0), "their mean, and no rise below"


def test_without_known_stages_what_is_measured_between_trainings_counts() -> None:
    clock = TimeLeft(())
    clock.pause(0.0)
    clock.advance(90, 10, 10.0)
    clock.pause(20.0)
    assert clock.seconds(90) == pytest.approx(180.0)
