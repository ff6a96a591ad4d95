"""Commands that are killed at random moments, again and again, and then run to their end: is all as if never killed?

Run       python benchmarks/kills.py --kills 100 --seed 0
Needs     nothing but scikit-learn's digits.
Cost      15 minutes on a core that does nothing else; interrupted, the same command goes on.

Each kill is a SIGKILL to a whole command and what it started, at a moment that is drawn evenly over the time that the
undisturbed command takes. A series is up to four kills of one command in one folder; then it is run to its end. Then
every file in the folder must be there and no other, with the same bytes: tickets, packed images, pages, exported
folders. Rows and logs of what was found are compared without their times. Commands are children that are forked after
the imports, so that a kill costs no start.
"""

import argparse
import gc
import importlib
import json
import os
import pkgutil
import random
import re
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Before torch is imported: a forked child has none of its parent's threads, and waiting ones must not spin.
os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}

from PIL import Image
from safetensors import safe_open
from sklearn.datasets import load_digits

import sslticket
from sslticket import provenance
from sslticket.cli import commands

_ROOT = Path(__file__).parents[1]
_LATE = ("torch._dynamo", "timm", "torchvision.datasets", "lightly.models", "huggingface_hub.hf_api", "filelock")
"""What commands import only when they need it."""
_SERIES = 4  # kills in one folder
_TIMES = ("seconds",)
_LONGEST = 300.0  # seconds of a command that is taken to hang
_EVERY = "0.002"  # minutes between two snapshots

