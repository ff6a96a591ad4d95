"""What a level costs by its density: training steps of our loop with a mask, against the same without one.

Both compute with what a trial chooses, as at the start of a level: the layout of memory, and sparse layers of a mask.

Masks are the greatest of weights at the start, over all layers together as a search prunes: late layers keep the least.
Such masks kill few channels. Others kill many: whole filters, by the size of their weights in each layer, and SynFlow's
of 1%. Under these, steps that may leave channels out are measured against steps of the same mask with sparse layers
alone, and against the dense network.
"""

import math
from collections.abc import Sequence
from functools import partial

from compare import Line, Work, compared, in_turn
from images import Images
from steps import SameBatch, build, stepper

from sslticket.pruning import compaction, pruned_model
from sslticket.pruning.criteria import Criterion, Scores, ScoringInput, SynFlow, prune_to_level
from sslticket.pruning.mask import Mask, SparsitySchedule
from sslticket.pruning.prunable import prunable_weights
from sslticket.training.network import MaskedNetwork

# Model, channels, pixels, batch, steps a round, rounds; density and what its time must be at most of the dense.
_CASES = (
    (("lenet300", 1, 28, 60, 50, 15), ((0.2, None), (0.05, None), (0.02, 0.35))),
    (("vgg19", 3, 32, 64, 1, 7), ((0.1, None), (0.01, 0.5))),
    (("conv3", 1, 8, 128, 20, 15), ((0.1, None), (0.016, 0.7))),
    (("resnet20", 3, 32, 64, 1, 9), ((0.1, None), (0.016, 0.7))),
)


# Model, channels, pixels, batch, steps a round, rounds; and what kills its channels.
_KILLED = (
    (("vgg19", 3, 32, 64, 1, 7), "half of each layer's filters pruned"),
    (("vgg19", 3, 32, 64, 1, 7), "SynFlow at 1%"),
    (("resnet20", 3, 32, 64, 1, 9), "SynFlow at 1%"),
)


def lines(images: Images) -> list[Line]:
    """A line for each network and density, and two for each mask that kills channels."""
    found = [line for case, densities in _CASES for line in _lines(*case, densities)]
    return found + [line for case, kind in _KILLED for line in _lines_of_killed(*case, kind)]


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


def _lines_of_killed(
    model: str, channels: int, image_size: int, batch_size: int, steps: int, rounds: int, kind: str
) -> list[Line]:
    net = build(model, channels, image_size, density=1.0)
    mask = _synflow(net, channels, image_size) if kind.startswith("SynFlow") else _half_of_filters(net)

    def prepare(mask: Mask | None, *, whole: bool) -> Work:
        if whole:
            compaction.LEAST_DEAD = math.inf  # in this contender's own process
        noise = SameBatch(batch_size, channels, image_size)
        make = partial(build, model, channels, image_size, mask=mask)
        return stepper(make, noise.for_engine, batch_size, steps, tried=True)

    contenders = {
        "dense": partial(prepare, None, whole=True),
        "all channels": partial(prepare, mask, whole=True),
        "ours": partial(prepare, mask, whole=False),
    }
    turns = in_turn(contenders, rounds)
    what = f"training step, {model}, batch {batch_size}, {kind}"
    return [
        compared(
            turns, what, other, ours="ours", other=other, kind="of", target=None, per=steps, note=turns["ours"][0].told
        )
        for other in ("all channels", "dense")
    ]


def _half_of_filters(net: MaskedNetwork) -> Mask:
    """Keeps the half of each layer's filters whose weights are greatest, as torch's `ln_structured` does."""
    weights = pruned_model.read_state(net.backbone)
    kept = {}
    for name in prunable_weights(net.backbone):
        size = weights[name].flatten(1).norm(dim=1)
        filters = size >= size.median()
        kept[name] = filters.view(-1, *(1,) * (weights[name].dim() - 1)).expand(weights[name].shape).contiguous()
    return Mask(kept)


def _synflow(net: MaskedNetwork, channels: int, image_size: int) -> Mask:
    """The 1% that SynFlow keeps, in 30 rounds."""
    criterion, dense = SynFlow(rounds=30), pruned_model.current_mask(net.backbone)

    def scores(criterion: Criterion, mask: Mask) -> Scores:
        pruned_model.set_mask(net.backbone, mask)
        inputs = ScoringInput(
            backbone=net.backbone,
            channels=channels,
            image_size=image_size,
            seed=0,
            losses=lambda temperature: iter(()),
            mean_over_processes=lambda value: value,
        )
        return criterion.scores(inputs, list(mask))

    return prune_to_level(scores, criterion, SparsitySchedule(rate=0.99), dense, start=0, level=1)
