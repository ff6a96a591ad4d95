"""What the world outside refuses, and how it ends a command: one line with the file and the fix, and code 2."""

import errno
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import SafetensorError

from sslticket import provenance
from sslticket.api import load_recipe
from sslticket.cli import commands
from sslticket.cli.exit_status import run_and_exit
from sslticket.cli.recipe_commands import run_with_flags
from sslticket.config.runtime import RuntimeConfig
from sslticket.errors import BadInput, WriteError, system_error_message
from sslticket.search.plan import plan_search
from sslticket.search.run_search import run_search
from sslticket.storage.files import write_row
from sslticket.ticket import Ticket
from tests.report.conftest import SCORE, SHARED
from tests.runs import recipe

ROOT = Path(__file__).parents[2]
AGAIN = "the same command goes on from what is finished"
SHORT = ("--length", "6it", "--levels", "1", "--batch-size", "8", "--rewind", "2it")


def started(*words: object, **given: object) -> subprocess.Popen[str]:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    process: subprocess.Popen[str] = subprocess.Popen(
        [str(word) for word in words],
        cwd=ROOT,
        text=True,
        **({"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": environment} | given),  # type: ignore[call-overload]
    )
    return process


def ended(command: Callable[[], object], capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    """The exit code of a command in this process, and the last line that it told."""
    with pytest.raises(SystemExit) as end:
        run_and_exit(lambda: [command(), None][1])  # type: ignore[arg-type]
    assert isinstance(end.value.code, int)
    return end.value.code, capsys.readouterr().err.splitlines()[-1:]


@pytest.mark.parametrize(
    ("number", "why"),
    [
        (errno.ENOSPC, "no space is left on the device; free some, or give DIR; "),
        (errno.EDQUOT, "the quota is used up; free some, or give DIR; "),
        (errno.EFBIG, "it would be larger than a file may be; raise the limit (ulimit -f), or give DIR; "),
        (errno.EROFS, "the file system is read-only; give DIR; "),
        (errno.EACCES, "permission is denied; change its permissions, or give DIR; "),
        (errno.ENAMETOOLONG, "the name is too long; give DIR; "),
        (errno.EMFILE, "this process may not have so many files open; raise the limit (ulimit -n); "),
        (errno.ESTALE, "its file system does not answer as it should; look after it; "),
        (errno.ENXIO, "No such device or address; give DIR; "),
    ],
)
def test_every_refusal_names_the_file_why_and_what_helps(number: int, why: str) -> None:
    told = system_error_message(WriteError(number, os.strerror(number), "runs/a.csv"), "DIR")
    assert told == f"cannot write runs/a.csv: {why}{AGAIN}"
    assert system_error_message(OSError(number, "", "x"), "DIR") == f"x: {why}{AGAIN}"


def test_libraries_that_tell_of_the_system_in_words_are_understood() -> None:
    error = SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    assert str(system_error_message(error)).startswith("no space is left on the device; ")
    assert str(system_error_message(RuntimeError("can't start new thread"))).startswith(
        "the system has no more processes"
    )
    assert str(system_error_message(OSError("cannot identify image file"))).startswith("cannot identify image file; ")
    assert "set PYTHONUTF8=1" in str(
        system_error_message(UnicodeDecodeError("ascii", b"\xc3", 0, 1, "ordinal not in range"))
    )
    assert "set HOME" in str(system_error_message(RuntimeError("Could not determine home directory.")))
    assert system_error_message(RuntimeError("shapes differ")) is None
    assert system_error_message(KeyError("x")) is None


@pytest.mark.parametrize("act", ["replace", "fsync"])
def test_a_file_system_that_fails_ends_a_search_in_one_line_and_it_goes_on_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], act: str
) -> None:
    planned = plan_search(recipe(), RuntimeConfig(), tmp_path)
    real, calls = (Path.replace if act == "replace" else os.fsync), 0

    def fails(*given: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 6:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return real(*given)  # type: ignore[arg-type, type-var]

    with monkeypatch.context() as patched:
        patched.setattr(Path if act == "replace" else os, act, fails)
        code, (line,) = ended(lambda: run_search(planned, RuntimeConfig()), capsys)
    assert code == 2
    named = re.fullmatch(r"error: cannot write (\S+): its file system does not answer as it should; .*", line)
    assert named is not None
    assert planned.run_dir.path in Path(named[1]).parents
    assert ".part" not in line
    assert not list(tmp_path.rglob("*.part"))
    run_search(planned, RuntimeConfig())
    assert Ticket.load(planned.run_dir.ticket_path(3)).level == 3


@pytest.mark.parametrize("kilobytes", [1, 70])
def test_a_search_that_may_write_no_larger_files_names_the_first_and_goes_on_when_it_may(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kilobytes: int
) -> None:
    words = [*SHORT, "--out", str(tmp_path)]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes * 1024, hard))
    try:
        with pytest.raises(SystemExit) as end:
            run_and_exit(
                lambda: run_with_flags(load_recipe(ROOT / "recipes/supervised_digits.py"), words),
                "another folder with --out",
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert end.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    (folder,) = tmp_path.iterdir()
    name = {1: "recipe.json", 70: "early.safetensors"}[kilobytes]
    why = "it would be larger than a file may be; raise the limit (ulimit -f), or give another folder with --out"
    assert line == f"error: cannot write {folder / name}: {why}; {AGAIN}"
    assert not list(folder.rglob("*.part"))
    run_with_flags(load_recipe(ROOT / "recipes/supervised_digits.py"), words)
    assert (folder / "tickets" / "level-01.safetensors").exists()


LONG = "n" * 300


@pytest.mark.parametrize(
    ("out", "why"),
    [
        ("file/runs", "a file lies where a folder has to be"),
        ("circle/runs", "its symbolic links lead in a circle"),
        (LONG, "the name is too long"),
        ("/proc/runs", "it is not there, or is gone"),
    ],
    ids=["below a file", "circle", "long", "proc"],
)
def test_a_place_that_cannot_be_is_told_with_the_flag(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, out: str, why: str
) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "circle").symlink_to("circle")
    monkeypatch.chdir(tmp_path)
    found = load_recipe(ROOT / "recipes/supervised_digits.py")
    with pytest.raises(SystemExit) as end:
        run_and_exit(lambda: run_with_flags(found, [*SHORT, "--out", out]), "another folder with --out")
    line = capsys.readouterr().err.splitlines()[-1]
    assert end.value.code == 2
    assert why in line
    assert "give another folder with --out" in line
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("out", ["file/rows.csv", f"{LONG}.csv", "/proc/rows.csv", "file/rows.html", "/proc/rows.html"])
def test_a_table_or_a_page_that_cannot_be_written_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    write_row(tmp_path / "runs" / "x" / "rows" / "a.jsonl", SHARED | SCORE)
    (tmp_path / "file").write_text("mine")
    monkeypatch.chdir(tmp_path)
    command = "report" if out.endswith(".html") else "rows"
    code, (line,) = ended(lambda: commands.run_command([command, "runs", "-o", out]), capsys)
    assert code == 2
    assert line.startswith("error: ")
    assert line.endswith(f", or give another place; {AGAIN}") or "too long" in line
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["file", "runs"]


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_standard_output_is_told_and_a_full_standard_error_forgiven(unbuffered: str) -> None:
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    command = (sys.executable, "-m", "sslticket", "data", "list")
    with Path("/dev/full").open("w") as full:
        done = started(*command, stdout=full, env=environment)
        _, errors = done.communicate(timeout=60)
        assert done.returncode == 2
        assert errors.startswith("error: cannot write standard output: no space is left on the device; free some")
        done = started(*command, stderr=full, env=environment)
        told, _ = done.communicate(timeout=60)
        assert done.returncode == 0
        assert "imagenet" in told