_SHORT = ("--length", "40it", "--batch-size", "32", "--out", "runs", "--snapshot-every", _EVERY)
_RUN = (*_SHORT, "--rewind", "5it")
_DIGITS = ("run", "recipes/supervised_digits.py", *_RUN)
_EDGE_POPUP = ("run", "recipes/supervised_digits.py", *_SHORT)
_LEVELS = ("--levels", "2")
_SNIP = ("--criterion", "SNIP", "--score-images", "32")
_EARLY = ("--early-bird", "0.95", "--early-bird-window", "2", "--early-bird-every", "3it")
_LEARNT = ("--rounds", "2")
_PACKED = ("--short-side", "6", "--shard-size", "100")
_MEASURED = ("--protocol", "own", "--levels", "0", "2", "--seeds", "0", "--snapshot-every", _EVERY)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A command that is killed.

    Attributes:
        words: What is typed after `sslticket`.
        needs: What the folder holds before it is started: tickets in "runs", their "rows" too, or "images".
    """

    words: tuple[str, ...]
    needs: str = ""


SUBJECTS = {
    "search IMP": Subject(words=(*_DIGITS, *_LEVELS)),
    "search IMP, RotNet": Subject(words=("run", "recipes/rotnet_digits.py", *_RUN, *_LEVELS)),
    "search IMP, BYOL, finetune": Subject(words=(*_DIGITS, *_LEVELS, "--objective", "BYOL", "--retrain", "finetune")),
    "search IMP, early bird": Subject(words=(*_DIGITS, *_LEVELS, *_EARLY)),
    "search one-shot, SNIP": Subject(words=(*_DIGITS, "--search", "OneShot", *_LEVELS, *_SNIP)),
    "search one-shot, SynFlow": Subject(
        words=(*_DIGITS, "--search", "OneShot", *_LEVELS, "--criterion", "SynFlow", "--criterion.rounds", "5")
    ),
    "search CS": Subject(words=(*_DIGITS, "--search", "ContinuousSparsification", *_LEARNT)),
    "search ISS": Subject(words=(*_DIGITS, "--search", "StochasticSparsification", *_LEARNT)),
    "search MaskTraining": Subject(words=(*_DIGITS, "--search", "MaskTraining", *_LEARNT)),
    "search EdgePopup": Subject(words=(*_EDGE_POPUP, "--search", "EdgePopup", "--density", "0.25")),
    "evaluate": Subject(words=("evaluate", "runs", *_MEASURED, "--controls", "random", "adjusted"), needs="runs"),
    "analyse stability": Subject(words=("analyse", "stability", "runs", *_MEASURED), needs="runs"),
    "analyse connectivity": Subject(words=("analyse", "connectivity", "runs", *_MEASURED), needs="runs"),
    "analyse overlap": Subject(words=("analyse", "overlap", "runs", "--levels", "1-2", "--pairs", "all"), needs="runs"),
    "data pack": Subject(
        words=("data", "pack", "folder:digits", "shards", "--data-root", "images", *_PACKED), needs="images"
    ),
    "report": Subject(
        words=("report", "runs", "-o", "report.html", "--figures", "figures", "--format", "png", "--latex", "t.tex"),
        needs="rows",
    ),
    "rows": Subject(words=("rows", "runs", "-o", "rows.csv"), needs="rows"),
    "export": Subject(words=("export", "TICKET", "exported"), needs="runs"),
}


class Kills:
    """The series of all subjects, in a folder that keeps what is done."""

    def __init__(self, out: Path, seed: int) -> None:
        self._out, self._seed = out, seed
        self._log = out / "series.jsonl"
        self._done = [json.loads(line) for line in self._log.read_text().splitlines()] if self._log.exists() else []

    def run(self, names: Sequence[str], kills: int) -> list[dict[str, Any]]:
        """The records of all series, those of earlier calls included."""
        shares = Counter(names[number % len(names)] for number in range(kills))
        wanted = []
        for name in names:
            whole, rest = divmod(shares[name], _SERIES)
            wanted += [(name, number, count) for number, count in enumerate([_SERIES] * whole + [rest]) if count]
        records = []
        for name, number, count in wanted:
            known = {"command": name, "series": number, "kills": count, "seed": self._seed}
            record = next((each for each in self._done if known.items() <= each.items()), None)
            if record is None:
                record = known | self._series(name, number, count)
                with self._log.open("a", encoding="utf-8") as log:
                    log.write(json.dumps(record) + "\n")
                print(_told(record), flush=True)
            records.append(record)
        return records

    def _series(self, name: str, number: int, kills: int) -> dict[str, Any]:
        whole, seconds = self._undisturbed(name)
        draws = random.Random(f"{self._seed} {name} {number}")
        folder = self._out / _path_name(name) / f"series-{number}"
        moments, resumed, differences, files = list[float](), 0, list[str](), 0
        while len(moments) < kills:
            self._prepare(name, folder)
            ended = False
            while len(moments) < kills and not ended:
                moment, began = draws.uniform(0, seconds), time.monotonic()
                ended = self._start(name, folder, moment) is not None
                if ended:
                    seconds = min(seconds, time.monotonic() - began)  # on a machine that is less busy by now
                else:
                    moments.append(round(moment, 2))
            code = self._start(name, folder, None)  # a command that had ended does nothing more
            if code != 0:
                differences.append(f"ended with code {code}")
            resumed += (folder.parent / f"{folder.name}.log").read_text(errors="replace").count("goes on from the snap")
            found = contents(folder)
            files += len(found)
            differences += [path for path in sorted({*found, *whole}) if found.get(path) != whole.get(path)]
        if not differences:
            shutil.rmtree(folder)
        return {"moments": moments, "resumed": resumed, "files": files, "differences": differences}

    def _undisturbed(self, name: str) -> tuple[dict[str, object], float]:
        """What the command leaves if nobody kills it, and the seconds that it takes."""
        folder = self._out / _path_name(name) / "whole"
        timed = folder.parent / "seconds"
        if not timed.exists():
            self._prepare(name, folder)
            began = time.monotonic()
            if code := self._start(name, folder, None):
                log = (folder.parent / f"{folder.name}.log").read_text(errors="replace")
                sys.exit(f"error: the undisturbed {name} ended with code {code}:\n{log[-2000:]}")
            timed.write_text(f"{time.monotonic() - began:.3f}")
        return contents(folder), float(timed.read_text())

    def _prepare(self, name: str, folder: Path) -> None:
        """Makes a command's folder, with what it needs."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        (folder.parent / f"{folder.name}.log").unlink(missing_ok=True)
        needs = SUBJECTS[name].needs
        if needs in ("runs", "rows"):
            self._undisturbed("search IMP" if needs == "runs" else "evaluate")
            shutil.copytree(self._out / _path_name("search IMP" if needs == "runs" else "evaluate") / "whole", folder)
        elif needs == "images":
            _write_digits(folder / "images" / "train")
        folder.mkdir(exist_ok=True)

    def _start(self, name: str, folder: Path, moment: float | None) -> int | None:
        """Runs a command in a child; returns its exit code, or None where it was killed at the moment."""
        log = (folder.parent / f"{folder.name}.log").absolute()
        ticket = next((str(path.relative_to(folder)) for path in sorted(folder.glob("runs/*/tickets/*-02.*"))), "")
        words = [ticket if word == "TICKET" else word for word in SUBJECTS[name].words]
        child = os.fork()
        if child == 0:
            _become(words, folder, log)
        with suppress(OSError):  # the child does it as well, whoever comes first
            os.setpgid(child, child)
        began, status = time.monotonic(), None
        limit = _LONGEST if moment is None else moment
        while status is None and time.monotonic() - began < limit:
            pid, ended = os.waitpid(child, os.WNOHANG)
            status = os.waitstatus_to_exitcode(ended) if pid else None
            if status is None:
                time.sleep(0.002)
        if status is not None:
            return status
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return None if moment is not None else -signal.SIGKILL


