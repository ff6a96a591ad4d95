"""What an objective is."""

from abc import ABC, abstractmethod
from typing import ClassVar, Protocol

from torch import Tensor, nn

from sslticket.config.recipe import Recipe
from sslticket.data.augment import View
from sslticket.data.loader import Batch
from sslticket.errors import BadInput


class Network(Protocol):
    """The two parts of a net that an objective works with."""

    @property
    def backbone(self) -> nn.Module:
        """Images (B, C, H, W) -> features (B, F)."""

    @property
    def heads(self) -> nn.Module:
        """What `Objective.heads` returned."""


class Objective(ABC):
    """A training task; a frozen dataclass of hyper-parameters without state.

    What has state (layers, momentum encoders, queues) belongs into the module that `heads` returns, so that checkpoints
    and distributed training need no special case.

    Attributes:
        needs_labels: whether every training image must have a label.
        views_compared: how many views of an image its loss compares; its metrics see the augmented training views where that
            is more than one, and else the plain evaluation view.
        has_logits: whether the module that `heads` returns gives logits, of which the loss is the cross-entropy, so that
            dividing its output by a temperature makes sense (GraSP does).
        cuda_graph_safe: whether its loss does the same operations in every step, whatever the progress, with no number that the
            host computes, so that a step can be launched as a graph (`sslticket.training.numerics`).
        needs_whole_batch: whether its loss compares the images of a batch with each other, so that a process's share goes
            through the network whole. Batch norm then normalises ghost batches within it; each is the images that lie
            together, of all views, which have to lie one after the other.
    """

    needs_labels: ClassVar[bool] = False
    views_compared: ClassVar[int] = 1
    has_logits: ClassVar[bool] = False
    cuda_graph_safe: ClassVar[bool] = False
    needs_whole_batch: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """Short name in run folders and reports."""
        return type(self).__name__.lower()

    @property
    def labelled_fraction(self) -> float | None:
        """The share of each batch that is drawn from the labelled images alone; None draws all from one stream."""
        return None

    def views(self, standard: View) -> tuple[View, ...]:
        """What the network is shown of each image, made from the dataset's standard training view."""
        return (standard,)

    def check(self, batch_size: int, views: int) -> None:
        """Whether it can be trained on batches of this many images, one process's part, and views of each.

        Raises:
            BadInput: naming what is needed.
        """
        if views < self.views_compared:
            raise BadInput(
                f"{self.name} compares {self.views_compared} views of an image and gets {views}; "
                "give Data(augment=...) as many views or leave it out"
            )

    @abstractmethod
    def heads(self, backbone: nn.Module, features: int, classes: int) -> nn.Module:
        """The layers that the objective adds to a backbone with `features` outputs, for data of `classes` classes."""

    def classifier(self, heads: nn.Module) -> nn.Module | None:
        """The layer of `heads` that tells the classes of the images from the backbone's features, (B, F) -> (B, C).

        It is kept in tickets, so that an evaluation on the same classes can start from it. None where no classes are
        learnt.
        """
        return None

    @abstractmethod
    def loss(self, net: Network, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Named loss terms, each a scalar; their sum is minimised. `progress` runs from 0 to 1 over the training."""

    def after_step(self, net: Network, progress: float) -> None:  # noqa: B027  # most objectives do nothing here
        """What follows each optimiser step, such as moving a momentum encoder; without gradients."""

    def collapsed_loss(self, batch_size: int) -> float | None:
        """The loss of an embedding that is the same for all images, where such a loss can be told; else None.

        Training stops where the loss stays at exactly this value.
        """
        return None

    @abstractmethod
    def metrics(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        """Is the task learnt? Named values per image, each (B,) float; their mean over a set is reported."""

    def preview(self, batch: Batch) -> dict[str, Tensor]:
        """What the network sees of a batch, for people to look at: name -> (B, C, H, W), normalised."""
        return {f"view {number}": view for number, view in enumerate(batch.views, 1)}


def objective_of(recipe: Recipe) -> Objective:
    """The objective of a recipe.

    Raises:
        BadInput: If it is no objective.
    """
    if not isinstance(recipe.objective, Objective):
        raise BadInput(f"Recipe(objective=...) must be an Objective, got {recipe.objective!r}")
    return recipe.objective
