"""How long a command takes to say something, against the bare import of torch that a recipe cannot do without."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from compare import Line, in_turn, middle, seconds
from images import Images, NoImages

_REPEATS = 5
_HELP_AT_MOST, _BEYOND_AT_MOST = 0.5, 1.5  # seconds
_RECIPE = Path(__file__).parents[1] / "recipes" / "rotnet_resnet50.py"


def lines(images: Images) -> list[Line]:
    """`sslticket --help`, and a recipe's `--help` and `--dry-run`."""
    commands = {
        "torch": ["-c", "import torch"],
        "sslticket --help": ["-m", "sslticket", "--help"],
        "recipe --help": [str(_RECIPE), "--help"],
    }
    missing: list[Line] = []
    try:
        trial = ["--length", "6it", "--levels", "2", "--batch-size", "8", "--dry-run"]
        where = ["--data-root", str(images.photographs), "--part", "1 image a class"]
        where += ["--out", str(images.scratch / "runs")]
        commands["recipe --dry-run"] = [str(_RECIPE), *trial, *where]
    except NoImages as reason:
        missing = [Line("recipe --dry-run", f"not measured: {reason}")]
    figures = in_turn({name: _process(arguments) for name, arguments in commands.items()}, _REPEATS)
    bare, alone = middle(figures, "torch"), middle(figures, "sslticket --help")
    help_line = Line("sslticket --help", f"{alone:.2f} s", "", "", f"< {_HELP_AT_MOST} s", alone < _HELP_AT_MOST)
    found = [help_line]
    for name in [name for name in commands if name.startswith("recipe")]:
        whole = middle(figures, name)
        found.append(
            Line(
                f"{name}, ResNet-50 and RotNet",
                f"{whole:.2f} s",
                f"{bare:.2f} s import torch",
                f"{whole - bare:+.2f} s",
                f"<= {_BEYOND_AT_MOST:+} s",
                whole - bare <= _BEYOND_AT_MOST,
            )
        )
    return found + missing


def _process(arguments: list[str]) -> Callable[[], float]:
    command = [sys.executable, *arguments]
    return seconds(lambda: subprocess.run(command, capture_output=True, check=True))
