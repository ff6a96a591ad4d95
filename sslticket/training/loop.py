"""The only training loop."""

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from sslticket.config.training import LARS, SGD, Adam, RMSprop, TrainConfig
from sslticket.data.loader import Batch, Loader
from sslticket.errors import Diverged
from sslticket.pruning import pruned_model
from sslticket.pruning.sparse_layers import layers_in_use, step_kept_weights
from sslticket.seeds import derive_seed
from sslticket.training.network import PENALTY_TERM, MaskedNetwork, Rewiring, RunningStatistics
from sslticket.training.numerics import GraphReplay, NotCapturable, StepGraph
from sslticket.training.optim import build_network_optimizer, init_momentum
from sslticket.training.progress import Progress

_CHECK_SECONDS = 1.0  # between two checks of the losses; each waits for the device
_COLLAPSED_STEPS, _COLLAPSE_TOLERANCE = 100, 1e-5  # steps in a row at a collapsed embedding's loss, up to a difference


class Interruption(Protocol):
    """What may want to act between two steps of a training: it keeps snapshots, and leaves by signals."""

    def is_due(self, step: int) -> bool:
        """Whether it wants to act now that so many steps were taken; the same in all processes, and soon answered."""

    def act(self, step: int) -> None:
        """Acts; losses and passes are counted up to here, and the training stays as it is."""


