"""Whole commands in processes of their own: exit codes, kills, two processes, and the main job on photographs."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sslticket.ticket import Ticket

ROOT = Path(__file__).parents[2]
SHORT = ["--length", "6it", "--levels", "2", "--batch-size", "8"]


def command(*words: object, **variables: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [str(word) for word in words],
        cwd=ROOT,
        env=os.environ | {"PATH": path} | variables,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def recipe(name: str, *words: object, **variables: str) -> subprocess.CompletedProcess[str]:
    return command(sys.executable, f"recipes/{name}.py", *words, **variables)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.glob("*/tickets/*"))}


def test_bad_input_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    done = recipe("rotnet_digits", "--subst", "0.1", "--out", tmp_path / "runs")
    assert done.returncode == 2
    assert done.stderr == "error: unknown flag '--subst'; did you mean --subset or --subset-by or --subset-list?\n"
    assert not (tmp_path / "runs").exists()


def test_a_diverged_search_says_where_and_leaves_no_ticket(tmp_path: Path) -> None:
    done = recipe("supervised_digits", "--lr", "1e30", "--out", tmp_path)
    assert done.returncode == 3
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: the loss is ")
    assert "of 200 with learning rate 1e+30; the last finite loss was" in last
    assert tree(tmp_path) == {}
    assert not list(tmp_path.rglob("level-*.safetensors"))


def test_a_search_whose_statistics_alone_overflow_has_diverged_too(tmp_path: Path) -> None:
    done = recipe("supervised_digits", "--lr", "1e9", "--length", "100it", "--levels", 1, "--out", tmp_path)
    assert done.returncode == 3, "Adam's loss stays finite, and batch norm's variance does not"
    assert "error: the network is not finite after step 30 of 100" in done.stderr
    assert not list(tmp_path.rglob("level-*.safetensors"))


def test_killed_at_any_moment_and_started_again_it_ends_with_the_same_tickets(tmp_path: Path) -> None:
    words = ["rotnet_digits", "--length", "60it", "--levels", 3, "--seed", 5]
    assert recipe(*words, "--out", tmp_path / "whole").returncode == 0  # type: ignore[arg-type]
    script = [sys.executable, "recipes/rotnet_digits.py", *map(str, words[1:]), "--out", str(tmp_path / "killed")]
    kills = 0
    for number in range(3):
        process = subprocess.Popen(script, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and len([*tmp_path.glob("killed/*/tickets/*.safetensors")]) <= number:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
    assert kills, "it was never caught at work"
    assert recipe(*words, "--out", tmp_path / "killed").returncode == 0  # type: ignore[arg-type]
    assert tree(tmp_path / "killed") == tree(tmp_path / "whole")
    assert not list((tmp_path / "killed").rglob("*.part")), "remains of a killed writer"


def test_two_processes_find_the_ticket_that_one_finds(tmp_path: Path) -> None:
    """LeNet has no batch norm, so only the joined batch matters; sums in another order give the tolerance."""
    words = ["recipes/supervised_digits.py", "--model", "lenet300", "--lr", "1e-3", "--length", "12it", "--levels", "1"]
    one = command(sys.executable, *words, "--out", tmp_path / "one", OMP_NUM_THREADS="1")
    two = command(
        *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", 2, "--master-port", 29_517, *words),
        *("--out", tmp_path / "two"),
        OMP_NUM_THREADS="1",
    )
    assert (one.returncode, two.returncode) == (0, 0), two.stderr[-2000:]
    for level in range(2):
        ours, theirs = (
            Ticket.load(next((tmp_path / name).glob(f"*/tickets/level-{level:02d}.safetensors")))
            for name in ("one", "two")
        )
        for name, value in ours.weights.items():
            both = (ours.mask[name] & theirs.mask[name]) if name in ours.mask else ...
            assert (value[both] - theirs.weights[name][both]).abs().max() < 1e-4
        differ = sum(int((ours.mask[name] ^ theirs.mask[name]).sum()) for name in ours.mask)
        assert differ <= 0.001 * ours.mask.total


@pytest.fixture
def few(photographs: Path, tmp_path: Path) -> Path:
    """A dozen photographs of a class each, and beside each a truncated one; whole ones only for evaluation."""
    root = tmp_path / "imagenet"
    for photograph in sorted(photographs.glob("train/*/*.JPEG"))[:12]:
        for split in ("train", "val"):
            folder = root / split / photograph.parent.name
            folder.mkdir(parents=True)
            (folder / photograph.name).symlink_to(photograph)
        (root / "train" / photograph.parent.name / "cut_off.JPEG").write_bytes(photograph.read_bytes()[:5000])
    return root


@pytest.mark.data
@pytest.mark.slow
def test_the_main_job_runs_on_real_photographs_from_search_to_report(few: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    searched = command(
        *("accelerate", "launch", "recipes/rotnet_resnet50.py", "--subset", "0.5", "--subset-by", "classes"),
        *("--length", "6it", "--levels", "2", "--batch-size", "8", "--image-size", "64"),
        *("--part", "12 classes", "--data-root", few, "--out", runs),
    )
    assert searched.returncode == 0, searched.stderr[-2000:]
    assert "6 images could not be read" in searched.stdout
    assert searched.stdout.count("cut_off.JPEG: ") == 6, "each is named"
    (run,) = runs.iterdir()
    found = [Ticket.load(path) for path in sorted((run / "tickets").iterdir())]
    assert [ticket.mask.survivors for ticket in found] == [round(23_454_912 * 0.8**level) for level in range(3)]
    assert (found[2].provenance["images"], found[2].provenance["classes"]) == (12, 6)
    scored = command(
        *("sslticket", "evaluate", run, "--protocol", "imagenet-trial", "--levels", "2"),
        *("--part", "12 classes", "--data-root", few),
    )
    assert scored.returncode == 0, scored.stderr[-2000:]
    page = tmp_path / "report.html"
    drawn = command("sslticket", "report", runs, "-o", page)
    assert drawn.returncode == 0, drawn.stderr[-2000:]
    assert "rotnet 50% of classes" in page.read_text(encoding="utf-8")
    assert "imagenet[12 classes]" in page.read_text(encoding="utf-8")
    (row,) = [json.loads(path.read_text()) for path in run.glob("rows/level-*.jsonl")]
    assert (row["source"], row["target"], row["protocol"]) == (*["imagenet[12 classes]"] * 2, "imagenet-trial")
    assert drawn.stdout.splitlines()[-1] == f"report: {page}"


@pytest.mark.data
def test_more_bad_images_than_allowed_end_a_search(few: Path, tmp_path: Path) -> None:
    done = recipe(
        *("rotnet_resnet50", *SHORT, "--image-size", 32, "--max-bad-images", 3),  # type: ignore[arg-type]
        *("--part", "12 classes", "--data-root", few, "--out", tmp_path),
    )
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert "unreadable images of imagenet must be at most 3" in last
    assert "or raise --max-bad-images" in last
    assert not list(tmp_path.glob("*/tickets/*"))


def test_help_of_the_command_needs_no_torch() -> None:
    script = (
        "from sslticket.cli.commands import run_command; run_command([]); import sys; print('torch' in sys.modules)"
    )
    assert command(sys.executable, "-c", script).stdout.splitlines()[-1] == "False"
