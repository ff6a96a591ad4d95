"""Configuration: recipes, training settings and runtime settings, as frozen dataclasses that need no torch."""
