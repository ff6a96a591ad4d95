"""SimCLR and MoCo v2: their losses by definition, the queue, the key encoder, and two processes against one."""

import copy
import math
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from lightly.loss import NTXentLoss
from torch import Tensor, nn

from sslticket.config.recipe import Data
from sslticket.data.augment import Blur, Jitter, View
from sslticket.data.loader import Batch
from sslticket.errors import BadInput
from sslticket.objectives.base import Objective
from sslticket.objectives.byol import BYOL
from sslticket.objectives.mocov2 import MoCoV2
from sslticket.objectives.simclr import SimCLR
from sslticket.pruning import pruned_model
from sslticket.pruning.mask import Mask
from sslticket.pruning.prunable import prunable_weights
from sslticket.training.network import MaskedNetwork
from tests.gloo import run_in_processes

BOTH = [SimCLR(dim=6), MoCoV2(dim=6, queue=10, momentum=0.9)]
IDS = ["simclr", "mocov2"]


class Embeddings(nn.Module):
    """Views of shape (B, D, 1, 1) are the projections themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.heads = nn.Flatten(), nn.Identity()


def batch(count: int, step: int = 0, shape: tuple[int, int, int] = (1, 8, 8)) -> Batch:
    generator = torch.Generator().manual_seed(step)
    views = tuple(torch.randn(count, *shape, generator=generator) for _ in range(2))
    return Batch(views, torch.full((count,), -1), torch.arange(count))


def build(objective: Objective, model: str = "lenet300", seed: int = 0) -> MaskedNetwork:
    return MaskedNetwork.build(model, objective, channels=1, image_size=8, classes=10, seed=seed)


def train(net: MaskedNetwork, start: int, stop: int, count: int = 4) -> list[Tensor]:
    """Plain SGD; the loss terms of every step."""
    parameters = [parameter for parameter in net.parameters() if parameter.requires_grad]
    losses = []
    for step in range(start, stop):
        (loss,) = net(batch(count, step), step / 10).values()
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.data.sub_(0.1 * gradient)
        net.objective.after_step(net, step / 10)
        losses.append(loss.detach())
    return losses


def test_nt_xent_is_minus_the_log_share_of_the_other_view() -> None:
    count, objective, data = 5, SimCLR(temperature=0.3), batch(5, shape=(7, 1, 1))
    every = F.normalize(torch.cat(data.views).flatten(1).double(), dim=1)
    rows = []
    for i in range(2 * count):
        weights = {k: math.exp(float(every[i] @ every[k]) / 0.3) for k in range(2 * count) if k != i}
        rows.append(-math.log(weights[(i + count) % (2 * count)] / sum(weights.values())))
    (loss,) = objective.loss(Embeddings(), data, 0.0).values()
    assert loss.item() == pytest.approx(sum(rows) / len(rows), rel=1e-6)
    each = [(rows[i] + rows[i + count]) / 2 for i in range(count)]
    assert objective.metrics(Embeddings(), data)["loss"].tolist() == pytest.approx(each, rel=1e-6)


@pytest.mark.parametrize("count", [2, 5, 64])
def test_nt_xent_is_lightlys_to_the_bit_in_value_and_gradient(count: int) -> None:
    numbers = torch.Generator().manual_seed(count)
    ours = [torch.randn(count, 7, generator=numbers).requires_grad_() for _ in range(2)]
    theirs = [one.detach().clone().requires_grad_() for one in ours]
    data = Batch(tuple(one[:, :, None, None] for one in ours), torch.zeros(count), torch.arange(count))
    (loss,) = SimCLR(temperature=0.3).loss(Embeddings(), data, 0.0).values()
    # The objective cuts both views out of one tensor.
    expected = NTXentLoss(temperature=0.3)(*torch.cat(theirs).chunk(2))
    loss.backward(), expected.backward()
    assert torch.equal(loss, expected)
    assert all(torch.equal(one.grad, other.grad) for one, other in zip(ours, theirs, strict=True))


def test_a_constant_embedding_has_the_collapsed_loss() -> None:
    constant = Batch((torch.ones(8, 4, 1, 1),) * 2, torch.zeros(8), torch.arange(8))
    (loss,) = SimCLR().loss(Embeddings(), constant, 0.0).values()
    assert loss.item() == pytest.approx(SimCLR().collapsed_loss(8), rel=1e-6)
    objective = MoCoV2(dim=4, queue=12)
    net = build(objective)
    for projection in (net.heads.projection, net.heads.momentum.projection):  # type: ignore[union-attr]
        last = cast(Any, projection).layers[-1]
        nn.init.zeros_(last.weight), nn.init.ones_(last.bias)
    losses = [objective.loss(net, batch(4, step), 0.0)["contrast"].item() for step in range(4)]
    assert losses[3] == pytest.approx(objective.collapsed_loss(4), rel=1e-6), "12 keys have filled the queue"
    assert losses[0] != pytest.approx(losses[3], rel=1e-2), "it began with random keys"


def test_a_query_is_compared_with_its_key_and_the_queue_before_its_batch() -> None:
    objective = MoCoV2(dim=5, queue=9, temperature=0.4)
    net = build(objective)
    heads = cast(Any, net.heads)
    for step in range(3):
        data, queue = batch(4, step), heads.queue.double()
        with torch.no_grad():
            query = F.normalize(heads.projection(net.backbone(data.views[0])).double(), dim=1)
            key = F.normalize(heads.momentum(data.views[1]).double(), dim=1)
            rows = []
            for q, k in zip(query, key, strict=True):
                own, others = math.exp(float(q @ k) / 0.4), sum(math.exp(float(q @ old) / 0.4) for old in queue)
                rows.append(-math.log(own / (own + others)))
            net.eval()
            assert objective.metrics(net, data)["loss"].tolist() == pytest.approx(rows, rel=1e-5)
            net.train()
        assert train(net, step, step + 1)[0].item() == pytest.approx(sum(rows) / 4, rel=1e-5)


def test_the_queue_replaces_the_oldest_keys_and_wraps_around() -> None:
    net = build(MoCoV2(dim=5, queue=7, momentum=0.5))
    heads = cast(Any, net.heads)
    torch.testing.assert_close(heads.queue.norm(dim=1), torch.ones(7))
    history = list(heads.queue.clone())
    for step in range(6):
        history += F.normalize(heads.momentum(batch(3, step).views[1]), dim=1)
        train(net, step, step + 1, count=3)
        assert int(heads.oldest) == 3 * (step + 1) % 7
        in_order = heads.queue.roll(-int(heads.oldest), dims=0)
        assert torch.equal(in_order, torch.stack(history[-7:])), f"the last 7 keys, oldest first, after step {step}"


def test_the_key_encoder_follows_the_weights_and_has_no_gradient() -> None:
    net = build(MoCoV2(dim=5, queue=7, momentum=0.9))
    heads = cast(Any, net.heads)
    expected = [weight.double() for weight in heads.momentum.parameters()]
    assert not any(weight.requires_grad for weight in heads.momentum.parameters())
    for step in range(5):
        train(net, step, step + 1)
        theirs = (*net.backbone.parameters(), *heads.projection.parameters())
        expected = [0.9 * mine + 0.1 * other.detach().double() for mine, other in zip(expected, theirs, strict=True)]
    for mine, value in zip(heads.momentum.parameters(), expected, strict=True):
        torch.testing.assert_close(mine.double(), value, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("objective", BOTH, ids=IDS)
def test_every_trained_parameter_gets_a_gradient(objective: Objective) -> None:
    net = build(objective, "resnet20")
    (loss,) = net(batch(4), 0.0).values()
    loss.backward()
    for name, parameter in net.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


@pytest.mark.parametrize("objective", BOTH, ids=IDS)
def test_metrics_are_per_image_and_change_nothing(objective: Objective) -> None:
    net = build(objective, "resnet20")
    train(net, 0, 2)
    net.eval()
    before = copy.deepcopy(dict(net.named_buffers()) | net.state_dict())
    with torch.no_grad():
        metrics = objective.metrics(net, batch(5, 9))
    assert {value.shape for value in metrics.values()} == {(5,)}
    for name, value in (dict(net.named_buffers()) | net.state_dict()).items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("objective", BOTH, ids=IDS)
def test_a_net_written_from_another_goes_on_as_that_one_does(objective: Objective) -> None:
    first, second = build(objective, "resnet20"), build(objective, "resnet20", seed=1)
    train(first, 0, 3)
    pruned_model.write_state(second, pruned_model.read_state(first))
    for one, other in zip(train(first, 3, 6), train(second, 3, 6), strict=True):
        assert torch.equal(one, other)


def test_a_mask_falls_on_the_key_encoder_and_stays() -> None:
    net = build(MoCoV2(dim=5, queue=7, momentum=0.5), "conv3")
    train(net, 0, 2)
    names, stored = prunable_weights(net.backbone), pruned_model.stored_state(net.backbone)
    mask = Mask({name: (torch.rand_like(stored[name]) < 0.3) for name in names})
    pruned_model.set_mask_everywhere(net, mask)
    before = pruned_model.read_state(net)
    train(net, 2, 5)
    state = pruned_model.read_state(net)
    for name in names:
        for copied in (f"backbone.{name}", f"heads.momentum.backbone.{name}"):
            assert torch.equal(state[copied] != 0, mask[name]), copied
            assert not torch.equal(state[copied], before[copied]), copied


def test_too_few_images_or_too_short_a_queue_is_refused() -> None:
    with pytest.raises(BadInput, match="at least 2 images at a time, got 1; give a larger --batch-size"):
        SimCLR().check(1, 2)
    with pytest.raises(BadInput, match="--queue must be at least the batch of 17 images, got 16; give --queue 17"):
        MoCoV2(queue=16).check(17, 2)
    SimCLR().check(2, 2), MoCoV2(queue=16).check(16, 2)


def test_small_images_are_jittered_and_not_blurred() -> None:
    large, small = View(size=224, crop="resized", flip=True), View(size=32, crop="pad", pad=2, flip=True)
    assert [type(effect).__name__ for effect in SimCLR().views(large)[0].transforms] == ["Jitter", "Grayscale", "Blur"]
    (view, other) = SimCLR(strength=0.5).views(small)
    assert view == other
    jitter, _ = cast(Any, view.transforms)
    assert (jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue) == (0.4, 0.4, 0.4, 0.1)
    assert (view.crop, view.size, view.scale, view.flip) == ("resized", 32, (0.08, 1.0), True)


def two_steps(net: MaskedNetwork, rows: slice, wrapped: nn.Module | None = None) -> dict[str, Tensor]:
    """Two steps on these rows of batches of 8; everything the net holds afterwards."""
    optimizer = torch.optim.SGD([value for value in net.parameters() if value.requires_grad], lr=0.5)
    for step in range(2):
        whole = batch(8, step)
        part = Batch(tuple(view[rows] for view in whole.views), whole.labels[rows], whole.indices[rows])
        optimizer.zero_grad()
        (loss,) = (wrapped or net)(part, 0.0).values()
        loss.backward()
        optimizer.step()
        net.objective.after_step(net, 0.0)
    return net.state_dict()


def without_batch_norm(objective: Objective) -> MaskedNetwork:
    """Batch statistics are one process's own."""
    net = build(objective)
    for module in net.heads.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm1d):
                setattr(module, name, nn.Identity())
    return net


