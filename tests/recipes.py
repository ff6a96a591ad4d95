"""The recipes in recipes/, for the tests of several files."""

import importlib.util
from pathlib import Path

from sslticket.config.recipe import Recipe

FOLDER = Path(__file__).parents[1] / "recipes"
RECIPES = sorted(path.stem for path in FOLDER.glob("*.py"))


def load(name: str) -> Recipe:
    """The recipe in recipes/NAME.py."""
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = module.recipe
    assert isinstance(found, Recipe)
    return found
