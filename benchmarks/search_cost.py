"""A whole search from start to end, as a user would start it: ours, open_lth's own loop, and TurboPrune's own loop.

All three search a narrow ResNet-8 on CIFAR-10: three trainings of 300 steps on batches of 64, a fifth of the weights
pruned after each, rewound to step 50. Each runs in a fresh process, whose processor's time counts from its start. The
other two are run from clones that are named by OPEN_LTH and TURBOPRUNE; nothing of theirs is here. open_lth needs four
small changes for today's torch, which docs/speed.md lists. TurboPrune rewinds at the end of an epoch only and takes
images by their number alone, so it rewinds to the start, and an epoch of its is a training.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median

from compare import Line, NotHere, Prepare, Timed, Work, compared, in_turn, not_measured
from images import Images

from sslticket.data.source import open_split

_ROUNDS = 2
_FASTER = {"exact": 2.5, "fast": 4.0, "early bird": 8.0}  # than open_lth
_HERE = Path(__file__).parent
_FLAGS: dict[str, tuple[str, ...]] = {
    "exact": (),
    "fast": ("--fast",),
    "early bird": ("--early-bird", "0.2", "--early-bird-window", "2", "--early-bird-every", "10it"),
}


def lines(images: Images) -> list[Line]:
    """A line for each way of ours against each of the others that is here."""
    root = images.cifar10
    os.environ["SSLTICKET_CACHE"] = str(images.scratch / "cache")
    for split in ("train", "eval"):
        open_split("cifar10", split, root)  # decodes the JPEG files into arrays, which all of them are given
    contenders: dict[str, Prepare] = {}
    for name, flags in _known_flags().items():
        contenders[name] = partial(_command, images, name, ("ours", str(root), *flags))
    found, others = [], {"open_lth": "OPEN_LTH", "TurboPrune": "TURBOPRUNE"}
    for name, variable in others.items():
        if os.environ.get(variable):
            contenders[name] = partial(_command, images, name, (name, str(root)))
        else:
            found.append(not_measured(f"a whole search, against {name}", f"set {variable} to a clone of it"))
    if not set(others) & set(contenders):
        return found
    turns = in_turn(contenders, _ROUNDS, warm=0)
    tops = {name: median(turn.told for turn in each) for name, each in turns.items()}
    for name in _known_flags():
        for other in [other for other in others if other in contenders]:
            found.append(
                compared(
                    turns,
                    f"a whole search, {name}",
                    f"{other}'s own loop",
                    ours=name,
                    other=other,
                    target=_FASTER[name] if other == "open_lth" else None,
                    unit="s",
                    note=f"top-1 {tops[name]:.1%} against {tops[other]:.1%}",
                )
            )
    return found


def _known_flags() -> dict[str, tuple[str, ...]]:
    """The ways of ours that this version has."""
    from sslticket.config.runtime import RuntimeConfig

    return {name: flags for name, flags in _FLAGS.items() if name != "fast" or hasattr(RuntimeConfig, "fast")}


def _command(images: Images, name: str, words: Sequence[str]) -> Work:
    """A search in a process and a folder of its own, which tells the time from its start to its end, and its top-1."""
    rounds = iter(range(10**6))

    def work() -> Timed:
        folder = images.scratch / f"search-{name.replace(' ', '-')}-{next(rounds)}"
        folder.mkdir()
        command = [sys.executable, str(_HERE / "search_contenders.py"), *words]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
        if done.returncode:
            last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
            raise NotHere(f"{name} ended with {done.returncode}: {''.join(last)}")
        found = json.loads(done.stdout.splitlines()[-1])
        return Timed(found["seconds"], found["top1"])

    return work