def _become(words: Sequence[str], folder: Path, log: Path) -> None:
    """Makes this process, a child, the command; never returns."""
    code = 1
    try:
        os.setpgid(0, 0)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.chdir(folder)
        sys.argv = ["sslticket", *(str(_ROOT / word) if word.startswith("recipes/") else word for word in words)]
        commands.main()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def contents(folder: Path) -> dict[str, object]:
    """Every file below a folder; rows and other JSON without times."""
    return {str(path.relative_to(folder)): _content(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def _content(path: Path) -> object:
    if path.suffix == ".jsonl":
        return {name: value for name, value in json.loads(path.read_text()).items() if name not in _TIMES}
    if path.suffix == ".safetensors" and path.parent.name in ("natural", "endpoints"):
        # Their headers tell what the training took, and have a hash of all of it.
        with safe_open(path, "numpy") as file:
            told = re.sub(r'"(seconds|hash)": ("\w+"|[\d.e-]+)', "", json.dumps(file.metadata()).replace("\\", ""))
            return told, {name: file.get_tensor(name).tobytes() for name in file.keys()}  # noqa: SIM118
    return path.read_bytes()


def _write_digits(folder: Path) -> None:
    digits = load_digits()
    for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        path = folder / str(label) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 255 / 16).astype("uint8")).convert("RGB").save(path)


def _path_name(name: str) -> str:
    return name.replace(",", "").replace(" ", "-")


def _told(record: dict[str, Any]) -> str:
    moments = ", ".join(f"{moment:.2f}" for moment in record["moments"])
    different = f"{len(record['differences'])} differences"
    if record["differences"]:
        different += f": {', '.join(record['differences'][:5])}"
    return f"{record['command']} {record['series']}: killed after {moments} s; {record['files']} files, {different}"


def table(records: Sequence[dict[str, Any]]) -> str:
    """The counts by command, as Markdown."""
    lines = ["| command | kills | went on inside a training | files | differences |", "|---|---:|---:|---:|---:|"]
    totals = Counter[str]()
    for name in dict.fromkeys(record["command"] for record in records):
        own = [record for record in records if record["command"] == name]
        counts = {key: sum(record[key] for record in own) for key in ("kills", "resumed", "files")}
        counts["differences"] = sum(len(record["differences"]) for record in own)
        totals.update(counts)
        lines.append(f"| {name} | {' | '.join(map(str, counts.values()))} |")
    keys = ("kills", "resumed", "files", "differences")
    return "\n".join([*lines, f"| all | {' | '.join(str(totals[key]) for key in keys)} |"])


def main(words: Sequence[str]) -> int:
    """Kills, compares and prints; returns the exit code, 1 where anything differed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="in all [100]")
    parser.add_argument("--seed", type=int, default=0, help="of the moments [0]")
    parser.add_argument("--out", type=Path, default=Path("runs/kills"), help="where it works and goes on [runs/kills]")
    parser.add_argument("--only", nargs="+", choices=SUBJECTS, default=list(SUBJECTS), metavar="COMMAND")
    given = parser.parse_args(words)
    given.out.mkdir(parents=True, exist_ok=True)
    for name in (*_LATE, *(module.name for module in pkgutil.walk_packages(sslticket.__path__, "sslticket."))):
        if not name.endswith("__main__"):
            importlib.import_module(name)
    gc.freeze()  # or each child would copy all of it to look for garbage
    print(f"commit {provenance.git_commit() or 'unknown'}, seed {given.seed}", flush=True)
    records = Kills(given.out.absolute(), given.seed).run(given.only, given.kills)
    print(table(records))
    return int(any(record["differences"] for record in records))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
