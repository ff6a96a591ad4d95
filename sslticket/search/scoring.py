"""What a search measures of its network: scores of weights for pruning, the objective's metrics, and a probe."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor, nn

from sslticket.config.training import Span
from sslticket.data.augment import View
from sslticket.data.datasets.locate import MissingSplit
from sslticket.data.loader import Loader
from sslticket.data.source import DataSource, convert_channels, open_split
from sslticket.errors import BadInput
from sslticket.objectives import distributed
from sslticket.objectives.base import objective_of
from sslticket.pruning import pruned_model
from sslticket.pruning.criteria import Criterion, Scores, ScoringInput
from sslticket.pruning.mask import Mask
from sslticket.search.plan import SearchPlan
from sslticket.seeds import derive_seed
from sslticket.training.engine import Engine
from sslticket.training.loop import preserve_rng_state, seed_torch
from sslticket.training.network import MaskedNetwork, knn_accuracy, measure_metrics, sync_buffers
from sslticket.training.numerics import is_compiled
from sslticket.training.progress import Progress
from sslticket.training.trial import dense_layers

_BANK_IMAGES, _QUERY_IMAGES = 50_000, 10_000
"""Images of a probe at most: small sets whole, of ImageNet evenly spaced images."""


class Scorer:
    """Gives the scores of a criterion at any moment of a search, and leaves the network as it was.

    Scoring images are the first batches of a training stream of their own: subset, views and augmentation are the
    search's, order and augmentation have another seed, and every level and round sees the same. They are shared by the
    processes and cut into micro-batches as in training, and precision is that of training too; only float16 gives way
    to float32, since its small gradients vanish without the scaling that belongs to an optimiser.

    Attributes:
        unreadable_images: Images that could not be read, with reasons.
        forward_images: Images that went forward through the backbone for scores so far, in all processes together.
    """

    def __init__(self, plan: SearchPlan, engine: Engine, network: MaskedNetwork, progress: Progress) -> None:
        self._plan, self._engine, self._network, self._progress = plan, engine, network, progress
        self._seed = derive_seed(plan.recipe.seed, "scores")
        self.unreadable_images: dict[str, str] = {}
        self.forward_images = 0

    def num_samples(self, criterion: Criterion) -> int:
        """Number of images that one call of `scores` uses, counted each time."""
        return criterion.passes * self._num_batches(criterion) * self._plan.recipe.training.batch_size

    def scores(self, criterion: Criterion, mask: Mask, step: int) -> Scores:
        """A criterion's scores of the network as it stands after a step, under a mask; the network stays as it is.

        Raises:
            BadInput: If the scores rank no weights, or the objective has no loss on a batch.
        """
        count, passes, forward = self._num_batches(criterion), 0, self._network.passes.forward
        parts = self._engine.set_batchnorm_scheme(self._network, self._plan.recipe.training)
        with (
            dense_layers(self._network),
            _restore_afterwards(self._network) as put_back,
            self._eagerly(),
            distributed.twice_differentiable(self._network),
            pruned_model.masked_autograd(self._network),
        ):
            sync_buffers(self._network)  # each process has seen other images, and all must come to one mask

            def losses(temperature: float) -> Iterator[Tensor]:
                nonlocal passes
                passes += 1
                put_back()  # a pass moves statistics and queues, and each must find the same
                pruned_model.set_mask_everywhere(self._network, mask)
                yield from self._losses(count, parts, step, temperature)

            pruned_model.set_mask_everywhere(self._network, mask)
            self._network.train()
            scores = criterion.scores(self._scoring_input(losses), list(mask))
        if count:
            self.unreadable_images |= self._engine.unreadable_images(self._loader)
            self.forward_images += (self._network.passes.forward - forward) * self._engine.accelerator.num_processes
        _check_scores(criterion, passes, scores)
        return scores

    def _num_batches(self, criterion: Criterion) -> int:
        return criterion.num_batches(
            self._plan.recipe.training.batch_size, len(self._plan.images.source.manifest.classes)
        )

    def _scoring_input(self, losses: Callable[[float], Iterator[Tensor]]) -> ScoringInput:
        images, accelerator = self._plan.images, self._engine.accelerator
        return ScoringInput(
            self._network.backbone,
            channels=images.source.dataset.channels,
            image_size=images.views[0].size,
            seed=self._seed,
            losses=losses,
            mean_over_processes=lambda tensor: accelerator.reduce(tensor, reduction="mean"),
        )

    @cached_property
    def _loader(self) -> Loader:
        recipe, images = self._plan.recipe, self._plan.images
        return self._engine.make_loader(
            images.source,
            images.views,
            batch_size=recipe.training.batch_size,
            order=derive_seed(recipe.seeds.order, "scores"),
            augment=derive_seed(recipe.seeds.augment, "scores"),
            labelled=images.labelled,
        )

    def _losses(self, count: int, parts: int, step: int, temperature: float) -> Iterator[Tensor]:
        """The loss of each micro-batch, divided by their number in a batch."""
        network, total, accelerator = self._network, self._plan.clock.total_steps, self._engine.accelerator
        self._progress.start_task("scores", count)
        for number, batch in enumerate(self._loader.train(0, count)):
            for part, chunk in enumerate(batch.chunk(parts)):
                place = accelerator.process_index * parts + part
                seed_torch(derive_seed(self._seed, "torch", number, place), accelerator.device)
                with self._autocast(), _with_temperature(network.heads, temperature):
                    # Not through the wrappers: those of distributed training wait for gradients that nobody asks for.
                    terms = network.objective.loss(network, chunk, min(step, total - 1) / total)
                loss = torch.stack(list(terms.values())).sum() / parts
                if not loss.requires_grad:
                    raise BadInput(
                        f"{network.objective.name} has no loss on batch {number + 1} of the scoring images; "
                        "give a larger --batch-size, or a criterion that needs no images, such as SynFlow"
                    )
                yield loss
            self._progress.advance(number + 1, self._plan.recipe.training.batch_size)

    def _autocast(self) -> AbstractContextManager[None]:
        half = self._engine.precision == "fp16"
        context: AbstractContextManager[None] = nullcontext() if half else self._engine.accelerator.autocast()
        return context

    def _eagerly(self) -> AbstractContextManager[None]:
        """Without torch.compile, which knows no second derivatives, and would take longer than the scores."""
        context: AbstractContextManager[None] = (
            torch.compiler.set_stance("force_eager") if is_compiled(self._network) else nullcontext()
        )
        return context


@contextmanager
def _restore_afterwards(network: MaskedNetwork) -> Iterator[Callable[[], None]]:
    """Puts every weight, buffer, mode and random state back at the end; weights and buffers also whenever called."""
    before = {name: value.detach().clone() for name, value in _parameters_and_buffers(network)}
    modes = [(module, module.training) for module in network.modules()]

    @torch.no_grad()
    def put_back() -> None:
        for name, value in _parameters_and_buffers(network):
            value.copy_(before[name])

    with preserve_rng_state(next(network.parameters()).device):
        try:
            yield put_back
        finally:
            put_back()
            for module, training in modes:
                module.training = training


def _parameters_and_buffers(network: MaskedNetwork) -> list[tuple[str, Tensor]]:
    return [*network.named_parameters(), *network.named_buffers()]


@contextmanager
def _with_temperature(heads: nn.Module, temperature: float) -> Iterator[None]:
    """The heads' output divided by a temperature."""
    if temperature == 1:
        yield
        return
    hook = heads.register_forward_hook(lambda module, given, logits: logits / temperature)
    try:
        yield
    finally:
        hook.remove()


