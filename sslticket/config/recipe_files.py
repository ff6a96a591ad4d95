"""Recipes and sweeps by name: those that come with the package, and those that a Python file defines.

A checkout has them in `recipes/` and `sweeps/`, an installed package inside it.
"""

import ast
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path

from sslticket.config.recipe import Recipe
from sslticket.errors import BadInput, unknown_name
from sslticket.registry import load_user_file


def published_folder(name: str) -> Path:
    """The folder of published files of a kind, "recipes" or "sweeps"."""
    package = Path(__file__).parents[1]
    inside = package / name
    return inside if inside.is_dir() else package.parent / name  # a checkout


def load_recipe(name: str | Path) -> Recipe:
    """A published recipe by its name, or one that a Python file defines.

    Args:
        name: "rotnet_resnet50", "recipes/rotnet_resnet50.py", or "mine.py:small" for one of the `recipes` of a file.

    Raises:
        BadInput: If there is no such recipe, or its file cannot be imported.
    """
    recipes = load_recipes(name)
    if len(recipes) > 1:
        raise BadInput(f"{name} defines {len(recipes)} recipes; give one of them, as {name}:{next(iter(recipes))}")
    return next(iter(recipes.values()))


def load_recipes(name: str | Path) -> Mapping[str, Recipe]:
    """The recipes that a file defines, by name, or the one that is asked for; see `load_recipe`.

    A file defines one as `recipe = Recipe(...)`, or several as `recipes = {"name": Recipe(...), ...}`.

    Raises:
        BadInput: If there is no such recipe, or its file cannot be imported.
    """
    text = str(name)
    if not isinstance(name, (str, Path)) or not text:
        given = textwrap.shorten(repr(name), 80, placeholder=" ...")
        raise BadInput(f'a recipe must be a Recipe, a name or a file, got {given}; give "rotnet_digits"')
    if re.fullmatch(r"\w+", text):
        return {text: _published_recipe(text)}
    file, _, wanted = text.rpartition(":") if re.search(r"\.py:[\w-]+$", text) else (text, "", "")
    found = _recipes_of_file(Path(file))
    if not wanted:
        return found
    if wanted not in found:
        raise unknown_name("recipe", wanted, found)
    return {wanted: found[wanted]}


def published_recipes() -> dict[str, Path]:
    """The file of each published recipe, by name; a file of its own comes before one that holds several."""
    files = sorted(published_folder("recipes").glob("*.py"))
    found: dict[str, Path] = {}
    for file in files:
        tree = ast.parse(file.read_bytes())
        for node in tree.body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                if node.targets[0].id == "recipe":
                    found[file.stem] = file
                elif node.targets[0].id == "recipes" and isinstance(node.value, ast.Dict):
                    names = [str(key.value) for key in node.value.keys if isinstance(key, ast.Constant)]
                    found = dict.fromkeys(names, file) | found
    return found


def _published_recipe(name: str) -> Recipe:
    files = published_recipes()
    if name not in files:
        raise unknown_name("recipe", name, files)
    found = _recipes_of_file(files[name])
    return found[name]


def _recipes_of_file(path: Path) -> Mapping[str, Recipe]:
    if not path.is_file() or path.suffix != ".py":
        raise BadInput(
            f"there is no recipe at {path}; give a Python file such as recipes/rotnet_resnet50.py, or the name of a "
            "published one such as rotnet_resnet50"
        )
    module = load_user_file(path)
    recipe, recipes = getattr(module, "recipe", None), getattr(module, "recipes", None)
    if isinstance(recipe, Recipe):
        return {path.stem: recipe}
    if isinstance(recipes, Mapping) and recipes and all(isinstance(each, Recipe) for each in recipes.values()):
        return recipes
    raise BadInput(f"{path} defines no recipe; a recipe file has a line that starts with: recipe = Recipe(")
