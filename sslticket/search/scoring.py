"""Scores of a net's weights: the images that they are taken from, and the net left as it was."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property

import torch
from torch import Tensor, nn

from sslticket.data.loader import Loader
from sslticket.errors import BadInput
from sslticket.objectives import distributed
from sslticket.pruning import pruned_model
from sslticket.pruning.criteria import Criterion, Scores, ScoringInput
from sslticket.pruning.mask import Mask
from sslticket.search.plan import SearchPlan
from sslticket.seeds import derive_seed
from sslticket.training.engine import Engine
from sslticket.training.loop import preserve_rng_state, seed_torch
from sslticket.training.metrics import sync_buffers
from sslticket.training.network import MaskedNetwork
from sslticket.training.progress import Progress


class Scorer:
    """Lets criteria look at a net, at any moment of a search.

    Scoring images are the first batches of a training stream of their own: subset, views and augmentation are the
    search's, order and augmentation have another seed, and every level and round sees the same. They are shared by the
    processes and cut into parts as in training, and precision is that of training too; only float16 gives way to
    float32, since its small gradients vanish without the scaling that belongs to an optimiser.

    Attributes:
        unreadable_images: that could not be read, with reasons.
        forward_images: that went forward through the backbone for scores so far, in all processes together.
    """

    def __init__(self, plan: SearchPlan, bench: Engine, net: MaskedNetwork, progress: Progress) -> None:
        self._plan, self._bench, self._net, self._progress = plan, bench, net, progress
        self._seed = derive_seed(plan.recipe.seed, "scores")
        self.unreadable_images: dict[str, str] = {}
        self.forward_images = 0

    def num_samples(self, criterion: Criterion) -> int:
        """Images that one call of `scores` looks at, counted each time."""
        return criterion.passes * self._num_batches(criterion) * self._plan.recipe.training.batch_size

    def scores(self, criterion: Criterion, mask: Mask, step: int) -> Scores:
        """What the criterion says of the net as it stands after this step, under a mask; the net stays as it is.

        Raises:
            BadInput: if the scores rank no weights, or the objective has no loss on a batch.
        """
        count, passes, forward = self._num_batches(criterion), 0, self._net.passes.forward
        parts = self._bench.set_batchnorm_scheme(self._net, self._plan.recipe.training)
        with _restore_afterwards(self._net) as put_back, self._eagerly(), distributed.twice_differentiable(self._net):
            sync_buffers(self._net)  # each process has seen other images, and all must come to one mask

            def losses(temperature: float) -> Iterator[Tensor]:
                nonlocal passes
                passes += 1
                put_back()  # a pass moves statistics and queues, and each shall find the same
                pruned_model.set_mask_everywhere(self._net, mask)
                yield from self._losses(count, parts, step, temperature)

            pruned_model.set_mask_everywhere(self._net, mask)
            self._net.train()
            scores = criterion.scores(self._scoring_input(losses), list(mask))
        if count:
            self.unreadable_images |= self._bench.unreadable_images(self._loader)
            self.forward_images += (self._net.passes.forward - forward) * self._bench.accelerator.num_processes
        _check_scores(criterion, passes, scores)
        return scores

    def _num_batches(self, criterion: Criterion) -> int:
        return criterion.num_batches(
            self._plan.recipe.training.batch_size, len(self._plan.images.source.manifest.classes)
        )

    def _scoring_input(self, losses: Callable[[float], Iterator[Tensor]]) -> ScoringInput:
        images, accelerator = self._plan.images, self._bench.accelerator
        return ScoringInput(
            self._net.backbone,
            channels=images.source.dataset.channels,
            image_size=images.views[0].size,
            seed=self._seed,
            losses=losses,
            mean_over_processes=lambda tensor: accelerator.reduce(tensor, reduction="mean"),
        )

    @cached_property
    def _loader(self) -> Loader:
        recipe, images = self._plan.recipe, self._plan.images
        return self._bench.make_loader(
            images.source,
            images.views,
            batch_size=recipe.training.batch_size,
            order=derive_seed(recipe.seeds.order, "scores"),
            augment=derive_seed(recipe.seeds.augment, "scores"),
            labelled=images.labelled,
        )

    def _losses(self, count: int, parts: int, step: int, temperature: float) -> Iterator[Tensor]:
        """The loss of each part of each batch, divided by the number of parts."""
        net, total, accelerator = self._net, self._plan.clock.total_steps, self._bench.accelerator
        self._progress.start_task("scores", count)
        for number, batch in enumerate(self._loader.train(0, count)):
            for part, chunk in enumerate(batch.chunk(parts)):
                place = accelerator.process_index * parts + part
                seed_torch(derive_seed(self._seed, "torch", number, place), accelerator.device)
                with self._autocast(), _with_temperature(net.heads, temperature):
                    # Not through the wrappers: those of distributed training wait for gradients that nobody asks for.
                    terms = net.objective.loss(net, chunk, min(step, total - 1) / total)
                loss = torch.stack(list(terms.values())).sum() / parts
                if not loss.requires_grad:
                    raise BadInput(
                        f"{net.objective.name} has no loss on batch {number + 1} of the scoring images; "
                        "give a larger --batch-size, or a criterion that looks at none, such as SynFlow"
                    )
                yield loss
            self._progress.advance(number + 1, self._plan.recipe.training.batch_size)

    def _autocast(self) -> AbstractContextManager[None]:
        half = self._bench.precision == "fp16"
        context: AbstractContextManager[None] = nullcontext() if half else self._bench.accelerator.autocast()
        return context

    def _eagerly(self) -> AbstractContextManager[None]:
        """Without torch.compile, which knows no second derivatives, and would take longer than the scores."""
        context: AbstractContextManager[None] = (
            torch.compiler.set_stance("force_eager") if self._bench.numerics.compiled is not False else nullcontext()
        )
        return context


@contextmanager
def _restore_afterwards(net: MaskedNetwork) -> Iterator[Callable[[], None]]:
    """Puts every weight, buffer, mode and random state back at the end; weights and buffers also whenever called."""
    before = {name: value.detach().clone() for name, value in _parameters_and_buffers(net)}
    modes = [(module, module.training) for module in net.modules()]

    @torch.no_grad()
    def put_back() -> None:
        for name, value in _parameters_and_buffers(net):
            value.copy_(before[name])

    with preserve_rng_state(next(net.parameters()).device):
        try:
            yield put_back
        finally:
            put_back()
            for module, training in modes:
                module.training = training


def _parameters_and_buffers(net: MaskedNetwork) -> list[tuple[str, Tensor]]:
    return [*net.named_parameters(), *net.named_buffers()]


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