class TrainingLoop:
    """Trains one network on one loader, from any step to any later one.

    Attributes:
        network: The network itself, without the wrappers of distributed training and mixed precision.
        loader: The images.
        optimizer: Its optimiser.
        interruption: What may act between two steps; None where nothing does.
        rewiring: What changes the mask; None where it is fixed.
        plain_kernels: Makes the context in which the mask changes and gradients of pruned weights are computed: without
            layers that compute with kept weights alone.
        loss: The objective's loss when it was last checked.
        collapsed_steps: Steps in a row up to there at the loss of a collapsed embedding.
        mask_start: The step from which masks that are learned count their progress: the first of the search's round.
        forward_images: Images that went forward through the backbone and its copies, in all processes together.
        backward_images: Those of them that gradients went back through.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        network: MaskedNetwork,
        wrapped: nn.Module,
        loader: Loader,
        training: TrainConfig,
        *,
        set_size: int,
        seed: int,
        accumulation_steps: int = 1,
        progress: Progress,
        graph: Callable[[], StepGraph] | None = None,
    ) -> None:
        """Makes a fresh optimiser; see `Engine.make_loop` for the arguments.

        Args:
            accelerator: The accelerator of this process.
            network: The network.
            wrapped: The same in its wrappers.
            loader: The images.
            training: How it is trained.
            set_size: Images of an epoch.
            seed: Seed of dropout and of whatever else draws random numbers in a step.
            accumulation_steps: Micro-batches of a step, in each process.
            progress: What shows the loss.
            graph: Makes the graph of a step; None where steps are launched kernel by kernel.
        """
        self.network, self.loss, self.collapsed_steps, self.mask_start = network, math.nan, 0, 0
        self.forward_images = self.backward_images = 0
        self.loader = loader
        self.interruption: Interruption | None = None
        self.rewiring: Rewiring | None = None
        self.plain_kernels: Callable[[], AbstractContextManager[None]] = nullcontext
        self._accelerator, self._wrapped = accelerator, wrapped
        self._schedule, self._clock = training.schedule(set_size), training.clock(set_size)
        self._max_grad_norm = training.clip
        self._seed, self._accumulation_steps, self._progress = seed, accumulation_steps, progress
        self._running_statistics = RunningStatistics(network, accumulation_steps)
        # Not accelerate's: it looks for a package on disk in every step, and would keep every level's optimiser alive.
        self.optimizer = build_network_optimizer(network, training.optimizer, layer_decay=training.layer_decay)
        self._trained = [each for group in self.optimizer.param_groups for each in group["params"]]
        if accelerator.scaler is not None:
            init_momentum(self.optimizer)
        self._replay = None if graph is None else GraphReplay(graph, self.optimizer, accelerator.device)
        # Those of momentum encoders too, under the same names: what is drawn for a step is the same in all copies.
        backbones = pruned_model.backbone_and_copies(network)
        self._gates = [pair for backbone in backbones for pair in pruned_model.learned_gates(backbone).items()]
        self._gates += [(f"heads.{name}", gate) for name, gate in network.head_gates.items()]
        # Those of momentum encoders too: what a user's optimiser or objective has moved is put back to 0 in all.
        self._masked = list(pruned_model.fixed_masks(network).values())
        self._sparse_layers = layers_in_use(network)
        self._optimizer_keeps_zeros = isinstance(training.optimizer, SGD | Adam | RMSprop | LARS)
        self._objective_keeps_zeros = _is_ours(type(network.objective).after_step)

    @property
    def batch_size(self) -> int:
        """Source images of a step, in all processes together."""
        return self._clock.batch_size

    def run(self, start: int, stop: int) -> None:
        """Takes the optimiser steps `start` to `stop - 1`.

        Raises:
            Diverged: At the first non-finite loss, where an embedding has collapsed, or if the backbone is not finite
                at the end.
        """
        network, interruption, due = self.network, self.interruption, False
        network.train()
        self._sparse_layers = layers_in_use(network)
        pruned_model.mask_weights(self._masked)
        counted = network.passes.forward, network.passes.backward
        losses: list[Tensor] = []
        checked = time.monotonic()
        for step, batch in zip(range(start, stop), self.loader.train(start, stop), strict=True):
            self._set_rates_and_gates(step)
            progress = step / self._clock.total_steps
            losses.append(self._run_step(batch, step, progress))
            network.objective.after_step(network, progress)
            if not self._objective_keeps_zeros:
                pruned_model.mask_weights(self._masked)
            self._progress.advance(step + 1, self._clock.batch_size)
            if interruption is not None and step + 1 < stop:
                due = interruption.is_due(step + 1)
            if due or time.monotonic() - checked > _CHECK_SECONDS:
                self._check_losses(losses, step)
                losses, checked = [], time.monotonic()
            if due and interruption is not None:
                counted = self._count_passes(*counted)
                interruption.act(step + 1)
                due = False
        self._count_passes(*counted)
        self._check_losses(losses, stop - 1)
        if start < stop:
            self._check_weights(stop - 1)

    def _count_passes(self, forward: int, backward: int) -> tuple[int, int]:
        """Adds the images that have gone through since these counts of this process; returns the counts now."""
        passes, processes = self.network.passes, self._accelerator.num_processes
        # All processes have equal shares of each batch.
        self.forward_images += (passes.forward - forward) * processes
        self.backward_images += (passes.backward - backward) * processes
        return passes.forward, passes.backward

    def _run_step(self, batch: Batch, step: int, progress: float) -> Tensor:
        """Changes the mask where that is due, and takes a step unless its gradients were for that; returns its loss."""
        loss, rewiring, scaler = None, self.rewiring, self._accelerator.scaler
        if rewiring is not None and rewiring.is_due(step):
            with self.plain_kernels():
                if rewiring.needs_gradients:
                    loss = self._backward(batch, progress, step)
                    if scaler is not None:
                        self._accelerator.unscale_gradients(self.optimizer)
                        scaler.update()
                rewiring.update(self.network, self.optimizer, step)
            self._sparse_layers = layers_in_use(self.network)
        return self._take_step(batch, step, progress) if loss is None else loss

    def _take_step(self, batch: Batch, step: int, progress: float) -> Tensor:
        """Takes a step, by a graph where that can be; returns its loss, ()."""
        if self._replay is not None:
            self._seed_step(step)
            try:
                return self._replay(self._forward_backward, batch, progress, self.network.passes)
            except NotCapturable as reason:
                self._replay = None
                self._progress.note(f"steps are launched kernel by kernel, since no graph can hold one: {reason}")
        return self._forward_backward(batch, progress, step)

    def _forward_backward(self, batch: Batch, progress: float, step: int | None = None) -> Tensor:
        """Does what the device does in a step; returns its loss, (). Without the step, generators stay as they are."""
        loss, scaler = self._backward(batch, progress, step), self._accelerator.scaler
        # Before anything looks at gradients: a norm that is clipped is that of the weights that are left.
        pruned_model.mask_gradients(self._masked)
        if self._max_grad_norm is not None:
            self._accelerator.unscale_gradients(self.optimizer)
            nn.utils.clip_grad_norm_(self.network.weight_parameters(), self._max_grad_norm)
        if scaler is None:
            taken = step_kept_weights(self._sparse_layers, self.optimizer) if self._sparse_layers else {}
            self.optimizer.step()
            for weight, gradient in taken.items():  # an objective's `after_step` may look at it
                weight.grad = gradient
        else:
            scaler.step(self.optimizer)
            scaler.update()
        if not self._optimizer_keeps_zeros:
            pruned_model.mask_weights(self._masked)
        return loss

    def _backward(self, batch: Batch, progress: float, step: int | None) -> Tensor:
        """Computes the gradients of a step, which are not masked yet; returns its loss, ()."""
        # Not `zero_grad`: torch's opens a block for its profiler each time, which takes as long as a small layer.
        for parameter in self._trained:
            parameter.grad = None
        losses: list[Tensor] = []
        scaler = self._accelerator.scaler
        self._running_statistics.on_step_begin()
        for number, micro_batch in enumerate(batch.chunk(self._accumulation_steps)):
            if step is not None:
                self._seed_step(step, number)
            # Gradients are summed over processes with the last micro-batch only.
            with self._no_sync() if number < self._accumulation_steps - 1 else nullcontext():
                terms = self._wrapped(micro_batch, progress)
                penalty = terms.pop(PENALTY_TERM, None)
                loss = self._average_over_steps(_sum_scalars(list(terms.values())))
                total = loss if penalty is None else loss + self._average_over_steps(penalty)
                # Not accelerate's `backward`, which would divide by one: the loop counts micro-batches itself.
                (total if scaler is None else scaler.scale(total)).backward()
            losses.append(loss.detach())
            self._running_statistics.on_micro_batch(number)
        return _sum_scalars(losses)

    def _no_sync(self) -> AbstractContextManager[None]:
        context: AbstractContextManager[None] = self._accelerator.no_sync(self._wrapped)
        return context

    def _average_over_steps(self, value: Tensor) -> Tensor:
        """What a micro-batch adds to a mean over all; of a single one the value itself, without a launch."""
        return value if self._accumulation_steps == 1 else value / self._accumulation_steps

    def _seed_step(self, step: int, number: int = 0) -> None:
        """Seeds dropout, and whatever else draws from torch's generator, by the step and the micro-batch's place in it.

        So nothing of it is saved, and one process with many micro-batches draws what as many processes draw.
        """
        place = self._accelerator.process_index * self._accumulation_steps + number
        seed_torch(derive_seed(self._seed, "torch", step, place), self._accelerator.device)

    def _set_rates_and_gates(self, step: int) -> None:
        """Sets learning rates and weight decays, and prepares the gates that learn their masks for a step."""
        for group in self.optimizer.param_groups:
            if "decay_at" in group:
                group["weight_decay"] = group["decay_at"](step / self._clock.total_steps)
            rate = self._learning_rate(step) * group.get("lr_scale", 1.0)
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        if not self._gates:
            return
        progress = (step - self.mask_start) / (self._clock.total_steps - self.mask_start)
        seed = derive_seed(self._seed, "gates", step)
        for name, gate in self._gates:
            gate.on_step(progress, derive_seed(seed, name))

    def _learning_rate(self, step: int) -> float:
        return self._schedule.lr_at((step + 1) * self._clock.batch_size)

    def _check_losses(self, losses: list[Tensor], last: int) -> None:
        """Refuses losses that are not finite, or those of a collapsed embedding for many steps in a row."""
        objective = self.network.objective
        collapsed = objective.collapsed_loss(self._clock.batch_size // self._accumulation_steps)
        for step, loss in enumerate(torch.stack(losses).tolist() if losses else [], last + 1 - len(losses)):
            where = {"step": step + 1, "steps": self._clock.total_steps}
            if not math.isfinite(loss):
                finite = math.isfinite(self.loss)
                before = f"the last finite loss was {self.loss:.6g}" if finite else "no loss was finite"
                raise Diverged(
                    f"the loss is {loss} at step {step + 1} of {self._clock.total_steps} with learning rate "
                    f"{self._learning_rate(step):.4g}; {before}; try a smaller --lr",
                    **where,
                    lr=self._learning_rate(step),
                )
            self.loss = loss
            same = collapsed is not None and abs(loss - collapsed) < _COLLAPSE_TOLERANCE * max(1.0, abs(collapsed))
            self.collapsed_steps = self.collapsed_steps + 1 if same else 0
            if self.collapsed_steps >= _COLLAPSED_STEPS:
                raise Diverged(
                    f"{objective.name} has collapsed: for {_COLLAPSED_STEPS} steps up to step {step + 1} the loss is "
                    f"{loss:.6g}, that of an embedding which is the same for all images; try a smaller --lr",
                    **where,
                    lr=self._learning_rate(step),
                )
        if losses:
            self._progress.log_loss(self.loss, self._learning_rate(last))

    def _check_weights(self, last: int) -> None:
        """Refuses a backbone that is not finite: by batch norm's statistics alone, a finite loss may not tell of it."""
        tensors = [
            value for value in pruned_model.stored_state(self.network.backbone).values() if value.is_floating_point()
        ]
        if not torch.stack([value.isfinite().all() for value in tensors]).all():
            raise Diverged(
                f"the network is not finite after step {last + 1} of {self._clock.total_steps} with learning rate "
                f"{self._learning_rate(last):.4g}, though the last loss was {self.loss:.6g}; try a smaller --lr",
                step=last + 1,
                steps=self._clock.total_steps,
                lr=self._learning_rate(last),
            )


def seed_torch(seed: int, device: torch.device) -> None:
    """Seeds the CPU's generator and the device's.

    Not `torch.manual_seed`: without a GPU it formats a stack trace for each kind of device, a third of a millisecond.
    """
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


def preserve_rng_state(device: torch.device) -> AbstractContextManager[None]:
    """Puts the CPU's generator and the device's back when the block ends.

    Torch's `fork_rng` without devices would wake every GPU of the machine in each of its processes, and warn of it.
    """
    return torch.random.fork_rng([] if device.type == "cpu" else [device], device_type=device.type)


def _is_ours(function: Callable[..., object]) -> bool:
    """Whether it is this package's own: of a user's nobody knows what it writes to."""
    return function.__module__.startswith("sslticket.")


def _sum_scalars(values: list[Tensor]) -> Tensor:
    """The sum of scalars; of a single one the value itself, without a launch."""
    return values[0] if len(values) == 1 else torch.stack(values).sum()
