"""An objective from outside the package: where does a patch lie, seen from its neighbour?

Finds     tickets of 7 densities from 100% to 1.6%.
Source    the task of Doersch et al. 2015, "Unsupervised Visual Representation Learning by Context Prediction",
          section 3; our own settings. Colours are kept, since CIFAR's tiny images show no lens's colour fringes.
Run       python examples/relative_position.py
Cost      not measured yet.
Accuracy  not measured yet.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslticket import IMP, Adam, BadInput, Data, Recipe, TrainConfig, View, run
from sslticket.data.loader import Batch
from sslticket.objectives.base import Network, Objective

# Row and column, in three by three cells, of classes 0 to 7; the other patch is the centre, (1, 1).
AROUND = torch.tensor([(0, 0), (0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1), (2, 2)])


@dataclass(frozen=True)
class RelativePosition(Objective):
    """Cross-entropy on which of eight places around the centre a second patch comes from; chance is 12.5%.

    Attributes:
        gap: pixels between neighbouring patches, on average; each is shifted by up to as many, so no line runs across.
        hidden: units of the head's hidden layer.
    """

    gap: int = 2
    hidden: int = 128

    def views(self, standard: View) -> tuple[View, ...]:
        """A crop without padding, whose black border would tell where a patch lies."""
        if not 0 <= self.gap < standard.size // 3:
            raise BadInput(f"a --gap of {self.gap} pixels leaves no patch; give one from 0 to {standard.size // 3 - 1}")
        return (View(size=standard.size, crop="resized", scale=(0.5, 1.0), flip=standard.flip),)

    def heads(self, backbone: nn.Module, features: int, classes: int) -> nn.Module:
        """Both patches' features side by side, (B, 2 * features) -> (B, 8)."""
        return nn.Sequential(nn.Linear(2 * features, self.hidden), nn.ReLU(), nn.Linear(self.hidden, len(AROUND)))

    def loss(self, net: Network, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Mean cross-entropy over B pairs; torch's generator is a function of the step, so the pairs are too."""
        place, shifts = self._drawn(len(batch.indices))
        logits = self._logits(net, *self.pair(batch.views[0], place, shifts))
        return {"position": F.cross_entropy(logits, place.to(logits.device))}

    def metrics(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        """Accuracy (B,): the mean over the eight places, every patch in the middle of its cell."""
        middle = torch.full((2, len(batch.indices), 2), self.gap // 2)
        right = [
            self._logits(net, *self.pair(batch.views[0], torch.full_like(batch.indices, place), middle)).argmax(1)
            == place
            for place in range(len(AROUND))
        ]
        return {"position accuracy": torch.stack(right).float().mean(dim=0)}

    def preview(self, batch: Batch) -> dict[str, Tensor]:
        """The view and a pair of patches."""
        centre, neighbour = self.pair(batch.views[0], *self._drawn(len(batch.indices)))
        return {"view": batch.views[0], "centre": centre, "neighbour": neighbour}

    def pair(self, images: Tensor, place: Tensor, shifts: Tensor) -> tuple[Tensor, Tensor]:
        """Centre and neighbour, each (B, C, P, P), of images (B, C, S, S).

        `place` (B,) is the class, `shifts` (2, B, 2) move centre and neighbour down and right, by 0 to `gap` pixels.
        """
        cell = images.shape[2] // 3
        side = cell - self.gap
        windows = images.unfold(2, side, 1).unfold(3, side, 1)  # every patch of every image, without a copy
        cells = torch.ones_like(shifts[0]), AROUND[place.cpu()]
        corners = [(cell * where + shift).unbind(1) for where, shift in zip(cells, shifts, strict=True)]
        centre, neighbour = (windows[torch.arange(len(images)), :, top, left] for top, left in corners)
        return centre, neighbour

    def _drawn(self, count: int) -> tuple[Tensor, Tensor]:
        return torch.randint(len(AROUND), (count,)), torch.randint(self.gap + 1, (2, count, 2))

    @staticmethod
    def _logits(net: Network, centre: Tensor, neighbour: Tensor) -> Tensor:
        """(B, 8), from one forward pass of all patches."""
        features = net.backbone(torch.cat([centre, neighbour])).chunk(2)
        logits: Tensor = net.heads(torch.cat(features, dim=1))
        return logits


recipe = Recipe(
    model="conv3",
    data=Data(dataset="cifar10"),
    objective=RelativePosition(),
    training=TrainConfig(length="20ep", batch_size=256, optimizer=Adam(lr=1e-3, weight_decay=0.0), drops=("15ep",)),
    search=IMP(levels=6, rate=0.5, rewind="1ep"),
)

if __name__ == "__main__":
    run(recipe)
