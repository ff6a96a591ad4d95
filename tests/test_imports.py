"""Imports go down only, those for type checkers too; docs/architecture.md has the table of layers, checked here."""

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "sslticket"
PAGE = ROOT.parent / "docs" / "architecture.md"

LAYERS = (
    ("escaping",),
    ("errors",),
    ("storage",),
    ("registry", "seeds", "provenance", "processes", "hub"),
    ("data", "models", "pruning"),
    ("config",),
    ("ticket",),
    ("objectives",),
    ("training",),
    ("results",),
    ("search", "evaluation"),
    ("analysis",),
    ("report",),
    ("export", "importing"),
    ("campaign",),
    ("api",),
    ("cli",),
)
"""Packages and modules from below: each may import those of lower layers only."""
LAYER = {package: number for number, packages in enumerate(LAYERS) for package in packages}
WITHOUT_TORCH = (
    "api",
    "config.recipe",
    "config.runtime",
    "config.training",
    "data.augment",
    "data.datasets.catalogue",
    "data.manifest",
    "errors",
    "escaping",
    "hub",
    "processes",
    "provenance",
    "registry",
    "seeds",
    "storage.files",
    "training.progress",
)


def modules() -> dict[str, Path]:
    return {
        ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted(ROOT.rglob("*.py"))
    }


MODULES = modules()


def imported(path: Path) -> set[str]:
    """Modules of ours that a file imports anywhere, be it inside a function or for type checkers."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "sslticket":
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (names & MODULES.keys()) or {node.module}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "sslticket"}
    return found


def package(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def test_every_package_has_its_layer() -> None:
    assert {package(module) for module in MODULES} - {"", "__main__"} == LAYER.keys()


def test_no_package_imports_one_of_its_own_layer_or_above() -> None:
    upward = [
        f"{own} imports {other}"
        for own, path in MODULES.items()
        if own not in ("sslticket", "sslticket.__main__")
        for other in imported(path)
        if package(other) != package(own) and not LAYER.get(package(other), len(LAYERS)) < LAYER[package(own)]
    ]
    assert upward == []


def circles(arrows: dict[str, set[str]]) -> Iterator[str]:
    def reaches(start: str, goal: str, seen: set[str]) -> bool:
        for other in arrows.get(start, set()) - seen:
            seen.add(other)
            if other == goal or reaches(other, goal, seen):
                return True
        return False

    yield from (module for module in arrows if reaches(module, module, set()))


def test_no_module_imports_itself_by_way_of_others() -> None:
    arrows = {module: imported(path) for module, path in MODULES.items() if module != "sslticket"}
    assert list(circles(arrows)) == []


def test_a_circle_is_seen() -> None:
    assert list(circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}})) == ["b", "c"]


def test_no_file_name_is_in_two_packages() -> None:
    places = defaultdict(list)
    for path in MODULES.values():
        places[path.name].append(path.relative_to(ROOT).as_posix())
    twice = {name: found for name, found in places.items() if len(found) > 1}
    assert twice.keys() <= {"__init__.py", "base.py"}, twice


def table() -> str:
    """The layers from above, as docs/architecture.md has them, with the first sentence of each package's docstring."""
    lines = ["| layer | package | what it is |", "|---|---|---|"]
    for number, packages in reversed(list(enumerate(LAYERS, 1))):
        for name in packages:
            doc = ast.get_docstring(ast.parse(MODULES[f"sslticket.{name}"].read_text(encoding="utf-8"))) or ""
            sentence = " ".join(doc.split("\n\n")[0].split()).replace("|", "\\|")
            lines.append(f"| {number} | `{name}` | {sentence} |")
    return "\n".join(lines)


def test_the_page_on_architecture_has_the_layers() -> None:
    if table() not in PAGE.read_text(encoding="utf-8"):
        pytest.fail(f"docs/architecture.md must have this table (python tests/test_imports.py writes it):\n{table()}")


def test_what_starts_at_once_imports_no_torch() -> None:
    names = ", ".join(f"sslticket.{name}" for name in WITHOUT_TORCH)
    script = f"import sys, sslticket, sslticket.cli.commands, {names}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_help_imports_no_numpy() -> None:
    script = "import sys, sslticket.cli.commands; print({'numpy', 'pandas', 'torch'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


if __name__ == "__main__":
    before, _, rest = PAGE.read_text(encoding="utf-8").partition("| layer | package |")
    lines = rest.split("\n")
    after = lines[next(number for number, line in enumerate(lines[1:], 1) if not line.startswith("|")) :]
    PAGE.write_text(before + table() + "\n" + "\n".join(after), encoding="utf-8")
