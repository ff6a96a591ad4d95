import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from sslticket.config.runtime import RuntimeConfig
from sslticket.config.training import SGD, Adam, AdamW, TrainConfig
from sslticket.data.loader import Batch, Loader
from sslticket.errors import BadInput, Diverged
from sslticket.objectives.base import Network
from sslticket.objectives.supervised import Supervised
from sslticket.pruning import pruned_model
from sslticket.pruning.mask import Mask
from sslticket.pruning.prunable import prunable_weights
from sslticket.training import checkpoint
from sslticket.training.engine import Engine
from sslticket.training.loop import TrainingLoop
from sslticket.training.network import MaskedNetwork, measure_metrics
from sslticket.training.progress import Progress

COUNT, BATCH, LENGTH = 40, 16, 12


class Numbers:
    """Random 8x8 "images" with labels: for arithmetic only."""

    unreadable: dict[str, str] = {}  # noqa: RUF012

    def train(self, start: int, stop: int) -> Iterator[Batch]:
        for step in range(start, stop):
            generator = torch.Generator().manual_seed(step)
            images = torch.randn(BATCH, 1, 8, 8, generator=generator)
            label = torch.randint(10, (BATCH,), generator=generator)
            yield Batch((images,), label, torch.arange(BATCH))

    def once(self) -> Iterator[Batch]:
        images = torch.randn(COUNT, 1, 8, 8, generator=torch.Generator().manual_seed(99))
        label = torch.arange(COUNT) % 10
        for first in range(0, COUNT, BATCH):
            rows = slice(first, first + BATCH)
            yield Batch((images[rows],), label[rows], torch.arange(COUNT)[rows])


class LargerNumbers(Numbers):
    """The same of 32x32."""

    def train(self, start: int, stop: int) -> Iterator[Batch]:
        for batch in super().train(start, stop):
            yield Batch((F.interpolate(batch.views[0], size=32),), batch.labels, batch.indices)


def build(model: str = "lenet300") -> MaskedNetwork:
    return MaskedNetwork.build(model, Supervised(), channels=1, image_size=8, classes=10, seed=3)


def loop(bench: Engine, net: MaskedNetwork, wrapped: nn.Module, optimizer: SGD | Adam | None = None) -> TrainingLoop:
    fit = TrainConfig(length=f"{LENGTH}it", batch_size=BATCH, optimizer=optimizer or SGD(lr=0.05), drops=("8it",))
    return bench.make_loop(net, wrapped, Numbers(), fit, set_size=COUNT, seed=0, progress=Progress(0, show=False))


def trained(model: str = "lenet300", **machine: object) -> dict[str, Tensor]:
    bench, net = Engine.create(RuntimeConfig(**machine), "fp32"), build(model)  # type: ignore[arg-type]
    with bench.prepare(net) as wrapped:
        loop(bench, net, wrapped).run(0, LENGTH)
    return pruned_model.read_state(net)


def test_gradients_accumulated_over_parts_are_those_of_the_whole_batch() -> None:
    whole, parts = trained(), trained(accumulate=4)
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-4, atol=1e-6)


