"""What a search comes to before it runs: trainings, steps, images, time, memory and files, with or without its images.

Nothing here opens images. Counts are those of the images where a plan has opened them, and else the catalogue's.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from sslticket.config.recipe import Data, Recipe
from sslticket.config.runtime import RuntimeConfig
from sslticket.config.training import Clock, Span
from sslticket.data.augment import View
from sslticket.data.datasets.base import Dataset
from sslticket.data.datasets.catalogue import get_dataset
from sslticket.data.loader import Batch, LabelledStream, Sampler
from sslticket.data.manifest import ImageCounts
from sslticket.data.source import known_counts
from sslticket.data.subset_lists import count_listed
from sslticket.errors import BadInput
from sslticket.objectives.base import Objective, objective_of
from sslticket.pruning import pruned_model
from sslticket.pruning.mask import Mask
from sslticket.results.throughput import (
    LEARNT_SEARCHES,
    ROW_BYTES,
    CostEstimate,
    Row,
    Throughput,
    Workload,
    device_name,
    measured_seconds,
    multiply_adds_of,
    network_shape,
    num_features,
    training_multiply_adds,
)
from sslticket.search.base import SUBSET_REWIND, TRIAL_REWIND, Search, Stages, search_of
from sslticket.training.memory import MemoryEstimate, ShapeOnlyMode, optimizer_entries
from sslticket.training.network import MaskedNetwork, PassCounter
from sslticket.training.numerics import Numerics

_HEADER_BYTES, _TENSOR_BYTES = 1_600, 135  # of a ticket's header, without its tensors, and for each of these
_PACKED = 0.82  # of floats, where their highest bytes are packed


def planned_counts(data: Data, data_root: Path | None = None) -> tuple[ImageCounts, ImageCounts, ImageCounts]:
    """The published numbers of a recipe's training images: of the whole set, of its half, and of what it trains on.

    Raises:
        BadInput: If nobody publishes any, or the recipe's choice leaves none.
    """
    whole = known_counts(data.dataset, "train", data_root, data.part)
    one = whole if data.half is None else whole.half(data.half)
    if data.subset_list is not None:
        listed, classes = count_listed(data.subset_list)
        share = min(1.0, listed / len(one.per_class))
        return whole, one, one.subset(share, "classes") if classes else one.first(listed)
    if data.shots is not None:
        return whole, one, one.take_shots(data.shots)
    return whole, one, one.subset(data.subset, data.subset_by)


def num_known_labels(data: Data, counts: ImageCounts) -> int:
    """How many of the images have a label that may be used."""
    if data.labels_list is not None:
        listed, classes = count_listed(data.labels_list)
        return round(len(counts) * min(1.0, listed / len(counts.per_class))) if classes else min(listed, len(counts))
    if data.label_shots is not None:
        return len(counts.take_shots(data.label_shots))
    return counts.num_labelled(data.labels)


@dataclass(frozen=True, kw_only=True)
class Passes:
    """The images that go through the backbone and its copies for each source image.

    Attributes:
        training: For each size in pixels, those that go forward and those of them that come back, in a training step.
        measuring: For each size, those that go forward for an image that is measured.
        classifies: Whether a layer tells the images' classes, which tickets have.
        backbones: The backbone and its copies, such as a momentum encoder's.
    """

    training: tuple[tuple[int, float, float], ...]
    measuring: tuple[tuple[int, float], ...]
    classifies: bool = False
    backbones: int = 1

    @property
    def forward(self) -> float:
        """Images forward for a source image of a training step."""
        return sum(forward for _, forward, _ in self.training)

    @classmethod
    def count(
        cls, objective: Objective, views: Sequence[View], *, channels: int, batch_size: int, labelled: float | None
    ) -> "Passes":
        """Counts them by the objective's own loss and metrics, on images of a few pixels through one layer.

        Args:
            objective: The objective.
            views: The views of an image that it gets.
            channels: Channels of the images.
            batch_size: Images of a batch; matters with a labelled stream alone.
            labelled: Fraction of a batch that is labelled; None where there is one stream.
        """
        # Kept by their text: whatever a user's objective holds, its settings are in it.
        sizes = tuple(view.size for view in views)
        key = (type(objective), repr(objective), sizes, channels, labelled and (labelled, batch_size))
        if key not in _COUNTED:
            _COUNTED[key] = _count_passes(objective, sizes, channels, batch_size, labelled)
        return _COUNTED[key]


_COUNTED: dict[object, Passes] = {}
_TINY_FEATURES, _TINY_BATCH = 16, 8


class _Recorder(PassCounter):
    """Notes the size of every image that goes through, and whether gradients come back through it."""

    def __init__(self, network: nn.Module) -> None:
        self.forward = self.backward = 0
        self.seen: list[tuple[int, int, bool]] = []
        for backbone in pruned_model.backbone_and_copies(network):
            backbone.register_forward_hook(self._note)

    def _note(self, module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        self.seen.append((given[0].shape[-1], len(output), output.requires_grad))


class _RecordedNetwork(MaskedNetwork):
    counter_class = _Recorder


class _TinyBackbone(nn.Module):
    """Takes images of any size: one layer for each pixel, and the mean. To MAE and iBOT a pixel is a patch."""

    patch_tokens = True
    num_prefix_tokens, embed_dim = 0, _TINY_FEATURES

    def __init__(self, channels: int, image_size: int) -> None:
        super().__init__()
        self.patch_embed = _TinyPatches(channels, image_size)
        self.patch_drop, self.norm = nn.Identity(), nn.LayerNorm(_TINY_FEATURES)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) -> features (B, F)."""
        features: Tensor = self.norm(self.patch_drop(self.patch_embed(images))).mean(dim=1)
        return features


