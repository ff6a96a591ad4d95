import math
from itertools import product
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from pytorch_metric_learning.distances import CosineSimilarity, LpDistance
from pytorch_metric_learning.losses import TripletMarginLoss
from pytorch_metric_learning.miners import BatchHardMiner
from pytorch_metric_learning.reducers import DoNothingReducer, MeanReducer
from torch import Tensor, nn
from torch import distributed as dist

from sslticket.data.augment import HSVNoise, Rotate, View
from sslticket.data.loader import Batch
from sslticket.errors import BadInput
from sslticket.objectives import exemplar
from sslticket.objectives.base import Objective
from sslticket.objectives.exemplar import Exemplar
from sslticket.objectives.s4l import S4LExemplar, S4LRotation
from sslticket.training.network import MaskedNetwork
from tests.gloo import run_in_processes

ALL, HARD = Exemplar(), Exemplar(mining="hard")
# Two views each of four images; two of them are the same row, which a set smaller than a batch shows twice.
ROWS = torch.tensor([4, 9, 4, 7])


def embeddings() -> Tensor:
    """(8, 5), with one direction in common so that some triplets are violated and some are not."""
    numbers = torch.Generator().manual_seed(3)
    return torch.randn(8, 5, generator=numbers) + 0.5


def by_hand(embedded: Tensor, image: Tensor, mining: str) -> float:
    """The definition: loops over anchors, positives and negatives, in float64."""
    unit = embedded.double() / embedded.double().norm(dim=1, keepdim=True)
    places = range(len(image))
    losses = []
    for a in places:
        positives = [p for p in places if p != a and image[p] == image[a]]
        negatives = [n for n in places if image[n] != image[a]]
        if mining == "hard":
            far = max((unit[a] - unit[p]).norm().item() for p in positives)
            near = min((unit[a] - unit[n]).norm().item() for n in negatives)
            losses.append(math.log(1 + math.exp(far - near)))
        else:
            cosine = {i: (unit[a] @ unit[i]).item() for i in places}
            losses += [
                max((1 - cosine[p]) - (1 - cosine[n]) + 0.5, 0.0) for p, n in product(positives, negatives)
            ]  # distance to the positive minus distance to the negative plus margin
    return sum(losses) / len(losses)


def given(embedded: Tensor, rows: Tensor = ROWS) -> Batch:
    """A batch whose two views are its embeddings, for a net that passes them on."""
    one, two = embedded.chunk(2)
    return Batch((one, two), torch.zeros_like(rows), rows)


def passing() -> MaskedNetwork:
    return MaskedNetwork(nn.Identity(), nn.Identity(), ALL)


@pytest.mark.parametrize("objective", [ALL, HARD])
def test_the_loss_is_the_definition_and_equal_rows_are_one_image(objective: Exemplar) -> None:
    (loss,) = objective.loss(passing(), given(embeddings()), 0.0).values()
    assert math.isclose(loss.item(), by_hand(embeddings(), ROWS.repeat(2), objective.mining), rel_tol=1e-6)
    other = by_hand(embeddings(), torch.arange(4).repeat(2), objective.mining)
    assert abs(loss.item() - other) > 0.01, "as if equal rows were negatives of each other"


