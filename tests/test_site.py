"""The docs site: its first page runs as it stands, and what it says of other tools and of flags is in the code."""

import dataclasses
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import sslticket
from tests.test_snippets import PAGES, ROOT, blocks, check_command, commands

DOCS = ROOT / "docs"
PROGRAMS = re.compile(r"(\$ )?(sslticket|python3?|accelerate|torchrun|make|pip|uv|docker|apptainer|srun|hf) \S")
LIBRARIES = [path for path in sys.path if path.endswith("site-packages")]


def table_cells(page: Path, column: str) -> Iterator[str]:
    """What is set as code in the cells of a column, over all tables of a page that have it."""
    place = None
    for line in page.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if not cells:
            place = None
        elif column in cells:
            place = cells.index(column)
        elif place is not None:
            yield from re.findall(r"`([^`]+)`", cells[place])


@pytest.fixture(scope="module")
def site() -> ModuleType:
    pytest.importorskip("mkdocs")
    spec = importlib.util.spec_from_file_location("docs_site", DOCS / "site.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def flags_page(site: ModuleType) -> str:
    text: str = site.flags_reference()
    return text


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("old") / "runs"
    with tarfile.open(ROOT / "tests" / "old_runs" / "runs-0.1.0.tar.xz") as archive:
        archive.extractall(place, filter="data")
    return place


def test_every_command_and_part_has_its_flags_on_the_page(flags_page: str) -> None:
    headings = set(re.findall(r"^##+ (.*)$", flags_page, re.MULTILINE))
    for name in ("evaluate", "analyse stability", "analyse rewind", "sweep", "report", "import", "data pack"):
        assert f"sslticket {name}" in headings
    assert {"--objective SimCLR", "--search OneShot", "--gate TopKMask", "--optimizer Adam"} <= headings
    for page in PAGES:
        for line in commands(page):
            known = re.findall(r"(?<=\s)--[a-z][\w.-]*(?=[\s=]|$)", line.partition(" -- ")[0].partition("#")[0])
            if line.startswith("sslticket ") and ".py:" not in line:
                for flag in known:
                    assert f"`{flag}`" in flags_page or flag == "--help", (page.name, line)


def test_what_another_tool_has_is_called_here_as_the_page_says(flags_page: str, runs: Path) -> None:
    controls = sslticket.CONTROLS.names()
    rows = re.findall(r"^\| `(\w+)` \|", (DOCS / "rows.md").read_text(), re.MULTILINE)
    said = list(table_cells(DOCS / "from-another-tool.md", "here"))
    assert len(said) > 100
    for text in said:
        if text.startswith("--"):
            for flag in re.findall(r"--[\w.-]+", text):
                assert f"`{flag}`" in flags_page or flag == "--help", text
            check_command(["run", "supervised_resnet50", *shlex.split(text)]) if is_whole(text) else None
        elif "sslticket " in text:
            check_command(shlex.split(text.partition("sslticket ")[2]))
        elif text.startswith("runs/KEY/"):
            assert list(runs.glob(text.replace("runs/KEY", "*"))), text
        elif "/" in text:
            assert (ROOT / text).exists(), text
        elif text[0].isupper():
            kind, _, name = text.partition(".")
            if name not in {field.name for field in dataclasses.fields(sslticket.Sweep)}:
                eval(text, {each: getattr(sslticket, each) for each in sslticket.__all__})
            else:
                assert kind == "Sweep", text
        else:
            assert text in controls or text in rows, text


def is_whole(flags: str) -> bool:
    """Whether flags can stand as they are behind a recipe: each has its value, and none needs another part."""
    bare = ("--seed", "--exclude", "--dataset", "--help", "--levels")
    return flags not in bare and not re.search(r"folder:|--help", flags)


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: page.stem)
def test_a_page_with_commands_says_what_they_need(page: Path) -> None:
    lines = [line for text in blocks(page, python=False) for line in text.splitlines()]
    if page.name != "speed.md" and any(map(PROGRAMS.match, lines)):
        assert re.search(r"^Needs: .+\.", page.read_text(), re.MULTILINE)


@pytest.mark.slow
def test_the_first_page_runs_from_installing_to_a_ticket_in_use(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", minversion="77")
    clone = tmp_path / "clone"
    clone.mkdir()
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / name, clone)
    for name in ("sslticket", "recipes", "sweeps"):
        shutil.copytree(ROOT / name, clone / name, ignore=shutil.ignore_patterns("__pycache__"))
    # Packages that this interpreter has are found and not fetched; sslticket itself comes from the copy. pip reads 0 as
    # no isolation.
    kept = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    kept |= {"PYTHONPATH": os.pathsep.join(LIBRARIES), "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"}
    kept |= {"HOME": str(tmp_path), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    page = DOCS / "start.md"
    steps = [text for text in blocks(page, python=False) if not text.startswith("density")]
    assert len(steps) == 5
    kept |= {"PYTHON_OF_THE_PAGE": "\n".join(blocks(page, python=True))}
    script = "".join(["set -e\n", *steps, 'python -c "$PYTHON_OF_THE_PAGE"\n', "command -v sslticket\n"])
    done = subprocess.run(["bash", "-c", script], cwd=clone, env=kept, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for said in (
        "1,746 of 13,968 prunable weights",
        "4 rows measured",
        "report: report.html",
        "1,746 weights are left",
    ):
        assert said in done.stdout
    assert done.stdout.splitlines()[-1] == str(clone / ".venv" / "bin" / "sslticket")
    assert (clone / "report.html").exists()
