"""A small real network that was trained and pruned by plain PyTorch on digits, in the forms in which others save it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import prune

State = dict[str, Tensor]
PRUNED = ("features.0", "features.4", "features.8", "fc")


class Net(nn.Module):
    """Conv-3 for gray digits under the names that ours has, with a classification layer."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inward, outward in ((1, 16), (16, 32), (32, 32)):
            layers += [nn.Conv2d(inward, outward, 3, padding=1), nn.BatchNorm2d(outward), nn.ReLU(), nn.MaxPool2d(2)]
        self.features = nn.Sequential(*layers[:-1])
        self.fc = nn.Linear(32, 10)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.features(images).mean((2, 3)))
        return logits


@dataclass(frozen=True)
class Found:
    """What others have.

    Attributes:
        net: The trained network, pruned by `torch.nn.utils.prune`.
        early: Its state at the step to which it was rewound.
        masks: Masks by the names of their weights, the classification layer's too.
        images: Digits that it has not seen.
        labels: Their classes.
    """

    net: nn.Module
    early: State
    masks: State
    images: Tensor
    labels: Tensor

    @property
    def orig(self) -> State:
        """Weights under their plain names, with what they are where they are pruned."""
        return {name.removesuffix("_orig"): value for name, value in self.state.items() if not name.endswith("_mask")}

    @property
    def state(self) -> State:
        """The state as `torch.nn.utils.prune` has it."""
        return dict(self.net.state_dict())

    @property
    def zeros(self) -> State:
        """The state once pruning is made permanent."""
        return {name: value * self.masks[name] if name in self.masks else value for name, value in self.orig.items()}

    @property
    def beside(self) -> State:
        """Masks beside plain weights."""
        return self.zeros | {f"{name}_mask": mask for name, mask in self.masks.items()}


@pytest.fixture(scope="session")
def found() -> Found:
    """Sixty steps on digits, 70% of the weights pruned after thirty."""
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    labels = torch.tensor(digits.target)
    torch.manual_seed(0)
    net = Net()
    layers = [net.get_submodule(name) for name in PRUNED]
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    early: State = {}
    for step in range(60):
        if step == 10:
            early = {name: value.clone() for name, value in net.state_dict().items()}
        if step == 30:
            prune.global_unstructured([(layer, "weight") for layer in layers], prune.L1Unstructured, amount=0.7)
        optimizer.zero_grad()
        batch = slice(step % 20 * 64, step % 20 * 64 + 64)
        loss = cross_entropy(net(images[batch]), labels[batch])
        loss.backward()
        optimizer.step()
    masks = {f"{name}.weight": layer.get_buffer("weight_mask") for name, layer in zip(PRUNED, layers, strict=True)}
    return Found(net.eval(), early, masks, images[1297:], labels[1297:])


@pytest.fixture
def save(tmp_path: Path) -> Callable[[object], Path]:
    """Writes what others save, by `torch.save`."""

    def write(what: object, name: str = "theirs.pt") -> Path:
        torch.save(what, tmp_path / name)
        return tmp_path / name

    return write
