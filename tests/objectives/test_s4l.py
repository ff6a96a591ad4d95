import math
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from sslticket.data.loader import Batch
from sslticket.errors import BadInput
from sslticket.objectives.exemplar import Exemplar
from sslticket.objectives.s4l import S4LExemplar, S4LRotation
from sslticket.training.network import MaskedNetwork

ROTATION = S4LRotation(weight=0.7)
EXEMPLAR = S4LExemplar(weight=0.7, exemplar=Exemplar(copies=3, dim=6, mining="hard"))
# One labelled image among three; the last row shows the same photograph as the first, its label hidden.
LABEL, ROW = torch.tensor([4, -1, 2, -1, -1]), torch.tensor([0, 11, 1, 12, 10])


class Counting(nn.Module):
    """Features of images, and how many images each call had."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone, self.calls = backbone, list[int]()

    def forward(self, images: Tensor) -> Tensor:
        self.calls.append(len(images))
        features: Tensor = self.backbone(images)
        return features


def net(objective: S4LRotation | S4LExemplar) -> MaskedNetwork:
    return MaskedNetwork.build("lenet300", objective, channels=1, image_size=8, classes=10, seed=0)


def batch(copies: int) -> Batch:
    numbers = torch.Generator().manual_seed(2)
    images = torch.rand(4, 1, 8, 8, generator=numbers)
    images = torch.cat([images, images[:1]])
    views = (torch.rand(images.shape, generator=numbers) * 0.3 + images for _ in range(copies))
    return Batch(tuple(views), LABEL, ROW)


def cross_entropy(logits: Tensor, target: int) -> float:
    exact = logits.double()
    return (exact.exp().sum().log() - exact[target]).item()


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def head(which: MaskedNetwork, name: str, images: Tensor) -> Tensor:
    assert isinstance(which.heads, nn.ModuleDict)
    output: Tensor = which.heads[name](which.backbone(images)).detach()
    return output


def test_the_rotation_loss_is_the_papers_formula() -> None:
    which, given = net(ROTATION), batch(1)
    labels, known, hidden = [], [], []
    for image, label in zip(given.views[0], LABEL.tolist(), strict=True):
        for turn in range(4):
            turned = torch.rot90(image, turn, (1, 2))[None]
            (known if label >= 0 else hidden).append(cross_entropy(head(which, "rotation", turned)[0], turn))
            if label >= 0:
                labels.append(cross_entropy(head(which, "labels", turned)[0], label))
    loss = which(given, 0.0)
    assert loss["labels"].item() == pytest.approx(mean(labels), rel=1e-5)
    assert loss["rotation"].item() == pytest.approx(0.7 * (mean(hidden) + mean(known)) / 2, rel=1e-5)


def test_the_exemplar_loss_is_labels_and_the_hardest_triplets_within_each_stream() -> None:
    which, given = net(EXEMPLAR), batch(3)
    labels = [
        cross_entropy(head(which, "labels", view[i : i + 1])[0], LABEL[i].item())
        for view, i in product(given.views, (0, 2))
    ]
    units = {
        (v, i): nn.functional.normalize(head(which, "exemplar", view[i : i + 1])[0].double(), dim=0)
        for v, view in enumerate(given.views)
        for i in range(5)
    }
    streams = []
    for stream in ([0, 2], [1, 3, 4]):
        members = list(product(range(3), stream))
        losses = []
        for a in members:
            far = max((units[a] - units[p]).norm().item() for p in members if p[1] == a[1])
            near = min((units[a] - units[n]).norm().item() for n in members if n[1] != a[1])
            losses.append(math.log(1 + math.exp(far - near)))
        streams.append(mean(losses))
    loss = which(given, 0.0)
    assert loss["labels"].item() == pytest.approx(mean(labels), rel=1e-5)
    assert loss["triplets"].item() == pytest.approx(0.7 * mean(streams), rel=1e-4)


@pytest.mark.parametrize("objective", [ROTATION, EXEMPLAR])
def test_an_image_with_a_hidden_label_has_no_part_in_the_label_loss(objective: S4LRotation | S4LExemplar) -> None:
    which, (views, label, row) = net(objective), batch(3)
    views = tuple(view.requires_grad_() for view in views)
    loss = which(Batch(views, label, row), 0.0)
    (of_labels,) = torch.autograd.grad(loss["labels"], views[:1], retain_graph=True)
    (of_all,) = torch.autograd.grad(sum(loss.values()), views[:1])
    assert ((of_labels.abs().amax(dim=(1, 2, 3)) > 0) == (label >= 0)).all()
    assert (of_all.abs().amax(dim=(1, 2, 3)) > 0).all(), "the other task is on all images"


@pytest.mark.parametrize(("objective", "images"), [(ROTATION, 4 * 5), (EXEMPLAR, 3 * 5)])
def test_both_streams_go_through_the_backbone_together(objective: S4LRotation | S4LExemplar, images: int) -> None:
    """Batch norm sees one batch, as in the paper."""
    which = net(objective)
    which.backbone = counting = Counting(which.backbone)
    which(batch(3 if objective is EXEMPLAR else 1), 0.0)
    assert counting.calls == [images]


@pytest.mark.parametrize("objective", [ROTATION, EXEMPLAR, S4LExemplar(exemplar=Exemplar(copies=3, dim=6))])
@pytest.mark.parametrize("label", [torch.full((5,), -1), torch.arange(5)])
def test_a_part_with_one_stream_only_still_trains_every_weight(
    objective: S4LRotation | S4LExemplar, label: Tensor
) -> None:
    which, given = net(objective), batch(3)
    loss = which(given._replace(labels=label), 0.0)
    assert all(term.isfinite() for term in loss.values())
    torch.stack(list(loss.values())).sum().backward()
    assert all(weight.grad is not None for weight in which.parameters() if weight.requires_grad)


class Corner(nn.Module):
    """Features of an image: its four corners, clockwise from the top left."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([images[:, 0, 0, 0], images[:, 0, 0, -1], images[:, 0, -1, -1], images[:, 0, -1, 0]], dim=1)


