"""The recipes of the repository are part of the wheel; everything else is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithRecipes(build_py):
    """Put recipes/ into the package, so that `sslticket run NAME` finds them where only the package is installed."""

    def run(self) -> None:
        """Build as usual, then copy the recipes."""
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib, "sslticket", "recipes")
            target.mkdir(parents=True, exist_ok=True)
            for file in sorted(Path(__file__).parent.joinpath("recipes").glob("*.py")):
                shutil.copyfile(file, target / file.name)


setup(cmdclass={"build_py": BuildWithRecipes})
