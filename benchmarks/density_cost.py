"""What a level costs by its density: training steps of our loop with a mask, against the same without one.

Both compute with what a trial chooses, as at the start of a level: the layout of memory, and sparse layers of a mask.

Masks are the greatest of weights at the start, over all layers together as a search prunes: late layers keep the least.
"""

from collections.abc import Sequence
from functools import partial

from compare import Line, Work, compared, in_turn
from images import Images
from steps import SameBatch, build, stepper

# Model, channels, pixels, batch, steps a round, rounds; density and what its time must be at most of the dense.
_CASES = (
    (("lenet300", 1, 28, 60, 50, 15), ((0.2, None), (0.05, None), (0.02, 0.35))),
    (("vgg19", 3, 32, 64, 1, 7), ((0.1, None), (0.01, 0.5))),
    (("conv3", 1, 8, 128, 20, 15), ((0.1, None), (0.016, 0.7))),
    (("resnet20", 3, 32, 64, 1, 9), ((0.1, None), (0.016, 0.7))),
)


def lines(images: Images) -> list[Line]:
    """A line for each network and density."""
    return [line for case, densities in _CASES for line in _lines(*case, densities)]


def _lines(
    model: str,
    channels: int,
    image_size: int,
    batch_size: int,
    steps: int,
    rounds: int,
    densities: Sequence[tuple[float, float | None]],
) -> list[Line]:
    def prepare(density: float | None) -> Work:
        make, noise = (
            partial(build, model, channels, image_size, density=density),
            SameBatch(batch_size, channels, image_size),
        )
        return stepper(make, noise.for_engine, batch_size, steps, tried=True)

    contenders = {f"{density:g}": partial(prepare, density) for density, _ in densities}
    turns = in_turn({"dense": partial(prepare, None), **contenders}, rounds)
    return [
        compared(
            turns,
            f"training step, {model}, batch {batch_size}, density {density:.1%}",
            "dense",
            ours=f"{density:g}",
            other="dense",
            kind="of",
            target=target,
            per=steps,
            note=turns[f"{density:g}"][0].told,
        )
        for density, target in densities
    ]