@pytest.mark.slow
def test_streams_that_are_closed_are_no_error_and_no_file_takes_their_place(tmp_path: Path) -> None:
    words = f"{sys.executable} recipes/supervised_digits.py {' '.join(SHORT)} --out {tmp_path}"
    done = started("bash", "-c", f"{words} <&- >&- 2>&-")
    done.communicate(timeout=120)
    assert done.returncode == 0
    assert len(list(tmp_path.glob("*/tickets/*"))) == 2
    assert all(Ticket.load(path) for path in tmp_path.glob("*/tickets/*"))


def test_letters_that_the_terminal_lacks_are_written_as_numbers(tmp_path: Path) -> None:
    environment = os.environ | {
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONIOENCODING": "ascii",
    }
    folder = tmp_path / "läufe"
    (folder / "x" / "rows").mkdir(parents=True)
    done = started(sys.executable, "-m", "sslticket", "watch", folder, env=environment)
    told, errors = done.communicate(timeout=60)
    assert (done.returncode, errors) == (0, "")
    assert "l\\" in told or "läufe" in told


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_says_where_the_search_is_and_ends_it_with_its_code(tmp_path: Path, number: signal.Signals) -> None:
    """Those of time limits and preemption with the code at which a scheduler starts it again."""
    words = ("--length", "100000it", "--rewind", "2it", "--batch-size", "8", "--out", tmp_path)
    search = started(sys.executable, "recipes/supervised_digits.py", *words)
    while not list(tmp_path.glob("*/tickets/level-00.safetensors")):
        assert search.poll() is None
        time.sleep(0.05)
    time.sleep(0.5)
    search.send_signal(number)
    _, errors = search.communicate(timeout=60)
    assert search.returncode == (130 if number == signal.SIGINT else 75)
    last = errors.splitlines()[-1]
    how = "interrupted" if number == signal.SIGINT else f"stopped by {number.name}"
    assert last.startswith(f"{how} in level 1/6 at step ")
    assert last.endswith(" of 100,000; the same command goes on from there")
    assert "Traceback" not in errors
    assert len(list(tmp_path.rglob("search.level-01.step-*.safetensors"))) == 1
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_while_a_recipes_libraries_are_imported_is_one_line(tmp_path: Path, number: signal.Signals) -> None:
    # Its own name for a module that every network needs, so that the moment is certain.
    (tmp_path / "torch.py").write_text(f"import os; os.kill(os.getpid(), {int(number)})\n")
    how = "interrupted" if number == signal.SIGINT else f"stopped by {number.name}"
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = started(sys.executable, "recipes/supervised_digits.py", "--out", tmp_path, env=environment)
    assert done.communicate(timeout=60) == ("", f"{how} before anything was begun\n")
    assert done.returncode == 128 + number


