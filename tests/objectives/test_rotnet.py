import math

import pytest
import torch
from torch import nn

from sslticket.data.loader import Batch
from sslticket.objectives.rotnet import RotNet, four_rotations
from sslticket.objectives.supervised import Supervised


class Net:
    def __init__(self, backbone: nn.Module, heads: nn.Module) -> None:
        self.backbone, self.heads = backbone, heads


def batch(images: torch.Tensor, label: torch.Tensor | None = None) -> Batch:
    count = len(images)
    return Batch((images,), torch.zeros(count, dtype=torch.int64) if label is None else label, torch.arange(count))


def test_class_k_is_the_image_turned_k_times_counter_clockwise() -> None:
    images = torch.arange(2 * 3 * 4 * 4.0).view(2, 3, 4, 4)
    turned, classes = four_rotations(images)
    assert classes.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    for number, image in enumerate(images):
        for turn in range(4):
            torch.testing.assert_close(turned[2 * turn + number], torch.rot90(image, turn, (1, 2)), rtol=0, atol=0)
    corner = torch.zeros(1, 1, 4, 4)
    corner[0, 0, 0, 3] = 1  # top right goes to the top left when turned counter-clockwise once
    assert four_rotations(corner)[0][1, 0, 0, 0] == 1


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(3, 3, 200, 200), (300, 3, 32, 32), (2, 3, 5, 5)])
def test_a_batch_is_turned_in_parts_and_keeps_its_memory_format(
    shape: tuple[int, ...], layout: torch.memory_format
) -> None:
    images = torch.rand(shape).to(memory_format=layout)
    turned, classes = four_rotations(images)
    for turn, (found, numbers) in enumerate(zip(turned.chunk(4), classes.chunk(4), strict=True)):
        assert torch.equal(found, torch.rot90(images, turn, (2, 3)))
        assert numbers.tolist() == [turn] * len(images)
    assert turned.is_contiguous(memory_format=layout)


def test_a_mirror_image_before_turning_keeps_the_classes_apart() -> None:
    """The trap: turning and then mirroring makes 90 degrees out of 270; we mirror first, in the loader."""
    image = torch.rand(1, 1, 5, 5)
    turned, _ = four_rotations(image.flip(3))
    assert torch.equal(turned[1], torch.rot90(image.flip(3), 1, (2, 3))[0])
    assert torch.equal(torch.rot90(image, 1, (2, 3)).flip(3)[0], turned[3]), "class 1 mirrored afterwards is class 3"


def test_the_loss_is_the_mean_over_four_copies_and_chance_is_log_four() -> None:
    objective = RotNet()
    net = Net(nn.Flatten(), objective.heads(nn.Identity(), features=12, classes=1000))
    head = net.heads
    assert isinstance(head, nn.Linear)
    assert head.out_features == 4
    nn.init.zeros_(head.weight), nn.init.zeros_(head.bias)
    images = torch.rand(6, 3, 2, 2)
    (loss,) = objective.loss(net, batch(images), 0.0).values()
    assert math.isclose(loss.item(), math.log(4), rel_tol=1e-6)
    with torch.no_grad():
        head.bias[0] = 100.0
    metrics = objective.metrics(net, batch(images))
    assert list(metrics) == ["rotation accuracy", "loss"]
    assert metrics["rotation accuracy"].tolist() == [0.25] * 6, "always answering 'upright' is right once in four"


def test_top1_and_top5_count_the_label_among_the_highest_logits() -> None:
    class Logits(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.arange(10.0).repeat(len(images), 1)

    net = Net(Logits(), nn.Identity())
    images = torch.zeros(4, 1, 1, 1)
    metrics = Supervised().metrics(net, batch(images, torch.tensor([9, 5, 4, 0])))
    assert metrics["top1"].tolist() == [1, 0, 0, 0]
    assert metrics["top5"].tolist() == [1, 1, 0, 0]
    expected = torch.logsumexp(torch.arange(10.0), 0) - torch.tensor([9.0, 5.0, 4.0, 0.0])
    torch.testing.assert_close(metrics["loss"], expected)
    (loss,) = Supervised().loss(net, batch(images, torch.tensor([9, 5, 4, 0])), 0.0).values()
    torch.testing.assert_close(loss, expected.mean())