def process(rank: int, folder: str) -> None:
    for name, objective in zip(IDS, BOTH, strict=True):
        net = without_batch_norm(objective)
        seen: list[Tensor] = []
        if isinstance(objective, MoCoV2):
            encoder = cast(Any, net.heads).momentum.backbone
            encoder.register_forward_pre_hook(lambda _, images, seen=seen: seen.extend(images))
        torch.manual_seed(rank)
        wrapped = nn.parallel.DistributedDataParallel(net)
        torch.save((two_steps(net, slice(4 * rank, 4 * rank + 4), wrapped), seen), f"{folder}/{name}-{rank}")


def test_two_processes_learn_what_one_learns_from_the_joined_batch(tmp_path: Path) -> None:
    run_in_processes(process, tmp_path)
    for name, objective in zip(IDS, BOTH, strict=True):
        net = without_batch_norm(objective)
        start = {key: value.clone() for key, value in net.state_dict().items()}
        alone = two_steps(net, slice(None))
        (first, seen), (second, rest) = (torch.load(tmp_path / f"{name}-{rank}") for rank in range(2))
        for key, value in alone.items():
            assert torch.equal(first[key], second[key]), key
            torch.testing.assert_close(first[key], value, rtol=1e-4, atol=1e-6)
        moved = [key for key, value in alone.items() if not torch.equal(value, start[key])]
        assert any(key.startswith("backbone") for key in moved)
        assert any(key.startswith("heads") for key in moved)
    for step in range(2):
        images = batch(8, step).views[1].flatten(1)
        shuffled = torch.cat([seen[step], rest[step]]).flatten(1)
        places = torch.cdist(shuffled, images).argmin(dim=1)
        assert places.sort().values.tolist() == list(range(8)), "the key encoders see every image once"
        assert set(places[:4].tolist()) != set(range(4)), "and not each process its own"


def test_simclr_views_have_the_papers_jitter_and_blur() -> None:
    """Chen et al. 2020, appendix A: strength 1 is jitter of 0.8, 0.8, 0.8, 0.2; the kernel is a tenth of the side."""
    view, other = SimCLR().views(View(size=224, crop="resized", flip=True))
    assert view == other
    jitter, _, blur = view.transforms
    assert isinstance(jitter, Jitter)
    assert (jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue) == (0.8, 0.8, 0.8, 0.2)
    assert isinstance(blur, Blur)
    assert (blur.kernel, blur.sigma, blur.probability) == (23, (0.1, 2.0), 0.5)


def test_a_width_of_zero_and_labels_of_zero_are_refused() -> None:
    with pytest.raises(BadInput, match="must be at least 1"):
        BYOL(dim=0)
    with pytest.raises(BadInput, match=r"--labels must be in \(0, 1\], got 0"):
        Data(dataset="digits", labels=0.0)