def _check_scores(criterion: Criterion, passes: int, scores: Scores) -> None:
    name = type(criterion).__name__
    if passes != criterion.passes:
        raise BadInput(
            f"{name} went {passes} times over the scoring images, and rows would count {criterion.passes}; "
            f"write passes = {passes} in its class"
        )
    if not _all(score.isfinite().all() for score in scores.values()):
        raise BadInput(
            f"{name} gives scores that are not finite, so no weights can be ranked; look for a diverged training"
        )
    if _all(~score.any() for score in scores.values()):
        raise BadInput(
            f"{name} scores every weight 0, so none can be ranked; give more --score-images or another --rewind"
        )


def _all(answers: Iterable[Tensor]) -> bool:
    """Whether all are true, with one wait for the device; a criterion may score layers on the CPU."""
    first, *rest = answers
    return bool(torch.stack([first, *(answer.to(first.device) for answer in rest)]).all())


class Monitor:
    """Measures a network while it is trained, and changes nothing in it but its mode.

    Attributes:
        probe_interval: Optimiser steps between two nearest-neighbour probes; None where there are none.
        evaluation: The evaluation images of the subset's classes; None where the data set has none.
    """

    def __init__(self, plan: SearchPlan, engine: Engine, network: MaskedNetwork) -> None:
        """Finds the evaluation images.

        Raises:
            BadInput: If a probe was asked for and there are none.
        """
        self._plan, self._engine, self._network = plan, engine, network
        probe = engine.runtime.probe
        self.probe_interval = None if probe is None else max(1, plan.clock.steps(Span.parse(probe)))
        self.evaluation = _open_evaluation_split(plan, engine)
        if self.probe_interval is not None and self.evaluation is None:
            raise BadInput(
                f"--probe needs evaluation images, and {plan.recipe.data.dataset} has none; add them or leave it out"
            )

    def probe_steps(self, start: int, stop: int) -> list[int]:
        """The steps between these two after which there is a probe."""
        every = self.probe_interval or stop + 1
        return list(range((start // every + 1) * every, stop, every))

    def metrics(self) -> dict[str, float]:
        """The objective's metrics on the evaluation images; nothing where there are none.

        Shuffled labels can only be learned by heart: theirs are measured on the training images. Metrics are left out
        where a whole training sees fewer images than there are to measure: they would take longer than the training.
        """
        images, objective = self._plan.images, objective_of(self._plan.recipe)
        source = images.source if images.permutation else self.evaluation
        clock = self._plan.clock
        if source is None or clock.total_steps * clock.batch_size < len(source.manifest):
            return {}
        views = (self._eval_view(),) if objective.views_compared == 1 else images.views[: objective.views_compared]
        return measure_metrics(self._engine.accelerator, self._network, self._make_loader(source, views))

    def probe(self) -> float:
        """Top-1 accuracy of the nearest-neighbour vote on the evaluation images, a fraction."""
        assert self.evaluation is not None, "there are no evaluation images to probe with"
        true, evaluation = self._plan.images.true_labels, self.evaluation
        bank = replace(true, manifest=true.manifest.evenly_spaced(_BANK_IMAGES))
        queries = replace(evaluation, manifest=evaluation.manifest.evenly_spaced(_QUERY_IMAGES))
        return knn_accuracy(
            self._engine.accelerator,
            self._network,
            self._make_loader(bank, (self._eval_view(),)),
            self._make_loader(queries, (self._eval_view(),)),
            len(true.manifest.classes),
        )

    def _eval_view(self) -> View:
        dataset = self._plan.images.source.dataset
        return dataset.eval_view.at_size(self._plan.recipe.data.image_size)

    def _make_loader(self, source: DataSource, views: tuple[View, ...]) -> Loader:
        batch_size = self._plan.recipe.training.batch_size
        return self._engine.make_loader(source, views, batch_size=batch_size, order=0, augment=0)


def _open_evaluation_split(plan: SearchPlan, engine: Engine) -> DataSource | None:
    """The evaluation images of the subset's classes; None where the data set has none."""
    try:
        source = open_split(plan.recipe.data.dataset, "eval", engine.runtime.data_root)
    except MissingSplit:
        return None
    source = convert_channels(source, plan.images.source.dataset.channels)
    return replace(source, manifest=source.manifest.take_classes(plan.images.true_labels.manifest.classes))