def test_accuracy_upright_and_of_the_mean_logits_of_four_turns() -> None:
    """The top left corner votes for class 1, twice as bright corners elsewhere are outvoted upright only."""
    heads = nn.ModuleDict({"labels": nn.Linear(4, 6, bias=False), "rotation": nn.Linear(4, 4, bias=False)})
    with torch.no_grad():
        labels, rotation = heads["labels"].weight, heads["rotation"].weight
        labels.zero_(), rotation.zero_()
        labels[1, 0] = 1.0  # class 1: the top left corner; over four turns, the sum of all corners
        labels[0, 1] = 0.5  # class 0: half of the top right corner
        rotation[0, 0] = rotation[3, 1] = rotation[2, 2] = rotation[1, 3] = 1.0  # where the brightest corner went
    which = MaskedNetwork(Corner(), heads, ROTATION)
    images = torch.zeros(2, 1, 3, 3)
    images[0, 0, 0, 2] = 1.0  # top right only: class 0 upright, class 1 by four turns
    images[1, 0, 0, 0] = 1.0  # top left only: class 1 both ways
    metrics = ROTATION.metrics(which, Batch((images,), torch.tensor([1, 1]), torch.arange(2)))
    assert metrics["top1"].tolist() == [0, 1]
    assert metrics["top1 of four turns"].tolist() == [1, 1]
    # Turning counter-clockwise by k takes the top left corner k corners back: the head's answers are right.
    assert metrics["rotation accuracy"].tolist() == [0, 1]
    last = ROTATION.metrics(which, Batch((images,), torch.tensor([5, 0]), torch.arange(2)))
    assert last["top5"].tolist()[1] == 1
    assert {name: value.shape for name, value in last.items()} == dict.fromkeys(metrics, (2,))


def test_the_loss_on_evaluation_images_is_that_of_labelled_images_in_training() -> None:
    which = net(ROTATION)
    given = batch(1)._replace(labels=torch.arange(5))
    metrics = ROTATION.metrics(which, given)
    images, turns = given.views[0], range(4)
    for i in range(5):
        turned = [torch.rot90(images[i : i + 1], turn, (2, 3)) for turn in turns]
        labels = mean([cross_entropy(head(which, "labels", image)[0], i) for image in turned])
        rotation = mean([cross_entropy(head(which, "rotation", turned[turn])[0], turn) for turn in turns])
        assert metrics["loss"][i].item() == pytest.approx(labels + 0.7 * rotation, rel=1e-5)


def test_s4l_exemplar_is_measured_on_plain_images() -> None:
    which = net(EXEMPLAR)
    given = batch(1)._replace(labels=torch.arange(5))
    logits = head(which, "labels", given.views[0])
    metrics = EXEMPLAR.metrics(which, given)
    order = logits.argsort(dim=1, descending=True).tolist()
    assert metrics["top1"].tolist() == [float(order[i][0] == i) for i in range(5)]
    assert metrics["top5"].tolist() == [float(i in order[i][:5]) for i in range(5)]
    assert 0 < metrics["top5"].mean() < 1, "both outcomes are among them"
    assert metrics["loss"].tolist() == pytest.approx([cross_entropy(logits[i], i) for i in range(5)], rel=1e-5)


def test_a_part_of_a_batch_has_images_of_both_streams() -> None:
    assert S4LRotation(share=0.1).labelled_fraction == 0.1
    S4LRotation(share=0.1).check(10, 1)
    S4LRotation(share=0.9).check(10, 1)
    with pytest.raises(BadInput, match=r"got 0.9 labelled of 9; give a --share nearer to 0.5, a larger --batch-size"):
        S4LRotation(share=0.1).check(9, 1)
    with pytest.raises(BadInput, match="1 labelled and 1 unlabelled images at a time"):
        S4LRotation(share=0.9).check(9, 1)
    S4LExemplar().check(4, 8)
    with pytest.raises(BadInput, match="s4l-exemplar must get at least 2 labelled and 2 unlabelled images"):
        S4LExemplar().check(3, 8)
    with pytest.raises(BadInput, match="at least 2 views of an image to compare, got 1"):
        S4LExemplar().check(8, 1)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5])
def test_a_share_leaves_room_for_both_streams(share: float) -> None:
    with pytest.raises(BadInput, match="--share must be between 0 and 1"):
        S4LRotation(share=share)


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(BadInput, match="--weight must be at least 0, got -1"):
        S4LExemplar(weight=-1.0)
