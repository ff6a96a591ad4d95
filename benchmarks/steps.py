"""Training steps as searches and evaluations take them: the engine, the network, its mask and the loop, all ours."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from sslticket import SGD, Supervised, TrainConfig, models
from sslticket.config.runtime import RuntimeConfig
from sslticket.data.loader import Batch, Loader
from sslticket.objectives.base import Objective
from sslticket.pruning import pruned_model
from sslticket.pruning.mask import Mask, num_kept
from sslticket.pruning.prunable import prunable_weights
from sslticket.training.engine import Engine
from sslticket.training.network import MaskedNetwork
from sslticket.training.progress import Progress
from sslticket.training.trial import Kernels, computing_with

CLASSES = 10
_OPEN = ExitStack()  # what a contender's process keeps open to its end


class SameBatch:
    """A loader that gives one batch of noise again and again: what a step costs does not depend on the images."""

    def __init__(self, batch_size: int, channels: int, image_size: int, views: int = 1) -> None:
        noise, shape = torch.Generator().manual_seed(0), (batch_size, channels, image_size, image_size)
        labels = torch.randint(CLASSES, (batch_size,), generator=noise)
        images = tuple(torch.randn(shape, generator=noise) for _ in range(views))
        self.batch = Batch(images, labels, torch.arange(batch_size))

    def for_engine(self, engine: Engine) -> "SameBatch":
        """The same in the layout of memory that the engine's trainings have."""
        layout = torch.channels_last if engine.kernels.channels_last else torch.contiguous_format
        self.batch = self.batch._replace(
            views=tuple(view.contiguous(memory_format=layout) for view in self.batch.views)
        )
        return self

    @property
    def unreadable(self) -> Mapping[str, str]:
        """Nothing."""
        return {}

    def train(self, start: int, stop: int) -> Iterator[Batch]:
        """The batch, for each step."""
        for _ in range(start, stop):
            yield self.batch

    def once(self) -> Iterator[Batch]:
        """The batch."""
        yield self.batch


def build(
    model: str,
    channels: int,
    image_size: int,
    *,
    density: float | None = None,
    mask: Mask | None = None,
    objective: Objective | None = None,
) -> MaskedNetwork:
    """A network with a mask, or with that of its greatest weights at this density, or without what a mask needs."""
    objective = objective or Supervised()
    if density is None and mask is None:
        torch.manual_seed(0)
        backbone = models.create_model(model, channels=channels, image_size=image_size)
        features = models.num_features(backbone, channels=channels, image_size=image_size)
        return MaskedNetwork(backbone, objective.heads(backbone, features, CLASSES), objective)
    net = MaskedNetwork.build(model, objective, channels=channels, image_size=image_size, classes=CLASSES, seed=0)
    if density is not None:
        weights = pruned_model.read_state(net.backbone)
        ones = Mask.ones_like(weights, prunable_weights(net.backbone))
        mask = Mask.top({name: weights[name].abs() for name in ones}, keep=num_kept(ones.total, density), within=ones)
    if mask is not None:
        pruned_model.set_mask(net.backbone, mask)
    return net


def stepper(
    make: Callable[[], MaskedNetwork],
    load: Callable[[Engine], Loader],
    batch_size: int,
    steps: int,
    *,
    tried: bool = False,
    set_size: int = 50_000,
) -> Callable[[], object]:
    """Work that takes so many steps of training, as the loop takes them.

    Args:
        make: Draws the network.
        load: Gives the images.
        batch_size: Images of a batch.
        steps: Steps of a round.
        tried: Whether a trial chooses layout and sparse layers, as at the start of a long training.
        set_size: Images of an epoch.
    """
    engine = Engine.create(RuntimeConfig(threads=1), "fp32")
    training = TrainConfig(length="100ep", batch_size=batch_size, optimizer=SGD(lr=0.01))
    net, kernels = make(), Kernels()
    if tried:
        path = Path(_OPEN.enter_context(TemporaryDirectory(prefix="sslticket-bench-"))) / "kernels.json"
        kernels = engine.choose_kernels(path, net, make, lambda: load(engine), training, 10_000)
    wrapped = _OPEN.enter_context(engine.prepare(net, 0, training, kernels))
    progress = _OPEN.enter_context(Progress(10**9, show=False))
    loop = engine.make_loop(net, wrapped, load(engine), training, set_size=set_size, seed=0, progress=progress)
    _OPEN.enter_context(computing_with(kernels, net))
    taken = 0

    def work() -> str:
        nonlocal taken
        loop.run(taken, taken + steps)
        taken += steps
        return str(kernels)

    return work
