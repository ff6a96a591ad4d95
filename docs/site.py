"""Hook of the docs site: pages outside `docs/`, links to source files, the reference of the flags and of the API."""

import argparse
import ast
import posixpath
import re
from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

from sslticket.analysis import ANALYSES
from sslticket.cli.commands import make_parser
from sslticket.cli.recipe_commands import _recipe_parser
from sslticket.config.flags import CHOICES, choose_parts
from sslticket.config.recipe_files import load_recipes
from sslticket.registry import registry_of

ROOT = Path(__file__).parents[1]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "datasets/README.md": "datasets.md",
    "examples/README.md": "examples.md",
    "examples/zoo/README.md": "zoo.md",
    "recipes/README.md": "recipes.md",
}
"""Pages of the site by their files in the repository; those in docs/ have their own names."""

FLAGS = "flags.md"
"""The page with every flag, which is made here."""

SOURCES = ("sslticket", "recipes", "sweeps", "examples", "experiments", "benchmarks", "tests")
"""Folders whose files the pages link to; a copy of each file that is linked to is part of the site."""

_LINK = re.compile(r"(?<=\]\()([^)\s#]+)?(#[^)\s]*)?(?=\))")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages from outside docs/, the reference of flags and API, and the files that pages link to."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    files.append(File.generated(config, FLAGS, content=flags_reference()))
    for package, page in api_pages().items():
        files.append(File.generated(config, page, content=api_reference(package)))
    linked = {target for page in [*files.documentation_pages()] for target in _linked_sources(page)}
    for target in sorted(linked):
        files.append(File.generated(config, f"source/{target}", abs_src_path=str(ROOT / target)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Point the links of a page, which are right in the repository, to their places in the site."""

    def replaced(match: re.Match[str]) -> str:
        link, anchor = match.group(1), match.group(2) or ""
        target = _target(page.file, link or "")
        if target is None:
            return match.group(0)
        place = PAGES.get(target) or (
            target.removeprefix("docs/") if target.startswith("docs/") else f"source/{target}"
        )
        return posixpath.relpath(place, posixpath.dirname(page.file.src_uri) or ".") + anchor

    return _LINK.sub(replaced, markdown)


def on_config(config: Any) -> Any:
    """Put the pages of the API reference, which are made here, into the navigation."""
    (reference,) = (entry["Reference"] for entry in config.nav if "Reference" in entry)
    reference.append({"API": [{package: page} for package, page in api_pages().items()]})
    return config


def flags_reference() -> str:
    """Every flag of every command, from the parsers themselves, and of every part that a recipe can have."""
    recipe = next(iter(load_recipes("supervised_resnet50").values()))
    parser = _recipe_parser(recipe)
    shown = {name for action in parser._actions for name in action.option_strings}
    lines = [
        "# Flags",
        "",
        "Made from the commands themselves: what `--help` prints. In brackets is the default, of the recipe "
        "`supervised_resnet50` where it is a recipe's. [Running](running.md#flags) tells how to choose.",
        "",
        "## sslticket run RECIPE",
        "",
        "`sslticket show RECIPE` takes the same.",
        "",
        *_table(parser._actions),
    ]
    for kind in CHOICES:
        if kind == "gate":  # of the one search that has gates to choose; its own flags are shown with it
            recipe = choose_parts(recipe, ["--search", "MaskTraining"])
            shown |= {name for action in _recipe_parser(recipe)._actions for name in action.option_strings}
        registry = registry_of(kind)
        for name in filter(registry.is_built_in, registry.names()):  # a user's own are on no page of ours
            actions = _recipe_parser(choose_parts(recipe, [f"--{kind}", name]))._actions
            own = [action for action in actions if not shown.issuperset(action.option_strings)]
            if own:
                lines += [f"### --{kind} {name}", "", "Beside or in place of those above:", "", *_table(own)]
    for command, each in _commands(make_parser()):
        if table := _table(each._actions):
            lines += [f"## {command}", "", *([f"{each.description.strip()}", ""] if each.description else []), *table]
    return "\n".join(lines)


def _commands(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Each command with its parser, those of a command's own commands too; not those whose flags are the recipe's."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            if parser.prog == "sslticket analyse":  # makes its parsers when their names are typed
                action.choices.update({name: action.choices[name] for name in (*ANALYSES.names(), "rewind")})
            for each in action.choices.values():
                if each.prog.split()[-1] != "run":
                    yield each.prog, each
                    yield from _commands(each)


def _table(actions: Iterable[argparse.Action]) -> list[str]:
    rows = []
    for action in actions:
        if action.help == argparse.SUPPRESS or isinstance(action, argparse._HelpAction | argparse._SubParsersAction):
            continue
        values = " ".join(map(str, action.choices or ())) or (action.metavar if isinstance(action.metavar, str) else "")
        names = ", ".join(f"`{name}`" for name in action.option_strings) or f"`{action.metavar or action.dest}`"
        takes = "" if action.nargs == 0 or not action.option_strings else values or action.dest.upper()
        told = escape((action.help or "").replace("%%", "%"), quote=False).replace("|", "\\|").replace("\n", " ")
        told = re.sub(r"([*_\[\]])", r"\\\1", told)
        rows.append(f"| {names} | {escape(takes, quote=False)} | {told} |")
    return ["| flag | value | what |", "|---|---|---|", *rows, ""] if rows else []


def api_pages() -> dict[str, str]:
    """The page of each package: "sslticket.pruning" -> "api/pruning.md"."""
    packages = sorted({path.parent for path in (ROOT / "sslticket").rglob("*.py") if _is_public(path)})
    names = [".".join(package.relative_to(ROOT).parts) for package in packages]
    return {name: f"api/{name.partition('.')[2] or 'sslticket'}.md" for name in names}


def api_reference(package: str) -> str:
    """Every module of a package with a public definition, as directives that mkdocstrings fills."""
    folder = ROOT / package.replace(".", "/")
    lines = [f"# `{package}`", ""]
    for path in sorted(path for path in folder.glob("*.py") if _is_public(path)):
        lines += [f"::: {package}.{path.stem}", "    options:", "      heading_level: 2", ""]
    return "\n".join(lines)


def _is_public(path: Path) -> bool:
    """Whether a module defines a function or class whose name does not begin with an underscore."""
    if path.name.startswith("__"):
        return False
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return any(isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_" for node in tree.body)


def _repository_path(file: File) -> str:
    """Where a page lies in the repository."""
    by_page = {page: source for source, page in PAGES.items()}
    return by_page.get(file.src_uri, f"docs/{file.src_uri}")


def _target(file: File, link: str) -> str | None:
    """The file of the repository that a link leads to; None if it leads elsewhere or to no file."""
    if not link or re.match(r"[a-z]+:", link):
        return None
    target = posixpath.normpath(posixpath.join(posixpath.dirname(_repository_path(file)), link))
    return target if (ROOT / target).is_file() else None


def _linked_sources(file: File) -> list[str]:
    if file.src_uri.startswith("api/") or file.src_uri == FLAGS:
        return []
    found = (_target(file, match.group(1) or "") for match in _LINK.finditer(file.content_string))
    pages = {*PAGES}
    return [target for target in found if target and not target.startswith("docs/") and target not in pages]
