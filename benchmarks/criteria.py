"""What scores before training need in memory, against the training that follows them.

Each contender is a whole search in a process of its own, with its loader, its snapshot and its tickets, and the figure
is the most memory that the process ever held.
"""

import json
import resource
import subprocess
import sys
from functools import partial
from pathlib import Path

from compare import Line, Work, compared, in_turn, told
from images import Images

_BATCH = 16  # with which what the passes keep is most of the memory
_AT_MOST = 1.1


def lines(images: Images) -> list[Line]:
    """SNIP on one batch for ResNet-50 at 224 pixels, against two training steps with momentum on batches as large."""
    turns = in_turn({name: partial(_process, name, images) for name in ("SNIP", "training")}, 1, warm=0)
    return [
        compared(
            turns,
            f"memory of SNIP, ResNet-50, 224 pixels, one batch of {_BATCH}",
            "training steps",
            ours="SNIP",
            other="training",
            kind="more",
            target=_AT_MOST,
            unit="GB",
            figure=told,
        )
    ]


def _process(name: str, images: Images) -> Work:
    command = [sys.executable, __file__, name, str(images.photographs), str(images.scratch / f"criteria-{name}")]

    def peak() -> float:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return float(json.loads(done.stdout))

    return peak


def _search(name: str, root: Path, out: Path) -> None:
    """Search as a recipe does, then print the most memory that was held, in GB."""
    from sslticket import SGD, SNIP, Data, Magnitude, OneShot, Recipe, Supervised, TrainConfig
    from sslticket.config.runtime import RuntimeConfig
    from sslticket.search.plan import plan_search
    from sslticket.search.run_search import run_search

    if name == "SNIP":
        search = OneShot(levels=1, rate=0.9, rewind="0it", scored="start", criterion=SNIP(score_images=_BATCH))
    else:
        search = OneShot(levels=1, rate=0.9, rewind="0it", scored="end", criterion=Magnitude())
    fit = TrainConfig(length="2it", batch_size=_BATCH, optimizer=SGD(lr=0.1))
    machine, data = RuntimeConfig(data_root=root), Data(dataset="imagenet", part="1 image a class")
    recipe = Recipe(model="resnet50", data=data, objective=Supervised(), training=fit, search=search)
    run_search(plan_search(recipe, machine, out), machine)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9)  # Linux counts in KiB


if __name__ == "__main__":
    _search(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