class _TinyPatches(nn.Module):
    patch_size = (1, 1)

    def __init__(self, channels: int, image_size: int) -> None:
        super().__init__()
        self.proj, self.grid_size = nn.Conv2d(channels, _TINY_FEATURES, 1), (image_size, image_size)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) -> a token for each pixel, (B, H * W, F)."""
        pixels: Tensor = self.proj(images)
        return pixels.flatten(2).transpose(1, 2)


def _count_passes(
    objective: Objective, sizes: tuple[int, ...], channels: int, batch_size: int, labelled: float | None
) -> Passes:
    """See `Passes.count`; an objective that does not work so has each view forward and back once."""
    count = batch_size if labelled is not None else max(_TINY_BATCH, objective.min_images)
    tiny = {size: number + 2 for number, size in enumerate(sorted(set(sizes)))}
    size_of = {small: size for size, small in tiny.items()}
    rows, label = torch.arange(count), torch.zeros(count, dtype=torch.int64)
    if labelled is not None:
        rows = torch.from_numpy(Sampler(2 * count, count, 0, labelled=LabelledStream(count, labelled)).indices(0))
        label = torch.where(rows < count, 0, -1)
    images = tuple(torch.zeros(count, channels, tiny[size], tiny[size]) for size in sizes)
    try:
        with ShapeOnlyMode(), torch.random.fork_rng(devices=[]):
            backbone = _TinyBackbone(channels, tiny[sizes[0]])
            network = _RecordedNetwork(backbone, objective.heads(backbone, _TINY_FEATURES, 10), objective)
            recorder = network.passes
            assert isinstance(recorder, _Recorder), "the network's class says which counter it has"
            network(Batch(images, label, rows), 0.0)
            trained, recorder.seen = recorder.seen, []
            with torch.no_grad():
                network.eval()
                shown = images[: objective.views_compared]
                objective.metrics(network, Batch(shown, label.clamp(min=0), rows))
    except Exception:  # whatever a user's own objective may raise
        each = tuple((size, 1.0, 1.0) for size in sizes)
        return Passes(training=each, measuring=((sizes[0], 1.0),))

    def by_size(seen: list[tuple[int, int, bool]]) -> dict[int, tuple[float, float]]:
        found: dict[int, tuple[float, float]] = {}
        for small, number, back in seen:
            forward, backward = found.get(size_of[small], (0.0, 0.0))
            found[size_of[small]] = forward + number / count, backward + (number / count if back else 0.0)
        return found

    return Passes(
        training=tuple((size, *both) for size, both in by_size(trained).items()),
        measuring=tuple((size, forward) for size, (forward, _) in by_size(recorder.seen).items()),
        classifies=network.classifier is not None,
        backbones=sum(1 for _ in pruned_model.backbone_and_copies(network)),
    )


@dataclass(frozen=True, kw_only=True)
class SearchWork:
    """A search in numbers, whether its images are here or not.

    Attributes:
        recipe: The recipe.
        dataset: Its data set, with the channels that the network sees.
        views: The views of each image.
        classes: Number of classes.
        clock: The clock of one training in full length.
        stages: Steps of every level.
        scoring: Source images used for scores alone.
        images: Images that are trained on, each once.
        evaluation: Images that are measured at the end of a training.
        labelled: Fraction of a batch that is labelled; None where there is one stream.
        numerics: How trainings compute.
        devices: Processes that train together.
        about: Whether the numbers of images are only about right.
    """

    recipe: Recipe
    dataset: Dataset
    views: tuple[View, ...]
    classes: int
    clock: Clock
    stages: Stages
    scoring: int
    images: int
    evaluation: int
    labelled: float | None
    numerics: str
    devices: int = 1
    about: bool = False

    @classmethod
    def of_recipe(
        cls,
        recipe: Recipe,
        runtime: RuntimeConfig,
        *,
        numerics: str = "",
        trial: bool = False,
        rewind_given: bool = False,
    ) -> "SearchWork":
        """A search on the images of the catalogue's counts.

        Args:
            recipe: The recipe.
            runtime: How the machine computes.
            numerics: How trainings compute; "" for what they would on this machine.
            trial: As for `plan_search`.
            rewind_given: As for `plan_search`.

        Raises:
            BadInput: If the numbers are not published, or the search cannot be done with them.
        """
        data, objective, labelled = recipe.data, objective_of(recipe), objective_of(recipe).labelled_fraction
        full, one, counts = planned_counts(data, runtime.data_root)

        def epoch(images: ImageCounts, batch_size: int) -> int:
            if labelled is None:
                return len(images)
            return LabelledStream(num_known_labels(data, images), labelled).samples_per_epoch(batch_size)

        is_part = len(counts) < len(one)
        recipe = recipe.hold_lengths(
            epoch(one, recipe.training.held_batch) if is_part or recipe.training.holds_all else None
        )
        training = recipe.training
        dataset = get_dataset(data.dataset)
        views = recipe.views(dataset.train_view)
        if data.channels is not None:
            dataset = replace(dataset, channels=data.channels)
        clock = training.clock(epoch(counts, training.batch_size))
        few = is_part or (labelled is not None and num_known_labels(data, counts) < len(counts))
        whole = epoch(one, training.batch_size) if few and not rewind_given else None
        recipe, _ = rewound_within(recipe, clock, trial=trial, whole=whole)
        search = search_of(recipe)
        stages = search.stages(clock, _dense_mask(recipe.model, dataset.channels, views[0].size, search))
        evaluation = known_counts(data.dataset, "eval", runtime.data_root, data.part)
        measured = round(len(evaluation) * len(counts.per_class) / len(full.per_class))
        if not numerics:
            numerics = str(
                Numerics.resolve(runtime, recipe.precision).for_training(
                    stages.cumulative_steps[-1],
                    size=state_entries(recipe.model, dataset.channels, views[0].size),
                    steady=objective.cuda_graph_safe,
                    ghost_batch=training.ghost_batch,
                    files=dataset.kind == "files",
                )
            )
        return cls(
            recipe=recipe,
            dataset=dataset,
            views=views,
            classes=len(counts.per_class),
            clock=clock,
            stages=stages,
            scoring=search.scoring_samples(stages.levels, clock, len(counts.per_class)),
            images=len(counts),
            evaluation=len(counts) if data.shuffle_labels else measured,
            labelled=labelled,
            numerics=numerics,
            devices=runtime.world_size,
            about=not counts.exact,
        )

    @property
    def passes(self) -> Passes:
        """What goes through the backbone for each source image."""
        return Passes.count(
            objective_of(self.recipe),
            self.views,
            channels=self.dataset.channels,
            batch_size=self.recipe.training.batch_size,
            labelled=self.labelled,
        )

    @property
    def trained_levels(self) -> int:
        """Trainings to an end: levels that take steps, of which the first goes on from W_k."""
        steps = self.stages.cumulative_steps
        later = sum(after > before for before, after in pairwise(steps))
        return max(later, 1 if self.stages.rewind else 0)

    @property
    def samples(self) -> int:
        """Source images that all trainings and scores see, at most."""
        return self.stages.cumulative_steps[-1] * self.recipe.training.batch_size + self.scoring

    @property
    def forward_images(self) -> int:
        """Images that go forward through the backbone and its copies for them, at most."""
        return round(self.passes.forward * self.samples)

    @property
    def workload(self) -> Workload:
        """All of the search's steps as one piece of work, for its speed."""
        passes, model, channels = self.passes, self.recipe.model, self.dataset.channels
        shown = sum(multiply_adds_of(model, channels, size) * forward for size, forward in passes.measuring)
        return Workload(
            model=model,
            protocol="",
            image_size=self.views[0].size,
            numerics=self.numerics,
            steps=self.stages.cumulative_steps[-1],
            samples=self.samples,
            objective=self.recipe.task.removesuffix("-shuffled"),
            learnt=type(self.recipe.search).__name__ in LEARNT_SEARCHES,
            batch_size=self.recipe.training.batch_size,
            multiply_adds=training_multiply_adds(passes.training, model, channels),
            measured=self.measured,
            measured_multiply_adds=shown,
        )

    @property
    def measured(self) -> int:
        """Images that are measured at the end of a training: none where the whole training sees fewer."""
        return self.evaluation if self.clock.total_steps * self.clock.batch_size >= self.evaluation else 0

    def seconds(self, throughput: Throughput) -> tuple[float | None, str]:
        """How long it takes in one process, or one launch of several, and where its speed is from."""
        work = self.workload
        found = throughput.find(work)
        if found is None:
            return None, ""
        speed, source = found
        total = work.samples / speed.images_per_second + (speed.command_seconds or 0.0)
        # One for the way to W_k, and one for each level; a ticket is saved for each too.
        total += (self.trained_levels + 1) * measured_seconds(speed, work)
        total += (self.stages.levels + 1) * (speed.training_seconds or 0.0)
        return total, source

    def disk_bytes(self, memory: MemoryEstimate | None = None) -> int:
        """Bytes of the tickets, of W_0 and the checkpoint at W_k, and of the rows.

        Args:
            memory: What a training keeps, where that was measured; else the backbone's alone is counted.
        """
        model, channels, size = self.recipe.model, self.dataset.channels, self.views[0].size
        network = network_shape(model, channels, size)
        names = search_of(self.recipe).prunable_layers(network)
        state, weights = (
            state_entries(model, channels, size),
            sum(network.get_parameter(name).numel() for name in names),
        )
        head = 4 * (num_features(model, channels, size) + 1) * self.classes if self.passes.classifies else 0
        header = _HEADER_BYTES + _TENSOR_BYTES * (len(network.state_dict()) + len(names))
        survivors = self.stages.survivors or (weights,) * (self.stages.levels + 1)
        tickets = sum(
            _PACKED * (4 * (state - weights + left) + head) + _mask_bytes(weights, left) + header
            for left in (weights, *survivors)
        )
        entries = optimizer_entries(self.recipe.training.optimizer) if self.stages.rewind else 0
        early = 4 * state * (1 + entries) + head
        if memory is not None:
            # In memory a backbone and each copy of it has a mask of as many numbers as weights; in the file none has.
            early = memory.weights - 4 * weights * self.passes.backbones
            early += memory.optimizer if self.stages.rewind else 0  # which has no state before the first step
        return math.ceil(tickets) + early + ROW_BYTES * (self.stages.levels + 3)

    def estimate(self, throughput: Throughput, memory: MemoryEstimate | None = None) -> CostEstimate:
        """What it comes to.

        Args:
            throughput: How fast the device is.
            memory: What a training needs of a device's memory, where that was measured.
        """
        seconds, source = self.seconds(throughput)
        trainings = self.trained_levels
        return CostEstimate(
            trainings=trainings,
            steps=self.stages.cumulative_steps[-1],
            samples=self.samples,
            forward_images=self.forward_images,
            seconds=seconds,
            speed_source=source,
            memory_bytes=None if memory is None else memory.total,
            disk_bytes=self.disk_bytes(memory),
            devices=max(self.devices, throughput.devices),
            lengths=((str(self.clock.length), trainings),),
            about=self.about,
            unknown=() if seconds is not None else (f"{self.recipe.model} at {self.views[0].size} px",),
        )


