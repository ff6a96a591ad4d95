"""Hook of the docs site: pages that lie outside `docs/`, links to source files, and the API reference."""

import ast
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "datasets/README.md": "datasets.md",
    "examples/README.md": "examples.md",
    "recipes/README.md": "recipes.md",
}
"""Pages of the site by their files in the repository; those in docs/ have their own names."""

SOURCES = ("sslticket", "recipes", "sweeps", "examples", "experiments", "benchmarks", "tests")
"""Folders whose files the pages link to; a copy of each file that is linked to is part of the site."""

_LINK = re.compile(r"(?<=\]\()([^)\s#]+)?(#[^)\s]*)?(?=\))")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages from outside docs/, the API reference, and the files that pages link to."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
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
    config.nav.append({"API": [{package: page} for package, page in api_pages().items()]})
    return config


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
    if file.src_uri.startswith("api/"):
        return []
    found = (_target(file, match.group(1) or "") for match in _LINK.finditer(file.content_string))
    pages = {*PAGES}
    return [target for target in found if target and not target.startswith("docs/") and target not in pages]
