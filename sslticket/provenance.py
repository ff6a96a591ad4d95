"""Where a measurement comes from: commit, library versions, command and device."""

import hashlib
import os
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_LIBRARIES = (
    *("sslticket", "torch", "torchvision", "timm", "accelerate", "nvidia-dali-cuda120", "nvidia-dali-cuda130"),
    *("numpy", "numba"),
)
_GIT_LOCATION_VARIABLES = (
    *("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_NAMESPACE", "GIT_PREFIX"),
    *("GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_CEILING_DIRECTORIES"),
)
"""Variables by which git looks at another checkout than the one it is called in."""


@cache
def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that a result depends on; those not installed are left out."""
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for library in _LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found


@cache
def git_commit(*, besides: Sequence[str] = ()) -> str:
    """The commit of the checkout that sslticket runs from, with "+changes" if files differ; "" outside a checkout.

    Args:
        besides: Files and folders of the checkout, from its root, whose changes do not count.
    """
    try:
        _run_git(
            "ls-files", "--error-unmatch", Path(__file__).name
        )  # an environment in another project's checkout is not it
        head = _run_git("rev-parse", "--short=12", "HEAD")
        changed = _run_git(
            "status", "--porcelain", "--untracked-files=no", "--", ":/", *(f":(top,exclude){path}" for path in besides)
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head + ("+changes" if changed else "")


def _run_git(*words: str) -> str:
    """What git says of the checkout around this file, whichever its variables name: hooks of others set them."""
    command = ["git", "-C", str(Path(__file__).resolve().parent), *words]
    environment = {name: value for name, value in os.environ.items() if name not in _GIT_LOCATION_VARIABLES}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()


@cache
def code_hash() -> str:
    """16 hexadecimal digits over our own files and the script that runs, wherever they lie."""
    here, digest = Path(__file__).resolve().parent, hashlib.sha256()
    files = {str(path.relative_to(here)): path for path in here.rglob("*.py")}
    script = Path(sys.argv[0])
    if script.suffix == ".py" and script.is_file():
        files["script"] = script
    for name, path in sorted(files.items()):
        digest.update(f"{name}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def command_line() -> str:
    """The command line of this process, as one could type it again; paths below the working folder are relative."""
    script = Path(sys.argv[0])
    name = script.name if os.access(script, os.X_OK) else os.path.relpath(script)
    # Bytes that the locale made no letters of are UTF-8 as a rule; what is none would keep rows out of tables.
    return shlex.join([name, *sys.argv[1:]]).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def provenance_differences(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What a row tells of where it comes from that is otherwise now, in words; "" where all is the same.

    Args:
        recorded: What a row, or a run's recipe.json, records.
        now: The same of this process: what `collect_provenance` gives, and "device" or "numerics" where they are to be
            compared.
    """
    before, here = _comparable_fields(recorded), _comparable_fields(now)
    apart = [name for name, value in before.items() if name in here and here[name] != value]
    return ", ".join(f"{name} {before[name]} (now {here[name]})" for name in apart)


def mixed_provenance_note(rows: Iterable[Mapping[str, Any]], **now: str) -> str:
    """One line for a person about rows that come from elsewhere than what this process measures; "" if none does."""
    here = collect_provenance() | now
    found = Counter(words for row in rows if (words := provenance_differences(row, here)))
    kinds = "; ".join(f"{count} with {words}" for words, count in found.most_common())
    return f"rows that are there stay, though measured otherwise: {kinds}" if kinds else ""


def _comparable_fields(recorded: Mapping[str, Any]) -> dict[str, str]:
    """By a word for each; outside a checkout nobody knows the commit, and of what is not installed the version."""
    named = {name: recorded.get(name) for name in ("commit", "code", "numerics", "device")}
    versions = recorded.get("versions")
    if isinstance(versions, Mapping):
        named |= {name: versions.get(name, "none") for name in ("python", *_LIBRARIES)}
    return {name: str(value) for name, value in named.items() if value}


def collect_provenance() -> dict[str, Any]:
    """All three, as rows and run folders carry them."""
    return {"command": command_line(), "commit": git_commit(), "versions": library_versions()}