def test_memory_layout_does_not_change_what_is_learnt() -> None:
    plain, last = trained("conv3"), trained("conv3", channels_last=True)
    for name, value in plain.items():
        torch.testing.assert_close(last[name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "optimizer",
    [SGD(lr=0.05, nesterov=True), Adam(lr=1e-3), AdamW(lr=1e-3, weight_decay=0.1, last_weight_decay=0.9)],
    ids=["sgd", "adam", "adamw"],
)
@pytest.mark.parametrize("stop", [1, 5])
def test_a_resumed_training_equals_an_uninterrupted_one_bit_for_bit(
    tmp_path: pytest.TempPathFactory, optimizer: SGD | Adam, stop: int
) -> None:
    bench, path = Engine.create(RuntimeConfig(), "fp32"), tmp_path / "snapshot.safetensors"  # type: ignore[operator]
    straight, first, second = build("conv3"), build("conv3"), build("conv3")
    with bench.prepare(straight) as wrapped:
        loop(bench, straight, wrapped, optimizer).run(0, LENGTH)
    with bench.prepare(first) as wrapped:
        half = loop(bench, first, wrapped, optimizer)
        half.run(0, stop)
        checkpoint.save_checkpoint(path, half, stop, bench.accelerator)
    with bench.prepare(second) as wrapped:
        rest = loop(bench, second, wrapped, optimizer)
        assert checkpoint.restore_checkpoint(path, rest, bench.accelerator) == stop
        rest.run(stop, LENGTH)
    if isinstance(optimizer, AdamW):  # at the last step, what its progress says
        decays = [group["weight_decay"] for group in rest.optimizer.param_groups]
        assert decays == [optimizer.decay_at((LENGTH - 1) / LENGTH), 0.0]
    for name, value in pruned_model.read_state(straight).items():
        assert torch.equal(pruned_model.read_state(second)[name], value), name
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(BadInput, match=r"no whole safetensors file .*; delete it"):
        checkpoint.load_network(path)


def test_rates_by_layer_and_blocks_left_out_are_resumed_bit_for_bit(tmp_path: Path) -> None:
    """Groups of an optimiser are numbered otherwise than the network's parameters; a resumed one numbers them alike."""
    bench, path = Engine.create(RuntimeConfig(), "fp32"), tmp_path / "snapshot.safetensors"
    fit = TrainConfig(
        length="4it",
        batch_size=BATCH,
        optimizer=AdamW(lr=1e-3, weight_decay=0.1, last_weight_decay=0.9, spare="tokens"),
        layer_decay=0.5,
        drop_path=0.5,
    )

    def made() -> TrainingLoop:
        net = MaskedNetwork.build(
            "test_vit", Supervised(), channels=1, image_size=32, classes=10, seed=3, drop_path=fit.drop_path
        )
        weights = pruned_model.stored_weights(net.backbone, prunable_weights(net.backbone))
        pruned_model.set_mask_everywhere(net, Mask({name: weight > 0 for name, weight in weights.items()}))
        with bench.prepare(net) as wrapped:
            return bench.make_loop(
                net, wrapped, LargerNumbers(), fit, set_size=COUNT, seed=0, progress=Progress(0, show=False)
            )

    straight, first, second = made(), made(), made()
    straight.run(0, 4)
    first.run(0, 2)
    checkpoint.save_checkpoint(path, first, 2, bench.accelerator)
    assert checkpoint.restore_checkpoint(path, second, bench.accelerator) == 2
    second.run(2, 4)
    for name, value in pruned_model.read_state(straight.network).items():
        assert torch.equal(pruned_model.read_state(second.network)[name], value), name
    masked = pruned_model.fixed_masks(straight.network).values()
    assert len(masked) == 1 + 6 * 4
    for weight, mask in masked:
        state = straight.optimizer.state[weight]
        assert all(not value[mask == 0].any() for value in (weight, state["exp_avg"], state["exp_avg_sq"]))
        assert state["exp_avg"].any()


class TurnsBad(Supervised):
    """Finite until the step whose images it is told."""

    def loss(self, net: Network, batch: Batch, progress: float) -> dict[str, Tensor]:
        terms = super().loss(net, batch, progress)
        return {"labels": terms["labels"] * (math.nan if progress == 9 / LENGTH else 1)}


def test_a_loss_that_is_not_finite_names_step_rate_and_last_finite_loss() -> None:
    bench = Engine.create(RuntimeConfig(), "fp32")
    net = MaskedNetwork.build("lenet300", TurnsBad(), channels=1, image_size=8, classes=10, seed=3)
    reference = build()
    with bench.prepare(reference) as wrapped:
        before = loop(bench, reference, wrapped)
        before.run(0, 9)
    with bench.prepare(net) as wrapped, pytest.raises(Diverged) as caught:
        loop(bench, net, wrapped).run(0, LENGTH)
    text = str(caught.value)
    assert text.startswith(f"the loss is nan at step 10 of {LENGTH} with learning rate 0.005;")
    assert f"the last finite loss was {before.loss:.6g}" in text


def test_metrics_are_means_over_images_not_over_batches() -> None:
    bench, net = Engine.create(RuntimeConfig(), "fp32"), build()
    (whole,) = (
        Batch(
            (torch.cat([batch.views[0] for batch in Numbers().once()]),), torch.arange(COUNT) % 10, torch.arange(COUNT)
        )
        for _ in range(1)
    )
    net.eval()
    with torch.no_grad():
        expected = {name: value.mean().item() for name, value in net.objective.metrics(net, whole).items()}
    assert measure_metrics(bench.accelerator, net, Numbers()) == pytest.approx(expected, rel=1e-5)


def test_balanced_top1_is_the_mean_over_the_classes_that_have_images() -> None:
    bench = Engine.create(RuntimeConfig(), "fp32")
    guesses, labels = torch.tensor([0, 0, 0, 1, 0, 1, 0, 2]), torch.tensor([0, 0, 0, 0, 0, 1, 1, 2])

    class Told:
        def once(self) -> Iterator[Batch]:
            for rows in (slice(0, 3), slice(3, 8)):
                yield Batch((guesses[rows],), labels[rows], torch.arange(8)[rows])

    class Right(Supervised):
        def metrics(self, net: Network, batch: Batch) -> dict[str, Tensor]:
            return {"top1": (batch.views[0] == batch.labels).float()}

    net = MaskedNetwork.build("lenet300", Right(), channels=1, image_size=8, classes=4, seed=0)
    found = measure_metrics(bench.accelerator, net, cast(Loader, Told()), by_class=4)
    assert found["top1"] == pytest.approx(6 / 8)
    assert found["balanced_top1"] == pytest.approx((4 / 5 + 1 / 2 + 1) / 3), "the fourth class has no image"
    assert "balanced_top1" not in measure_metrics(bench.accelerator, net, cast(Loader, Told()))


@pytest.mark.skipif(torch.accelerator.is_available(), reason="float16 works on an accelerator")
def test_a_precision_that_the_device_lacks_is_refused() -> None:
    with pytest.raises(BadInput, match="--precision fp16 does not work here"):
        Engine.create(RuntimeConfig(), "fp16")


def test_bfloat16_passes_leave_float32_weights() -> None:
    bench, net = Engine.create(RuntimeConfig(), "bf16"), build("conv3")
    with bench.prepare(net) as wrapped:
        training = loop(bench, net, wrapped)
        training.run(0, LENGTH)
    assert math.isfinite(training.loss)
    assert {value.dtype for value in pruned_model.read_state(net).values()} == {torch.float32, torch.int64}
    exact = trained("conv3")
    changed = [name for name, value in pruned_model.read_state(net).items() if not torch.equal(value, exact[name])]
    assert changed, "the passes were not in bfloat16"


def test_a_batch_that_the_parts_do_not_divide_is_refused() -> None:
    fit = TrainConfig(length="1it", batch_size=16, optimizer=SGD(lr=0.1))
    with pytest.raises(BadInput, match="give --batch-size a multiple of 3"):
        Engine.create(RuntimeConfig(accumulate=3), "fp32").check_batch(fit)


def test_a_protocols_batch_that_processes_cannot_share_is_refused_with_a_number_that_can() -> None:
    fit = TrainConfig(length="1it", batch_size=128, optimizer=SGD(lr=0.1))
    bench = Engine.create(RuntimeConfig(), "fp32")
    bench.accelerator = cast(Accelerator, SimpleNamespace(num_processes=3))
    with pytest.raises(BadInput, match="the protocol's batch of 128 cannot be shared by 3 processes; start 2, or"):
        bench.check_batch(fit)


def test_a_gradient_is_clipped_to_its_longest_norm_and_a_share_of_the_rate_is_taken() -> None:
    bench, net = Engine.create(RuntimeConfig(), "fp32"), build()
    before = {name: value.clone() for name, value in net.named_parameters()}
    fit = TrainConfig(length="1it", batch_size=BATCH, optimizer=SGD(lr=0.5, momentum=0.0, weight_decay=0.0), clip=0.01)
    with bench.prepare(net) as wrapped:
        training = bench.make_loop(
            net, wrapped, Numbers(), fit, set_size=COUNT, seed=0, progress=Progress(0, show=False)
        )
        training.optimizer.param_groups[0]["lr_scale"] = 0.5
        training.run(0, 1)
    moved = torch.cat([(value - before[name]).flatten() for name, value in net.named_parameters()])
    assert moved.norm().item() == pytest.approx(0.5 * 0.5 * 0.01, rel=1e-4)


@dataclass(frozen=True)
class Collapses(Supervised):
    """At the loss of a collapsed embedding from a step on, and for one step before it."""

    from_step: int = 5

    def loss(self, net: Network, batch: Batch, progress: float) -> dict[str, Tensor]:
        step = round(progress * 200)
        value = super().loss(net, batch, progress)["labels"]
        return {"labels": 0 * value + (0.5 if step == 2 or step >= self.from_step else 0.49)}

    def collapsed_loss(self, batch_size: int) -> float:
        assert batch_size == BATCH
        return 0.5


@pytest.mark.parametrize("from_step", [5, 150])
def test_a_collapsed_embedding_stops_the_training_once_it_stays(from_step: int) -> None:
    bench = Engine.create(RuntimeConfig(), "fp32")
    net = MaskedNetwork.build("lenet300", Collapses(from_step=from_step), channels=1, image_size=8, classes=10, seed=3)
    fit = TrainConfig(length="200it", batch_size=BATCH, optimizer=SGD(lr=0.05))
    with bench.prepare(net) as wrapped:
        training = bench.make_loop(
            net, wrapped, Numbers(), fit, set_size=COUNT, seed=0, progress=Progress(0, show=False)
        )
        if from_step == 150:
            training.run(0, 200)  # fifty steps are no proof
        else:
            with pytest.raises(Diverged, match=r"has collapsed: for 100 steps up to step 105 .* 0\.5, .* smaller --lr"):
                training.run(0, 200)