def estimate_search(
    recipe: Recipe,
    runtime: RuntimeConfig | None = None,
    *,
    device: str | None = None,
    rows: Iterable[Row] = (),
    throughput: Throughput | None = None,
    trial: bool = False,
    rewind_given: bool = False,
) -> CostEstimate:
    """What a search comes to, from its recipe alone: no image is opened, and no network is built but for its shapes.

    Args:
        recipe: The recipe, resolved from file and flags.
        runtime: How the machine computes; None for its defaults.
        device: Name of the device whose speeds are looked up; None for this machine's.
        rows: Rows that were measured, whose speeds come first.
        throughput: What is known of the device's speed, in the place of `device` and `rows`.
        trial: As for `plan_search`.
        rewind_given: As for `plan_search`.

    Raises:
        BadInput: If the numbers of the images are not published, or the search cannot be done with them.
    """
    runtime = runtime or RuntimeConfig()
    known = throughput or Throughput.known(device or device_name(), _no_protocol, rows=rows)
    return SearchWork.of_recipe(recipe, runtime, trial=trial, rewind_given=rewind_given).estimate(known)


def _no_protocol(name: str) -> int:
    raise BadInput(f"a search is under no protocol, got {name}")


@cache
def state_entries(model: str, channels: int, image_size: int) -> int:
    """Number of a backbone's parameters and buffers."""
    return sum(value.numel() for value in network_shape(model, channels, image_size).state_dict().values())


