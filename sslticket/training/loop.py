"""The only training loop."""

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from sslticket.config.training import TrainConfig
from sslticket.data.loader import Batch, Loader
from sslticket.errors import Diverged
from sslticket.pruning import pruned_model
from sslticket.seeds import derive_seed
from sslticket.training.network import PENALTY_TERM, MaskedNetwork, RunningStatistics
from sslticket.training.numerics import GraphReplay, NotCapturable, StepGraph
from sslticket.training.optim import build_network_optimizer, init_momentum
from sslticket.training.progress import Progress


def seed_torch(seed: int, device: torch.device) -> None:
    """Seed the CPU's generator and the device's.

    Not `torch.manual_seed`: without a GPU it formats a stack trace for each kind of device, a third of a millisecond.
    """
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


def preserve_rng_state(device: torch.device) -> AbstractContextManager[None]:
    """Puts both generators back when the block ends.

    Torch's `fork_rng` without devices would wake every GPU of the machine in each of its processes, and warn of it.
    """
    return torch.random.fork_rng([] if device.type == "cpu" else [device], device_type=device.type)


_CHECK_SECONDS = 1.0  # seconds between looks at the losses; a look waits for the device
_COLLAPSED_STEPS, _COLLAPSE_TOLERANCE = (
    100,
    1e-5,
)  # steps in a row at the loss of a collapsed embedding, up to this difference


