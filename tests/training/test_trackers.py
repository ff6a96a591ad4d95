"""Trackers see a training whole, once, and decide nothing: settings, curves by samples seen, rows and tickets."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sslticket import evaluate_tickets, run_sweep, write_report
from sslticket.campaign.sweep import Evaluate, Sweep
from sslticket.cli.commands import run_command
from sslticket.config.runtime import RuntimeConfig
from sslticket.config.training import SGD, TrainConfig
from sslticket.errors import BadInput
from sslticket.search.plan import SearchPlan, plan_search
from sslticket.search.run_search import run_search
from sslticket.training import loop as loops
from sslticket.training.engine import Engine
from sslticket.training.trackers import TrackerSet
from tests.runs import BATCH, REWIND, STEPS, recipe
from tests.together.test_together import ROOT, free_port
from tests.training.test_snapshots import stopped_every

MINE = '''
import json
from pathlib import Path

import torch
from accelerate.tracking import GeneralTracker


class Mine(GeneralTracker):
    """Keeps all that it gets; each start of a process or a training is a line."""

    name, requires_logging_directory = "mine", True

    def __init__(self, project, logging_dir, **settings):
        super().__init__()
        self.project, self.folder = project, Path(logging_dir)

    def start(self):
        self.folder.mkdir(exist_ok=True)
        self.file = (self.folder / "got.jsonl").open("a")
        self.write(started=self.project)

    @property
    def tracker(self):
        return self.file

    def write(self, **entry):
        torch.rand(3)  # what a tracker draws is nobody's
        print(json.dumps(entry), file=self.file, flush=True)

    def store_init_configuration(self, values):
        self.write(settings=values)

    def log(self, values, step=None, **more):
        self.write(step=step, **values)

    def log_artifact(self, local_path, artifact_path=None):
        self.write(file=Path(local_path).name, kind=artifact_path)

    def finish(self):
        self.write(finished=True)
        self.file.close()


class Breaks(Mine):
    def log(self, values, step=None, **more):
        if step > 64:
            raise ConnectionError("the server is gone")
'''


@pytest.fixture
def mine(tmp_path: Path) -> str:
    file = tmp_path / "mine.py"
    file.write_text(MINE)
    return f"{file}:Mine"


@pytest.fixture(autouse=True)
def _look_at_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "_CHECK_SECONDS", -1.0)


def logged(out: Path, *labels: str, **settings: Any) -> SearchPlan:
    machine = RuntimeConfig(log=labels, **settings)
    planned = plan_search(recipe(), machine, out)
    run_search(planned, machine)
    return planned


def got(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "trackers" / "got.jsonl").read_text().splitlines()]


def tickets(planned: SearchPlan) -> list[bytes]:
    return [planned.run_dir.ticket_path(level).read_bytes() for level in range(4)]


def test_a_tracker_gets_settings_curves_rows_and_tickets_of_each_level(tmp_path: Path, mine: str) -> None:
    planned = logged(tmp_path / "runs", f"{mine}:digits", probe="3it")
    entries = got(planned.run_dir.path)
    assert [each["started"] for each in entries if "started" in each] == ["digits"] * 4
    settings = [each["settings"] for each in entries if "settings" in each]
    assert [(each["key"], each["training"]) for each in settings] == [
        (planned.recipe.key, f"search.level-{level:02d}") for level in range(4)
    ]
    assert [each["density"] for each in settings] == [1.0, 1.0, *(pytest.approx(0.5**n, rel=1e-3) for n in (1, 2))]
    assert {"model": "conv3", "lr": 0.1, "objective": "Supervised", "rate": 0.5}.items() <= settings[0].items()
    begun = [place for place, each in enumerate(entries) if "started" in each]
    level = entries[begun[2] :][: begun[3] - begun[2]]
    losses = [(each["step"], each["lr"]) for each in level if "loss" in each]
    assert [samples for samples, _ in losses] == [BATCH * step for step in range(REWIND + 1, STEPS + 1)]
    assert [lr for _, lr in losses] == pytest.approx([0.1, 0.1, 0.01, 0.01])
    assert [each["step"] for each in level if "probe" in each] == [BATCH * 3, BATCH * STEPS]
    (row,) = (each for each in level if "row/density" in each)
    assert (row["row/level"], row["row/density"]) == (2, pytest.approx(0.25, rel=1e-3))
    assert [(each["file"], each["kind"]) for each in level if "file" in each] == [
        ("search.level-02.jsonl", "rows"),
        ("level-02.safetensors", "tickets"),
    ]
    assert "finished" in level[-1]


def test_what_is_logged_changes_no_bit_and_a_tracker_that_fails_is_told_once(
    tmp_path: Path, mine: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    plain = logged(tmp_path / "plain")
    assert "tracker" not in capsys.readouterr().err
    followed = logged(tmp_path / "followed", mine, mine.replace("Mine", "Breaks"))
    told = capsys.readouterr().err
    assert told.count("has failed and follows nothing more, while the work goes on (the server is gone)") == 1
    assert followed.recipe.key == plain.recipe.key
    assert tickets(followed) == tickets(plain)
    assert got(followed.run_dir.path)[-1] == {"finished": True}, "the others follow on"


def test_a_search_that_is_stopped_again_and_again_goes_on_in_the_same_runs_of_its_tracker(
    tmp_path: Path, mine: str
) -> None:
    whole = logged(tmp_path / "whole", mine)
    assert stopped_every(3, lambda: logged(tmp_path / "stopped", mine)) >= 2

    def points(run: Path) -> list[tuple[object, ...]]:
        timed = ("samples a second", "row/seconds")
        return [tuple((k, v) for k, v in each.items() if k not in timed) for each in got(run) if "step" in each]

    stopped = tmp_path / "stopped" / whole.recipe.key
    assert points(stopped) == points(whole.run_dir.path), "no step is there twice, none is missing"
    assert sum("settings" in each for each in got(stopped)) == 4
    assert sum("file" in each for each in got(stopped)) == 8


def test_evaluations_and_workers_of_a_campaign_are_followed(tmp_path: Path, mine: str) -> None:
    machine = RuntimeConfig(log=(mine,))
    (tmp_path / "p.py").write_text(
        "from sslticket import SGD, Protocol, TrainConfig\nSHORT = Protocol(name='short', dataset='digits', "
        "training=TrainConfig(length='6it', batch_size=32, optimizer=SGD(lr=0.1)))\n"
    )
    short = f"{tmp_path / 'p.py'}:SHORT"
    measured = Evaluate(protocols=[short], controls=["random"], levels="1", seeds=[0])
    run_sweep(Sweep(recipes=[recipe()], evaluate=[measured]), out=tmp_path / "out", runtime=machine, progress=False)
    run = tmp_path / "out" / recipe().key
    trained = [each["settings"] for each in got(run) if each.get("settings", {}).get("protocol")]
    assert [(each["ticket"], each["control"], each["seed"]) for each in trained] == [
        ("level-01", "ticket", 0),
        ("level-01", "random", 0),
    ]
    rows = [each for each in got(run) if "row/top1" in each]
    assert [each["step"] for each in rows] == [192, 192]
    evaluate_tickets(run, protocol=short, levels=2, controls=[], runtime=machine, progress=False)
    assert sum("row/top1" in each for each in got(run)) == 3


def test_a_report_is_sent_with_its_page_and_picture(tmp_path: Path, mine: str) -> None:
    planned = logged(tmp_path / "runs")
    evaluate_tickets(planned.run_dir.path, protocol="own", levels=1, controls=[], progress=False)
    run_command(["report", str(tmp_path / "runs"), "-o", str(tmp_path / "runs" / "r.html"), "--log", mine])
    sent = {(each["file"], each["kind"]) for each in got(tmp_path / "runs") if "file" in each}
    assert sent == {("r.html", "reports"), ("r.png", "figures")}
    assert write_report(tmp_path / "runs", tmp_path / "again.html").html.exists()


@pytest.mark.slow
def test_of_two_processes_the_first_alone_has_trackers(tmp_path: Path, mine: str) -> None:
    # Before a bare --, torchrun takes --log for one of its own flags.
    words = ["--", "recipes/supervised_digits.py", "--length", "6it", "--levels", "1", "--rewind", "2it"]
    subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"),
            *("--master-port", str(free_port()), *words, "--out", str(tmp_path / "runs"), "--log", mine),
        ],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "SSLTICKET_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        timeout=280,
        check=True,
    )
    (run,) = (tmp_path / "runs").iterdir()
    assert [each["settings"]["training"] for each in got(run) if "settings" in each] == [
        "search.level-00",
        "search.level-01",
    ]
    assert len(list((run / ".trackers").iterdir())) == 2


@pytest.mark.parametrize("name", ["wandb", "mlflow:project", "trackio", "comet", "aim"])
def test_without_its_package_a_tracker_is_refused_before_anything_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = {"comet": "comet_ml"}.get(name, name.partition(":")[0])
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(BadInput, match=rf"--log {name} needs a package .*pip install {package} or leave") as caught:
        logged(tmp_path, name)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(BadInput, match=f"--log {name} needs a package"):  # before a worker is started
        run_sweep(Sweep(recipes=[recipe()]), out=tmp_path / "out", runtime=RuntimeConfig(log=(name,)))
    assert list(tmp_path.iterdir()) == []


def test_without_the_package_tensorboard_is_refused_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(BadInput, match=r"pip install 'sslticket\[tensorboard\]'") as caught:
        Engine.create(RuntimeConfig(tensorboard=True), "fp32")
    assert "\n" not in str(caught.value)


def test_a_class_that_is_no_tracker_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("class Mine:\n    pass\n")
    with pytest.raises(BadInput, match=r"must be of the class sslticket\.training\.progress\.Tracker to be a tracker"):
        TrackerSet((f"{tmp_path / 'mine.py'}:Mine",))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of TensorBoard's own imports
def test_tensorboards_files_hold_each_value_against_the_samples_seen(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    machine = RuntimeConfig(log=(f"tensorboard:{tmp_path / 'events'}",), tensorboard=True, probe="3it")
    planned = plan_search(
        recipe(training=TrainConfig(length="6it", batch_size=300, optimizer=SGD(lr=0.1), drops=("4it",))),
        machine,
        tmp_path / "runs",
    )
    run_search(planned, machine)
    for folder in (planned.run_dir.path / "tensorboard", tmp_path / "events" / planned.recipe.key):
        assert sorted(path.name for path in folder.iterdir()) == [f"search.level-{level:02d}" for level in range(4)]
        read = accumulator.EventAccumulator(str(folder / "search.level-01"))
        read.Reload()
        scalars = {name: [(each.step, each.value) for each in read.Scalars(name)] for name in read.Tags()["scalars"]}
        assert [samples for samples, _ in scalars["loss"]] == [900, 1200, 1500, 1800]  # W_k is at step 2
        assert [value for _, value in scalars["lr"]] == pytest.approx([0.1, 0.1, 0.01, 0.01])
        assert [samples for samples, _ in scalars["probe"]] == [900, 1800]
        ((samples, top1),) = scalars["metrics/top1"]
        assert samples == 1800
        assert 0 < top1 <= 1
        assert all(math.isfinite(value) for _, value in scalars["samples a second"])
        assert scalars["row/density"] == [(1800, pytest.approx(0.5, rel=1e-3))]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_mlflow_has_a_run_for_each_level_and_a_server_that_is_gone_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:1")
    with pytest.raises(BadInput, match=r"http://localhost:1 refuses or does not answer .* start that server"):
        logged(tmp_path / "refused", "mlflow")
    assert not (tmp_path / "refused").exists()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    assert stopped_every(3, lambda: logged(tmp_path / "runs", "mlflow:digits")) >= 2
    client = mlflow.MlflowClient()
    runs = client.search_runs([client.get_experiment_by_name("digits").experiment_id])
    by_training = {run.data.tags["training"]: run for run in runs}
    assert sorted(by_training) == [f"search.level-{level:02d}" for level in range(4)]
    assert len(runs) == 4
    run = by_training["search.level-01"]
    assert run.data.params["lr"] == "0.1"
    assert run.data.metrics["row/density"] == pytest.approx(0.5, rel=1e-3)
    assert [each.step for each in client.get_metric_history(run.info.run_id, "loss")] == [96, 128, 160, 192]
    assert [each.path for each in client.list_artifacts(run.info.run_id, "tickets")] == ["tickets/level-01.safetensors"]
