"""How long a command takes to say something, against the bare import of torch that a recipe cannot do without."""

import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

from compare import Line, NotHere, Work, alone, in_turn, not_measured
from images import Images

_ROUNDS = 2
_HELP_AT_MOST, _BEYOND_AT_MOST = 0.5, 1.5  # seconds
_RECIPE = Path(__file__).parents[1] / "recipes" / "rotnet_resnet50.py"


def lines(images: Images) -> list[Line]:
    """`sslticket --help`, and a recipe's `--help` and `--dry-run` beyond the import of torch."""
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
    except NotHere as reason:
        missing = [not_measured("recipe --dry-run", reason)]
    turns = in_turn({name: partial(_process, words) for name, words in commands.items()}, _ROUNDS)
    found = [alone(turns, "sslticket --help", ours="sslticket --help", target=_HELP_AT_MOST)]
    for name in [name for name in commands if name.startswith("recipe")]:
        beyond = [
            replace(turn, seconds=turn.seconds - bare.seconds)
            for turn, bare in zip(turns[name], turns["torch"], strict=True)
        ]
        note = "beyond `import torch`"
        found.append(alone({"ours": beyond}, f"{name}, ResNet-50 and RotNet", target=_BEYOND_AT_MOST, note=note))
    return found + missing


def _process(arguments: list[str]) -> Work:
    command = [sys.executable, *arguments]
    return lambda: subprocess.run(command, capture_output=True, check=True).returncode
