"""What the pages show works: Python blocks are executed, and the commands in the others are parsed."""

import re
import shlex
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sslticket.cli import recipe_commands
from sslticket.cli.commands import make_parser, run_command
from sslticket.config import flags
from sslticket.config.recipe import Recipe
from sslticket.config.recipe_files import load_recipes
from tests.export.conftest import made

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "datasets/README.md", "recipes/README.md")),
    ROOT / "examples" / "README.md",
    ROOT / "examples" / "zoo" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
_RECIPE = re.compile(r"(?:python|accelerate launch(?: --\w+ \S+)*|torchrun(?: --[\w-]+ \S+)*) (\S+\.py)(.*)")

_LAUNCHED = re.compile(
    r"^(?:for \w+ in [\d ]+; do )?(?:(?:accelerate launch|torchrun)(?: --[\w-]+ \S+)* -m |python -m )?(?=sslticket )"
)


def blocks(page: Path, *, python: bool) -> list[str]:
    return [text for kind, text in _BLOCK.findall(page.read_text()) if (kind == "python") == python]


def commands(page: Path) -> list[str]:
    """The lines of a page that run a recipe or `sslticket`; in sentences, those that name a recipe."""
    lines = [line for text in blocks(page, python=False) for line in text.replace("\\\n", " ").splitlines()]
    found = [_LAUNCHED.sub("", line.removeprefix("$ ").strip()).replace("$seed", "0") for line in lines]
    found = [line.removesuffix("; done") for line in found]
    found = [line for line in found if re.match(r"sslticket \w", line) or runs_a_recipe(line)]
    named = re.findall(r"`((?:sslticket|python|accelerate launch|torchrun) [^`\n]+)`", page.read_text())
    found += [line for line in named if re.match(r"sslticket (run|show) ", line) or runs_a_recipe(line)]
    # NAME, RECIPE, PAPER and mine.py stand for what the reader has.
    return [line for line in found if not re.search(r"\b(NAME|RECIPE|PAPER|mine)\b", line)]


def runs_a_recipe(line: str) -> bool:
    match = _RECIPE.match(line)
    return match is not None and match[1].startswith(("recipes/", "examples/"))


def with_python(page: Path) -> bool:
    return bool(blocks(page, python=True))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the files that the pages name: runs on digits, and tickets of the large networks."""
    place = tmp_path_factory.mktemp("pages")
    with tarfile.open(Path(__file__).parent / "old_runs" / "runs-0.1.0.tar.xz") as archive:
        archive.extractall(place / "runs", filter="data")
    run = next((place / "runs").glob("rotnet-*"))
    (place / "level-03.safetensors").write_bytes((run / "tickets" / "level-02.safetensors").read_bytes())
    (place / "examples").symlink_to(ROOT / "examples")
    (place / "page" / "<key>" / "tickets").mkdir(parents=True)
    (place / "runs" / "<key>").symlink_to(place / "page" / "<key>")
    made("resnet50", "imagenet", image_size=224).save(place / "page" / "<key>" / "tickets" / "level-21.safetensors")
    (place / "resnet50-0.01.safetensors").symlink_to(place / "page" / "<key>" / "tickets" / "level-21.safetensors")
    made("resnet18", "imagenet", image_size=224).save(place / "resnet18.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        run_command(["rows", str(run), "-o", "rows.parquet"])
        run_command(["export", "resnet18.safetensors", "my-ticket"])
        run_command(["export", "my-ticket", "plain.safetensors"])
        run_command(["export", "my-ticket", "pruned.pt", "--format", "prune"])
        patch.setattr(sys, "argv", ["", "level-03.safetensors"])
        yield place


@pytest.mark.parametrize("page", [page for page in PAGES if with_python(page)], ids=lambda page: page.stem)
def test_python_on_a_page_runs(page: Path, folder: Path) -> None:
    names: dict[str, Any] = {"__name__": page.stem}
    for text in blocks(page, python=True):
        exec(compile(text, f"{page.name}: {text[:40]!r}", "exec"), names)


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=lambda page: page.stem)
def test_commands_on_a_page_have_the_flags_that_there_are(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # where examples/ is
    for line in commands(page):
        words = shlex.split(line, comments=True)
        words = [word for word in words if word not in ("&", "...", "--help")]
        if words[0] == "sslticket":
            check_command(words[1:])
            continue
        match = _RECIPE.match(" ".join(words))
        assert match
        check_recipe(load_recipes(ROOT / match[1]), match[2].split())


def check_command(words: list[str]) -> None:
    if words[0] in ("run", "show"):
        name = words[1] if re.fullmatch(r"\w+", words[1]) else str(ROOT / words[1])
        own = re.compile(r"-o \S+|--images \S+|--sheet-width \S+")
        check_recipe(load_recipes(name), own.sub("", " ".join(words[2:])).split())
    else:
        make_parser().parse_args(words)


def check_recipe(recipes: Any, words: list[str]) -> None:
    if len(recipes) > 1 and words and words[0] in recipes:
        recipes, words = {words[0]: recipes[words[0]]}, words[1:]
    for recipe in recipes.values():
        assert isinstance(recipe, Recipe)
        chosen = flags.choose_parts(recipe, words)
        recipe_commands._recipe_parser(chosen).parse_args([word for word in words if word != "..."])