def test_under_nohup_a_closed_terminal_ends_nothing() -> None:
    code = (
        "import os, signal; signal.signal(signal.SIGHUP, signal.SIG_IGN);"
        "from sslticket.cli.exit_status import run_and_exit; run_and_exit(lambda: os.kill(os.getpid(), signal.SIGHUP))"
    )
    done = started(sys.executable, "-c", code)
    assert done.communicate(timeout=60) == ("", "")
    assert done.returncode == 0


def test_a_folder_whose_name_is_no_text_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    out = tmp_path / os.fsdecode(b"l\xe4ufe")
    with pytest.raises(BadInput, match="are no UTF-8, and tickets there could not be opened; give another folder"):
        plan_search(recipe(), RuntimeConfig(), out)
    assert not out.exists()
    plan_search(recipe(), RuntimeConfig(), tmp_path / "l\xe4ufe")


def test_a_command_in_any_locale_is_text_in_rows_and_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["sslticket", os.fsdecode("l\xe4".encode()), "a\udcff"])
    assert provenance.command_line().endswith("sslticket 'l\xe4' 'a\\xff'")
    write_row(tmp_path / "runs" / "x" / "rows" / "a.jsonl", SHARED | SCORE | {"command": "sslticket l\udcc3\udca4"})
    commands.run_command(["rows", str(tmp_path / "runs"), "-o", str(tmp_path / "rows.csv")])
    assert "sslticket l\xe4" in (tmp_path / "rows.csv").read_text(encoding="utf-8")
    commands.run_command(["report", str(tmp_path / "runs"), "-o", str(tmp_path / "page.html")])
    assert (tmp_path / "page.html").read_text(encoding="utf-8")