@pytest.mark.parametrize("at_once", [8, 24, 2**27])
def test_all_triplets_are_those_of_pytorch_metric_learning_in_value_and_gradient(
    monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    """However many pairs are held in memory together."""
    monkeypatch.setattr(exemplar, "_MAX_HINGES_IN_MEMORY", at_once)
    ours, theirs = (embeddings().requires_grad_() for _ in range(2))
    loss = ALL.triplet_loss(ours, ROWS.repeat(2))
    reference = TripletMarginLoss(margin=0.5, distance=CosineSimilarity(), reducer=MeanReducer())
    expected = reference(theirs, ROWS.repeat(2))
    torch.testing.assert_close(loss, expected)
    loss.backward(), expected.backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_hard_mining_is_that_of_pytorch_metric_learning_in_value_and_gradient() -> None:
    ours, theirs = (embeddings().requires_grad_() for _ in range(2))
    loss = HARD.triplet_loss(ours, ROWS.repeat(2))
    distance = LpDistance()
    reference = TripletMarginLoss(margin=0.0, smooth_loss=True, distance=distance, reducer=MeanReducer())
    expected = reference(theirs, ROWS.repeat(2), BatchHardMiner(distance=distance)(theirs, ROWS.repeat(2)))
    torch.testing.assert_close(loss, expected)
    loss.backward(), expected.backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("images", [2, 6, 40])
def test_the_hardest_triplets_are_the_librarys_to_the_bit(images: int) -> None:
    """Of the same embeddings, which are moved to their mean before any distance is measured."""
    numbers = torch.Generator().manual_seed(images)
    ours = torch.randn(3 * images, 9, generator=numbers).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    image = (torch.arange(images) // 2 * 2 if images > 2 else torch.arange(images)).repeat(3)
    losses = exemplar.batch_hard_triplets(ours, image)
    unit = F.normalize(theirs, dim=1)
    unit = unit - unit.detach().mean(dim=0)
    distance = LpDistance(normalize_embeddings=False)
    reference = TripletMarginLoss(margin=0.0, smooth_loss=True, distance=distance, reducer=DoNothingReducer())
    expected = reference(unit, image, BatchHardMiner(distance=distance)(unit, image))["loss"]["losses"]
    assert torch.equal(losses, expected)
    losses.sum().backward(), expected.sum().backward()
    assert torch.equal(ours.grad, theirs.grad)


def test_where_all_are_of_one_image_no_triplet_has_a_loss() -> None:
    embedded = embeddings().requires_grad_()
    losses = exemplar.batch_hard_triplets(embedded, torch.full((8,), 3))
    assert losses.tolist() == [0.0] * 8
    losses.sum().backward()
    assert torch.equal(embedded.grad, torch.zeros(8, 5))


@pytest.mark.parametrize(("objective", "value"), [(ALL, 0.5), (HARD, math.log(2))])
def test_a_collapsed_embedding_has_the_loss_that_stops_a_run(objective: Exemplar, value: float) -> None:
    """Up to float32: 100 images, since Euclidean distances of more than 25 come from a matrix product."""
    collapsed = torch.randn(1, 1000, generator=torch.Generator().manual_seed(0)).repeat(200, 1)
    collapsed += 1e-7 * torch.randn(200, 1000, generator=torch.Generator().manual_seed(1))
    assert objective.collapsed_loss(100) == value
    loss = objective.triplet_loss(collapsed, torch.arange(100).repeat(2)).item()
    assert abs(loss - value) < 2e-6


@pytest.mark.parametrize("objective", [ALL, HARD])
def test_mixed_precision_does_not_round_the_distances(objective: Exemplar) -> None:
    """In bfloat16 a cosine near 1 has steps of 0.004, more than similar views differ by."""
    close = embeddings() + 10
    exact = objective.triplet_loss(close, ROWS.repeat(2))
    with torch.autocast("cpu", torch.bfloat16):
        assert objective.triplet_loss(close, ROWS.repeat(2)) == exact


@pytest.mark.parametrize("objective", [ALL, HARD])
def test_metrics_are_the_counts_over_every_triplet(objective: Exemplar) -> None:
    embedded, image = embeddings(), ROWS.repeat(2)
    metrics = objective.metrics(passing(), given(embedded))
    unit = F.normalize(embedded.double(), dim=1)
    distance = 1 - unit @ unit.T
    margin = 0.5 if objective is ALL else 0.0
    for i in range(4):
        active, positive, negative = [], [], []
        for a in (i, 4 + i):
            to_same = [distance[a, p].item() for p in range(8) if p != a and image[p] == image[a]]
            to_other = [distance[a, n].item() for n in range(8) if image[n] != image[a]]
            above = [p - n + margin > 0 for p in to_same for n in to_other]
            active.append(sum(above) / len(above))
            positive.append(sum(to_same) / len(to_same))
            negative.append(sum(to_other) / len(to_other))
        assert metrics["active triplets"][i].item() == pytest.approx(sum(active) / 2)
        assert metrics["positive distance"][i].item() == pytest.approx(sum(positive) / 2, rel=1e-5)
        assert metrics["negative distance"][i].item() == pytest.approx(sum(negative) / 2, rel=1e-5)
        nearest = min((distance[i, j].item(), j) for j in range(8) if j != i)[1]
        assert metrics["retrieval top1"][i].item() == float(image[nearest] == image[i])
    assert 0 < metrics["retrieval top1"].mean() < 1, "both outcomes are among them"
    assert 0 < metrics["active triplets"].mean() < 1
    apart = objective.metrics(passing(), given(embedded, torch.arange(4)))
    (loss,) = objective.loss(passing(), given(embedded, torch.arange(4)), 0.0).values()
    assert apart["loss"].mean().item() == pytest.approx(loss.item()), "without equal rows every anchor weighs the same"


@pytest.mark.parametrize("objective", [ALL, HARD])
def test_the_last_batch_of_a_set_may_be_one_image(objective: Exemplar) -> None:
    alone = objective.metrics(passing(), given(embeddings()[:2], ROWS[:1]))
    assert {name: value.item() for name, value in alone.items() if name != "positive distance"} == {
        "retrieval top1": 0,
        "active triplets": 0,
        "negative distance": 0,
        "loss": 0,
    }
    assert 0 < alone["positive distance"].item() < 2


def test_views_are_the_standard_view_then_turned_then_coloured() -> None:
    standard = View(size=32, crop="pad", pad=2, flip=True)
    views = Exemplar(copies=3).views(standard)
    assert views == (View(size=32, crop="pad", pad=2, flip=True, transforms=(Rotate(degrees=20.0), HSVNoise())),) * 3
    published = S4LExemplar().views(standard)
    assert published == (View(size=32, crop="pad", pad=2, flip=True, transforms=(HSVNoise(),)),) * 8


def test_the_embedding_does_not_depend_on_the_datas_classes() -> None:
    net = MaskedNetwork.build("lenet300", Exemplar(dim=64), channels=1, image_size=8, classes=10, seed=0)
    assert net.heads(net.backbone(torch.rand(2, 1, 8, 8))).shape == (2, 64)


# Shared by two processes: the images of rows 0 and 1 lie on both, as at the end of an epoch.
OBJECTIVES: tuple[Objective, ...] = (
    Exemplar(dim=16),
    Exemplar(dim=16, mining="hard"),
    S4LRotation(),
    S4LExemplar(exemplar=Exemplar(dim=16, mining="hard")),
)
JOINED = torch.tensor([0, 1, 2, 3, 0, 1, 4, 5])


def gradients(objective: Objective, part: slice) -> Tensor:
    """All gradients of a net without batch norm, by the images in this part of the joined batch."""
    numbers = torch.Generator().manual_seed(5)
    views = tuple(torch.rand(8, 1, 8, 8, generator=numbers)[part] for _ in range(2))
    label = torch.tensor([3, -1, 1, -1, 3, -1, 2, -1])[part]
    net = MaskedNetwork.build("lenet300", objective, channels=1, image_size=8, classes=10, seed=0)
    torch.stack(list(net(Batch(views, label, JOINED[part]), 0.0).values())).sum().backward()
    return torch.cat([weight.grad.flatten() for weight in net.parameters() if weight.grad is not None])


def one_of_two(rank: int, folder: str) -> None:
    for number, objective in enumerate(OBJECTIVES):
        mean = gradients(objective, slice(4 * rank, 4 * rank + 4)) / 2
        dist.all_reduce(mean)  # as distributed training averages gradients
        if rank == 0:
            torch.save(mean, f"{folder}/{number}.pt")


def test_two_processes_have_the_gradient_of_one_with_the_joined_batch(tmp_path: Path) -> None:
    run_in_processes(one_of_two, tmp_path)
    for number, objective in enumerate(OBJECTIVES):
        expected = gradients(objective, slice(None))
        assert expected.abs().max() > 1e-4
        torch.testing.assert_close(torch.load(tmp_path / f"{number}.pt"), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"copies": 1}, "--copies must be at least 2, got 1; give --copies 2"),
        ({"dim": 0}, "--dim must be at least 1, got 0; give --dim 1000"),
        ({"mining": "semihard"}, "unknown mining 'semihard'; did you mean hard?"),
        ({"degrees": -1.0}, "must be in .*, got -1; give --degrees 20"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, object], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        Exemplar(**settings)  # type: ignore[arg-type]


def test_a_triplet_needs_two_images_and_two_views() -> None:
    ALL.check(2, 2)
    with pytest.raises(BadInput, match="at least 2 images at a time, got 1; give a larger --batch-size, or fewer"):
        ALL.check(1, 2)
    with pytest.raises(BadInput, match="exemplar must get at least 2 views of an image to compare, got 1"):
        ALL.check(8, 1)
