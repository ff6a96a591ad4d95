"""Imports go down only: the house has floors, and no room knows what is above it."""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent / "sslticket"

FLOORS = (
    ("escaping",),
    ("errors",),
    ("files",),
    ("randomness", "units", "origin", "plain", "processes", "surroundings", "tensors"),
    ("machine", "status", "hub", "headers", "fit", "data", "models", "masking"),
    ("recipe", "ticket"),
    ("objectives",),
    ("training",),
    ("search", "evaluation", "report"),
    ("sharing", "analysis"),
    ("cli",),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
PURE = (
    "units",
    "plain",
    "fit",
    "recipe",
    "files",
    "status",
    "escaping",
    "errors",
    "randomness",
    "machine",
    "origin",
    "processes",
    "surroundings",
    "hub",
    "data.inputs",
    "data.manifest",
    "data.views",
    "data.transforms",
)


def imported(path: Path) -> set[str]:
    """Modules of ours that a file needs when it runs; what only type checkers import does not count."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    checked = {
        child
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for child in ast.walk(node)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if node in checked:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "sslticket":
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name for name in names if is_module(name)} or {node.module}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "sslticket"}
    return found


def is_module(name: str) -> bool:
    path = ROOT.parent / name.replace(".", "/")
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def test_no_arrow_runs_up() -> None:
    wrong = []
    for path in ROOT.rglob("*.py"):
        own = ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")
        if own in ("sslticket", "sslticket.__main__"):
            continue
        wrong += [
            f"{own} imports {other}"
            for other in imported(path)
            if room(other) != room(own) and not FLOOR[room(other)] < FLOOR[room(own)]
        ]
    assert not wrong


def test_no_circles_within_a_room() -> None:
    arrows = {
        ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"): imported(path)
        for path in ROOT.rglob("*.py")
    }

    def reaches(start: str, goal: str, seen: set[str]) -> bool:
        return any(
            other == goal or (other not in seen and reaches(other, goal, seen | {other}))
            for other in arrows.get(start, set())
        )

    assert [module for module in arrows if module != "sslticket" and reaches(module, module, {module})] == []


def test_what_starts_at_once_imports_no_torch() -> None:
    modules = ", ".join(f"sslticket.{name}" for name in PURE)
    script = f"import sys, sslticket, sslticket.cli.commands, {modules}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
