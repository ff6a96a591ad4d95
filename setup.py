"""The recipes and sweeps of the repository are part of the wheel; everything else is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithRecipes(build_py):
    """Put recipes/ and sweeps/ into the package, where `sslticket run NAME` and `sslticket sweep NAME` find them."""

    def run(self) -> None:
        """Build as usual, then copy them."""
        super().run()
        if not self.editable_mode:
            root = Path(__file__).parent
            for file in sorted([*root.glob("recipes/*.py"), *root.glob("sweeps/**/*.py"), *root.glob("sweeps/*.toml")]):
                target = Path(self.build_lib, "sslticket", file.relative_to(root))
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)


setup(cmdclass={"build_py": BuildWithRecipes})