_MASKS: dict[object, Mask] = {}


def _dense_mask(model: str, channels: int, image_size: int, search: Search) -> Mask:
    """The mask of ones over the weights that a search may prune."""
    key = (model, channels, image_size, search.prune_up_to, search.exclude, type(search).prunable_layers)
    if key not in _MASKS:
        network = network_shape(model, channels, image_size)
        _MASKS[key] = Mask.ones_like(dict(network.named_parameters()), search.prunable_layers(network))
    return _MASKS[key]


def _mask_bytes(weights: int, left: int) -> int:
    """Bytes of a mask as it is packed: near its entropy."""
    density = left / weights
    if density in (0, 1):
        return 0
    bits = -density * math.log2(density) - (1 - density) * math.log2(1 - density)
    return math.ceil(weights * bits / 8)


def rewound_within(recipe: Recipe, clock: Clock, *, trial: bool, whole: int | None) -> tuple[Recipe, str]:
    """The recipe with W_k inside a training that a trial or a subset has shortened, and a line that says so.

    Args:
        recipe: The recipe.
        clock: The clock of its training.
        trial: Whether it is a trial.
        whole: Samples in an epoch of all images; None where no subset is taken, or the rewind point was given.
    """
    given = search_of(recipe)
    if not trial and whole is None:
        return recipe, ""
    taken = given.rewound_within(clock, TRIAL_REWIND if trial else SUBSET_REWIND)
    if not (changes := _changed_flags(given, taken)):
        return recipe, ""
    step = clock.steps(Span.parse(getattr(taken, "rewind", "0it")))
    why, hint = f"{clock.length} is short: this trial", ""
    if not trial:
        why = f"{clock.length} of these images ({clock.total_steps:,} steps) end before W_k: this search"
        longer = replace(clock, set_size=whole or 0)
        if longer.steps(Span.parse(getattr(given, "rewind", "0it"))) < longer.total_steps > clock.total_steps:
            hint = " (--hold samples keeps both as they are on all images)"
    return replace(recipe, search=taken), f"{why} has {changes} and takes W_k at step {step}{hint}"


def _changed_flags(given: Search, taken: Search) -> str:
    """The flags of a search that a trial changes, with what they were."""
    pairs = [
        (field.name.replace("_", "-"), getattr(given, field.name), getattr(taken, field.name))
        for field in dataclasses.fields(given)
    ]
    return " and ".join(f"--{name} {new} in place of {old}" for name, old, new in pairs if old != new)
