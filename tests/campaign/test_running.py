"""A campaign with real workers: one search fails, one diverges, it is killed once, and ends as single commands do."""

import json
import re
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from sslticket import BadInput, RuntimeConfig, evaluate_tickets, find_tickets, read_rows, run_sweep
from sslticket.campaign.cost import CampaignCost
from sslticket.campaign.local import launch_local, worker_command
from sslticket.campaign.state import CampaignFolder, Failure, WorkerState, campaign_lines
from sslticket.campaign.state import _runs_at_work as runs_at_work
from sslticket.campaign.sweep import Analyse, expand, load_sweeps
from sslticket.campaign.worker import check_data
from sslticket.cli.commands import run_command
from sslticket.results.throughput import CostEstimate
from sslticket.search.plan import plan_search
from sslticket.storage.files import write_json

FILE = """
from sslticket import IMP, SGD, Data, Evaluate, Protocol, Recipe, Supervised, Sweep, TrainConfig

fit = TrainConfig(length="6it", batch_size=32, optimizer=SGD(lr=0.1))
SHORT = Protocol(name="short", dataset="digits", training=fit)
tiny = Recipe(
    model="conv3", data=Data(dataset="digits"), objective=Supervised(), training=fit,
    search=IMP(levels=1, rate=0.5, rewind="2it"), precision="fp32",
)
sweep = Sweep(
    recipes=[tiny],
    points=[{"subset": 0.5}, {"dataset": "svhn", "channels": 1}, {"lr": 1e30}, {"subset": 1}],
    evaluate=[Evaluate(protocols=[f"{__file__}:SHORT"], controls=["random"], levels="0 1", seeds=[0])],
)
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sweep") / "four.py"
    path.write_text(FILE)
    for split in ("train", "test"):  # found before the campaign starts, and bad when it is read
        (path.parent / f"{split}_32x32.mat").write_text("no images")
    return path


@pytest.fixture(scope="module")
def single(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two searches that can be, found and scored by single calls."""
    out = tmp_path_factory.mktemp("single")
    cells = expand(load_sweeps(file))
    for cell in (cells[0], cells[3]):
        find_tickets(cell.recipe, out=out, progress=False)
    evaluate_tickets(out, protocol=f"{file}:SHORT", controls=["random"], seeds=[0], progress=False)
    return out


def tickets(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.glob("*/tickets/*.safetensors"))}


def scores(out: Path) -> list[dict[str, object]]:
    rows = read_rows(out)
    rows = rows[rows.kind == "score"].sort_values(["run", "level", "control", "head"])
    return rows[["run", "level", "control", "head", "seed", "top1", "loss", "ticket_hash", "data_hash"]].to_dict(
        "records"
    )


def wait_for(what: object, seconds: float = 120.0) -> None:
    late = time.monotonic() + seconds
    while not what():  # type: ignore[operator]
        assert time.monotonic() < late, "it never came"
        time.sleep(0.1)


@pytest.mark.slow
def test_two_workers_one_failure_one_divergence_and_a_kill_end_as_single_commands(
    file: Path, single: Path, tmp_path: Path
) -> None:
    out, folder = tmp_path / "out", CampaignFolder(tmp_path / "out")
    command = [sys.executable, "-m", "sslticket", "sweep", str(file), "--out", str(out), "--workers", "2"]
    command += ["--data-root", str(file.parent)]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: list(out.glob("*/tickets/*.safetensors")))
    workers = folder.workers()
    running.kill()  # its workers notice, and leave
    running.wait()
    wait_for(lambda: not folder.workers())
    assert 1 <= len(workers) <= 2
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert tickets(out) == tickets(single)
    assert scores(out) == scores(single)
    lines = campaign_lines(out)
    assert lines[0].startswith("four: 4 searches, 2 done, 1 failed, 1 diverged; 8 of 8 rows")
    assert any(
        "failed    supervised conv3 digits, dataset svhn" in line and "train_32x32.mat" in line for line in lines
    )
    assert any("diverged  supervised conv3 digits, lr 1e+30" in line and "the loss is nan" in line for line in lines)
    assert set(lines[1:]) <= set(done.stdout.splitlines())
    (row,) = [json.loads(path.read_text()) for path in out.glob("*/rows/*.diverged.jsonl")]
    assert (row["kind"], row["level"], row["at_step"], row["learning_rate"]) == ("diverged", 0, 2, 1e30)
    assert "1 training diverged and is in no mean: the search of" in done.stdout
    assert (out / "report.html").exists()


