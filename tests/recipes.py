"""The recipes in recipes/, for the tests of several files."""

from pathlib import Path

from sslticket.config.recipe_files import load_recipe as load
from sslticket.config.recipe_files import published_recipes

__all__ = ["FOLDER", "RECIPES", "load"]

FOLDER = Path(__file__).parents[1] / "recipes"
RECIPES = sorted(published_recipes())
