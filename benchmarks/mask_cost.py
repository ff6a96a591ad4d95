"""What a mask adds to a training step, on five networks: steps of our loop with a mask, and without one.

All layers are dense here; what sparse layers save is in `density_cost`.
"""

from collections.abc import Callable
from functools import partial

from compare import Line, compared, in_turn
from images import Images
from steps import SameBatch, build, stepper

_DENSITY, _AT_MOST = 0.1, 1.02
# Model, channels, pixels, batch, steps a round, rounds: about ten seconds of the processor each.
_CASES = (
    ("lenet300", 1, 28, 60, 50, 25),
    ("conv6", 3, 32, 60, 2, 15),
    ("vgg19", 3, 32, 64, 1, 7),
    ("resnet18_cifar", 3, 32, 32, 1, 6),
    ("resnet20", 3, 32, 128, 1, 11),
)


def lines(images: Images) -> list[Line]:
    """A line for each network."""
    return [_line(*case) for case in _CASES]


def _line(model: str, channels: int, image_size: int, batch_size: int, steps: int, rounds: int) -> Line:
    def prepare(density: float | None) -> Callable[[], object]:
        make, noise = (
            partial(build, model, channels, image_size, density=density),
            SameBatch(batch_size, channels, image_size),
        )
        return stepper(make, noise.for_engine, batch_size, steps)

    turns = in_turn({"ours": partial(prepare, _DENSITY), "plain": partial(prepare, None)}, rounds)
    return compared(
        turns,
        f"training step, {model}, batch {batch_size}, mask of {_DENSITY:.0%}",
        "without a mask",
        other="plain",
        kind="more",
        target=_AT_MOST,
        per=steps,
    )