def test_a_control_of_all_searches_is_trained_once_and_the_next_call_does_nothing(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    runtime = RuntimeConfig(data_root=file.parent)
    rows = run_sweep(file, out=out, runtime=runtime, progress=False)
    random = rows[(rows.kind == "score") & (rows.control == "random") & (rows.level == 1)]
    assert len(random) == 2
    assert random.seconds.nunique() == 1  # one training fills both rows
    written = {path: path.stat().st_mtime_ns for path in out.glob("*/rows/*.jsonl")}
    again = run_sweep(file, out=out, runtime=runtime, progress=False)
    assert {path: path.stat().st_mtime_ns for path in out.glob("*/rows/*.jsonl")} == written
    assert len(again) == len(rows)


def test_all_of_the_first_seed_is_measured_before_the_next_one_is_searched(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (sweep,) = load_sweeps(file)
    some = [replace(sweep, points=[{"subset": part}], seeds=[5, 3]) for part in (0.5, 1)]
    rows = run_sweep(some, out=tmp_path / "out", progress=False)
    done = re.findall(r"^\d\d:\d\d:\d\d (.*)", capsys.readouterr().out, re.MULTILINE)
    searched = [place for place, what in enumerate(done) if re.search(r", seed \d$", what)]
    assert [done[place][-1] for place in searched] == ["5", "5", "3", "3"]
    first = rows[(rows.kind == "score") & (rows.search_seed == 5)]
    assert len(first) > 0
    assert searched[1] + 1 < searched[2]  # rows of the first lie between


def test_what_is_lost_of_a_campaign_is_made_again_by_the_same_call(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (sweep,) = load_sweeps(file)
    some = replace(sweep, points=[{"subset": 0.5}], analyse=[Analyse(analysis="channels")])
    counted: list[int] = []

    def count(folder: CampaignFolder, rows: int) -> None:
        before = folder.queue
        count_done(folder, rows)
        assert folder.queue == (before[0], before[1] - rows, before[2])
        counted.append(rows)

    count_done = CampaignFolder.count_done
    monkeypatch.setattr(CampaignFolder, "count_done", count)
    rows = run_sweep(some, out=tmp_path, progress=False)
    assert sum(counted) == (rows.kind == "score").sum() == 4  # as they come, not when all are there
    (ticket,) = tmp_path.glob("*/tickets/level-00.safetensors")
    (channels,) = tmp_path.glob("*/rows/level-01.channels.jsonl")
    (score,) = tmp_path.glob("*/rows/level-00.ticket.*.jsonl")
    before = ticket.read_bytes()
    for lost in (ticket, channels, score):
        lost.unlink()
        again = run_sweep(some, out=tmp_path, progress=False)
        assert lost.exists(), lost
        assert len(again) == len(rows)
    assert ticket.read_bytes() == before


def test_a_report_that_cannot_be_drawn_is_an_error_and_not_the_end(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = tmp_path / "one.toml"
    one.write_text('recipes = ["supervised_digits"]\nsettings = { levels = 1, length = "4it" }\n')
    words = ["sweep", str(one), "--out", str(tmp_path / "out")]
    run_command(words)
    row = next((tmp_path / "out").glob("*/rows/search.level-01.jsonl"))
    row.write_text(row.read_text()[:300])
    with pytest.raises(SystemExit) as end:
        run_command(words)
    assert end.value.code == 2
    told = capsys.readouterr()
    assert re.search(r"^error: .*search\.level-01\.jsonl, line 1 is damaged", told.err, re.MULTILINE)
    assert "one: 1 searches, 1 done" in told.out


def test_a_campaign_is_watched_by_whatever_way_its_folder_is_named(
    file: Path, single: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = next(single.glob("*/rows/*.jsonl")).parents[1]
    worker = WorkerState(host="h", pid=1, files=(str(run / "rows" / "a.jsonl"),))
    monkeypatch.chdir(single.parent)
    for out in (single, Path(single.name)):
        assert runs_at_work([worker], [], out) == {None, out / run.name}


def test_a_search_that_a_person_is_at_is_waited_for_and_stops_no_other(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (sweep,) = load_sweeps(file)
    some = replace(sweep, points=[{"subset": 0.5}], seeds=[5, 3])
    theirs = plan_search(expand(some)[0].recipe, RuntimeConfig(), tmp_path).run_dir
    ended = threading.Event()

    def end() -> None:
        wait_for(lambda: list(tmp_path.glob("*/rows/level-01.*")))
        ended.set()

    with ExitStack() as stack:
        stack.enter_context(theirs.locked(writes=True, note=lambda text: None))
        watch = threading.Thread(target=lambda: (end(), stack.close()))
        watch.start()
        rows = run_sweep(some, out=tmp_path, progress=False)
        watch.join()
    assert ended.is_set(), "the other seed's rows came while it was in hand"
    assert set(rows[rows.kind == "score"].search_seed) == {5, 3}
    told = re.findall(r"^\d\d:\d\d:\d\d (.*, seed 5)$", capsys.readouterr().out, re.MULTILINE)
    assert len(told) == 2  # once to find out, and once when it was free


def test_images_of_a_sweep_that_are_not_there_are_named_before_anything_is_written(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, nowhere = tmp_path / "out", tmp_path / "nowhere"
    words = ["sweep", str(file), "--out", str(out), "--data-root", str(nowhere)]
    with pytest.raises(BadInput, match=r"^four needs svhn: no images of svhn found; looked in .*nowhere") as refused:
        run_command(words)
    assert "\n" not in str(refused.value)
    with pytest.raises(BadInput, match=r"^four needs svhn: "):
        run_sweep(file, out=out, runtime=RuntimeConfig(data_root=nowhere), progress=False)
    assert not list(tmp_path.iterdir())
    run_command([*words, "--dry-run"])
    run_command([*words, "--launch", "print"])
    assert "4 searches in" in capsys.readouterr().out
    assert out.exists()


def test_a_campaign_that_is_finished_needs_no_images(file: Path, tmp_path: Path) -> None:
    cells, folder = expand(load_sweeps(file))[1:2], CampaignFolder(tmp_path)
    folder.begin(cells, "one", retry=False)
    ticket = tmp_path / "a-run" / "tickets" / "level-00.safetensors"
    ticket.parent.mkdir(parents=True)
    ticket.touch()
    folder.write_cell(cells[0].key, "a-run", (0,), done=True)
    folder.write_queue(4, 0, 1)
    check_data("one", cells, folder, tmp_path)
    write_json(folder.path / "queue.json", {"rows": 4, "left": 0, "samples": 0})  # as earlier versions did
    check_data("one", cells, folder, tmp_path)
    folder.write_queue(4, 2, 1)
    with pytest.raises(BadInput, match=r"^one needs svhn: "):
        check_data("one", cells, folder, tmp_path)


def test_the_time_left_is_as_planned_at_the_speed_of_the_searches_until_now(file: Path, tmp_path: Path) -> None:
    """Of a search of many cheap images and one of few dear ones, neither the images nor the speed of now would tell."""
    cells, folder = expand(load_sweeps(file))[:2], CampaignFolder(tmp_path)
    works = [CostEstimate(seconds=100.0), CostEstimate(seconds=300.0)]
    searches = dict(zip((cell.key for cell in cells), works, strict=True))
    cost = CampaignCost(searches=searches, measuring=CostEstimate(seconds=200.0))
    folder.begin(cells, "two", retry=False, cost=cost)

    def left() -> str:
        return campaign_lines(tmp_path)[0].partition("; about ")[2]

    def make_level(level: int, seconds: float) -> None:
        for name, text in (
            (f"tickets/level-{level:02d}.safetensors", ""),
            (f"rows/search.level-{level:02d}.jsonl", json.dumps({"seconds": seconds})),
        ):
            path = tmp_path / "a" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    assert left() == "", "nobody works"
    with folder.enrolled(writes=True):
        assert left() == "10 min 00 s left"  # of 600 seconds planned
        for level, seconds in enumerate((0.0, 15.0)):
            make_level(level, seconds)
        folder.write_cell(cells[0].key, "a", (10, 40, 80), done=False)
        # Half of the first has taken 15 s instead of 50.
        assert left() == "2 min 45 s left"
        make_level(2, 35.0)
        folder.write_cell(cells[0].key, "a", (10, 40, 80), done=True)
        assert left() == "4 min 10 s left"  # half as long as planned: of 300 and 200 seconds
        folder.write_queue(4, 4, 1)
        folder.count_done(2)
        assert left() == "3 min 45 s left"  # half of the rows of half of the searches
    unknown = [CostEstimate(seconds=None, forward_images=images) for images in (1000, 3000, 2000)]
    searches = dict(zip(searches, unknown[:2], strict=True))
    folder.begin(cells, "two", retry=False, cost=CampaignCost(searches=searches, measuring=unknown[2]))
    with folder.enrolled(writes=True):
        assert left() == "3 min 45 s left"  # of a device of unknown speed, by the images


def test_images_that_only_an_evaluation_needs_are_looked_for_before_the_searches(tmp_path: Path) -> None:
    lines = FILE.replace('dataset="digits", training', 'dataset="fashion_mnist", training').splitlines()
    (tmp_path / "one.py").write_text("\n".join(line for line in lines if "points" not in line))
    words = ["sweep", str(tmp_path / "one.py"), "--out", str(tmp_path / "out"), "--data-root", str(tmp_path)]
    with pytest.raises(BadInput, match=r"^one needs fashion_mnist: no images of"):
        run_command(words)
    assert not (tmp_path / "out").exists()


def test_a_dry_run_writes_nothing_and_tells_the_cells(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_command(["sweep", str(file), "--out", str(tmp_path / "out"), "--dry-run"])
    told = capsys.readouterr().out
    assert "4 searches in" in told
    assert "supervised conv3 digits, lr 1e+30, seed 0" in told
    assert "beside random, levels 0 1, seeds 0" in told
    assert not (tmp_path / "out").exists()


def test_a_piece_that_kills_its_worker_twice_is_left_alone(tmp_path: Path) -> None:
    folder = CampaignFolder(tmp_path)
    first = folder.record_failure("its worker was killed by SIGKILL", what="a", cell="k", died=True)
    assert (first.deaths, first.is_final, folder.has_failed("k")) == (1, False, False)
    second = folder.record_failure("its worker was killed by SIGKILL", what="a", cell="k", died=True)
    assert (second.deaths, second.is_final, folder.has_failed("k")) == (2, True, True)


def test_what_diverged_is_tried_again_only_when_asked(tmp_path: Path) -> None:
    folder = CampaignFolder(tmp_path)
    for key, diverged in {"a": False, "b": True}.items():
        folder.record_failure("why", what=key, cell=key, diverged=diverged)
    folder.begin([], "x", retry=False)
    assert [each.what for each in folder.failures()] == ["b"]
    folder.begin([], "x", retry=True)
    assert folder.failures() == []


def test_a_failure_is_over_when_its_files_are_there(tmp_path: Path) -> None:
    folder = CampaignFolder(tmp_path)
    folder.record_failure("why", what="a row", files=[tmp_path / "row"])
    assert [type(each) for each in folder.failures()] == [Failure]
    (tmp_path / "row").touch()
    assert folder.failures() == []


def test_a_worker_without_a_campaign_says_how_to_start_one(file: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"holds no campaign; start it without --worker"):
        run_command(["sweep", str(file), "--out", str(tmp_path / "out"), "--worker"])


def test_a_worker_that_bad_input_ends_is_shown_with_its_last_line(tmp_path: Path) -> None:
    folder = CampaignFolder(tmp_path)
    folder.begin([], "x", retry=False)
    program = "import sys; print('begun', flush=True); print('error: there is no field', file=sys.stderr); sys.exit(2)"
    launch_local([sys.executable, "-c", program], folder, workers=1)
    (line,) = [line for line in campaign_lines(tmp_path) if "worker 0" in line]
    assert line.startswith("  failed    worker 0: it ended for good; it said last: error: there is no field (")
    folder.begin([], "x", retry=False)
    launch_local([sys.executable, "-c", "print('failed: a cell'); raise SystemExit(2)"], folder, workers=1)
    assert folder.failures() == []


def test_a_file_that_is_broken_meanwhile_does_not_end_its_campaign(tmp_path: Path) -> None:
    file, out = tmp_path / "one.py", tmp_path / "out"
    settings = {"length": "4it", "rewind": "2it", "levels": 1, "subset": 0.1}
    file.write_text(f"from sslticket import Sweep\nsweep = Sweep(recipes=['supervised_digits'], settings={settings})\n")
    folder = CampaignFolder(out)
    folder.begin(expand(load_sweeps(file)), "one", retry=False)
    command = worker_command(["sweep", str(file)], folder, RuntimeConfig(), "fp32")
    file.write_text("sweep = (")
    launch_local(command, folder, workers=1)
    assert campaign_lines(out)[0].startswith("one: 1 searches, 1 done"), folder.log_file(0).read_text()
    assert folder.failures() == []


def test_more_than_one_worker_needs_a_file(file: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"workers must be 1 for a sweep that lies in no file"):
        run_sweep(load_sweeps(file), out=tmp_path / "out", workers=2)
    with pytest.raises(BadInput, match=r"--workers and --per-device must be at least 1, got 0"):
        run_command(["sweep", str(file), "--out", str(tmp_path / "out"), "--workers", "0"])
    assert not (tmp_path / "out").exists()