class TrainingLoop:
    """Trains one net on one loader, from any step to any later one.

    Attributes:
        net: the net itself, without the wrappers that distributed training and mixed precision put around it.
        loss: the objective's loss at the last look.
        mask_start: the step from which masks that are learnt count their progress: the first of the search's round.
        forward_images: images that went forward through the backbone and its copies, in all processes together.
        backward_images: those of them that gradients went back through.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        net: MaskedNetwork,
        wrapped: nn.Module,
        loader: Loader,
        fit: TrainConfig,
        *,
        set_size: int,
        seed: int,
        parts: int = 1,
        progress: Progress,
        graph: Callable[[], StepGraph] | None = None,
    ) -> None:
        self.net, self.loss, self._stuck, self.mask_start = net, math.nan, 0, 0
        self.forward_images = self.backward_images = 0
        self._accelerator, self._wrapped, self._loader = accelerator, wrapped, loader
        self._schedule, self._clock = fit.schedule(set_size), fit.clock(set_size)
        self._longest = fit.clip
        self._seed, self._parts, self._progress = seed, parts, progress
        self._running = RunningStatistics(net, parts)
        # Not accelerate's: it looks for a package on disk in every step, and would keep every level's optimiser alive.
        self.optimizer = build_network_optimizer(net, fit.optimizer)
        if accelerator.scaler is not None:
            init_momentum(self.optimizer)
        self._replay = None if graph is None else GraphReplay(graph, self.optimizer, accelerator.device)
        # Those of momentum encoders too, under the same names: what is drawn for a step is the same in all copies.
        self._gates = [
            pair
            for backbone in pruned_model.backbone_and_copies(net)
            for pair in pruned_model.learned_gates(backbone).items()
        ]
        self._gates += [(f"heads.{name}", one) for name, one in net.head_gates.items()]

    def run(self, start: int, stop: int) -> None:
        """Take the optimiser steps `start` to `stop - 1`.

        Raises:
            Diverged: at the first non-finite loss, or where an embedding has collapsed.
        """
        self.net.train()
        forward, backward = self.net.passes.forward, self.net.passes.backward
        losses: list[Tensor] = []
        looked = time.monotonic()
        for step, batch in zip(range(start, stop), self._loader.train(start, stop), strict=True):
            self._set_rates_and_gates(step)
            progress = step / self._clock.total_steps
            losses.append(self._run_step(batch, step, progress))
            self.net.objective.after_step(self.net, progress)
            self._progress.advance(step + 1, self._clock.batch_size)
            if time.monotonic() - looked > _CHECK_SECONDS:
                self._check_losses(losses, step)
                losses, looked = [], time.monotonic()
        # Every process has as large a share of each batch.
        self.forward_images += (self.net.passes.forward - forward) * self._accelerator.num_processes
        self.backward_images += (self.net.passes.backward - backward) * self._accelerator.num_processes
        self._check_losses(losses, stop - 1)

    def _run_step(self, batch: Batch, step: int, progress: float) -> Tensor:
        """Take a step, by a graph where that can be; its loss, ()."""
        if self._replay is not None:
            self._seed_step(step)
            try:
                return self._replay(self._forward_backward, batch, progress, self.net.passes)
            except NotCapturable as reason:
                self._replay = None
                self._progress.note(f"steps are launched kernel by kernel, since no graph can hold one: {reason}")
        return self._forward_backward(batch, progress, step)

    def _forward_backward(self, batch: Batch, progress: float, step: int | None = None) -> Tensor:
        """What the device does in a step; its loss, (). Without the step, generators stay as they are seeded."""
        self.optimizer.zero_grad()
        losses: list[Tensor] = []
        self._running.on_step_begin()
        for part, chunk in enumerate(batch.chunk(self._parts)):
            if step is not None:
                self._seed_step(step, part)
            with self._no_sync(part < self._parts - 1):
                terms = self._wrapped(chunk, progress)
                penalty = terms.pop(PENALTY_TERM, None)
                task = self._average_over_steps(_sum_scalars(list(terms.values())))
                self._accelerator.backward(task if penalty is None else task + self._average_over_steps(penalty))
            losses.append(task.detach())
            self._running.on_micro_batch(part)
        self._clip_gradients()
        self._optimizer_step()
        return _sum_scalars(losses)

    def _average_over_steps(self, value: Tensor) -> Tensor:
        """A part's share of a mean over all parts; of one part the value itself, without a launch."""
        return value if self._parts == 1 else value / self._parts

    def _seed_step(self, step: int, part: int = 0) -> None:
        """Dropout and whatever else draws from torch's generator: a function of the step and of the part's place in it.

        So nothing of it is saved, and one process in many parts draws what as many processes draw.
        """
        place = self._accelerator.process_index * self._parts + part
        seed_torch(derive_seed(self._seed, "torch", step, place), self._accelerator.device)

    def _optimizer_step(self) -> None:
        if (scaler := self._accelerator.scaler) is None:
            self.optimizer.step()
        else:
            scaler.step(self.optimizer)
            scaler.update()

    def _set_rates_and_gates(self, step: int) -> None:
        """Set the learning rates, and tell the gates that learn their masks which step comes."""
        for group in self.optimizer.param_groups:
            rate = self._learning_rate(step) * group.get("share", 1.0)
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        progress, seed = (
            (step - self.mask_start) / (self._clock.total_steps - self.mask_start),
            derive_seed(self._seed, "gates", step),
        )
        for name, one in self._gates:
            one.on_step(progress, derive_seed(seed, name))

    def _clip_gradients(self) -> None:
        if self._longest is not None:
            self._accelerator.unscale_gradients(self.optimizer)
            nn.utils.clip_grad_norm_(self.net.weight_parameters(), self._longest)

    def _learning_rate(self, step: int) -> float:
        return self._schedule.lr_at((step + 1) * self._clock.batch_size)

    def _no_sync(self, quiet: bool) -> AbstractContextManager[None]:
        """Gradients are shared between processes only with the last part of a batch."""
        context: AbstractContextManager[None] = self._accelerator.no_sync(self._wrapped) if quiet else nullcontext()
        return context

    def _check_collapse(self, loss: float, step: int) -> None:
        """Count the steps in a row whose loss is that of an embedding which is the same for all images."""
        collapsed = self.net.objective.collapsed_loss(self._clock.batch_size // self._parts)
        same = collapsed is not None and abs(loss - collapsed) < _COLLAPSE_TOLERANCE * max(1.0, abs(collapsed))
        self._stuck = self._stuck + 1 if same else 0
        if self._stuck >= _COLLAPSED_STEPS:
            raise Diverged(
                f"{self.net.objective.name} has collapsed: for {_COLLAPSED_STEPS} steps up to step {step + 1} the loss is "
                f"{loss:.6g}, that of an embedding which is the same for all images; try a smaller --lr"
            )

    def _check_losses(self, losses: list[Tensor], last: int) -> None:
        for step, loss in enumerate(torch.stack(losses).tolist() if losses else [], last + 1 - len(losses)):
            if not math.isfinite(loss):
                before = (
                    f"the last finite loss was {self.loss:.6g}" if math.isfinite(self.loss) else "no loss was finite"
                )
                raise Diverged(
                    f"the loss is {loss} at step {step + 1} of {self._clock.total_steps} with learning rate "
                    f"{self._learning_rate(step):.4g}; {before}; try a smaller --lr"
                )
            self.loss = loss
            self._check_collapse(loss, step)
        if losses:
            self._progress.log_loss(self.loss, self._learning_rate(last))


def _sum_scalars(values: list[Tensor]) -> Tensor:
    """Of scalars; of one the value itself, without a launch."""
    return values[0] if len(values) == 1 else torch.stack(values).sum()
