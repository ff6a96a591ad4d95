"""The base class of objectives, and the checks of their settings."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol

from torch import Tensor, nn

from sslticket.config.recipe import Recipe
from sslticket.data.augment import View
from sslticket.data.loader import Batch
from sslticket.errors import BadInput


class Network(Protocol):
    """The two parts of a network that an objective works with."""

    @property
    def backbone(self) -> nn.Module:
        """The backbone: images (B, C, H, W) -> features (B, F)."""

    @property
    def heads(self) -> nn.Module:
        """The module that `Objective.heads` returned."""


class Objective(ABC):
    """A training task; a frozen dataclass of hyper-parameters without state.

    What has state (layers, momentum encoders, queues) belongs into the module that `heads` returns, so that checkpoints
    and distributed training need no special case.

    Attributes:
        needs_labels: Whether every training image must have a label.
        views_compared: Number of views of an image that its loss compares. Its metrics see the augmented training views
            where that is more than one, and else the plain evaluation view.
        min_images: Number of images that a loss needs at least, in one process's share of a batch or a micro-batch.
        has_logits: Whether the module that `heads` returns gives logits, of which the loss is the cross-entropy, so
            that its output may be divided by a temperature (GraSP does).
        cuda_graph_safe: Whether its loss does the same operations in every step, whatever the progress, with no number
            that the host computes, so that a step can be launched as a graph (`sslticket.training.numerics`).
        needs_whole_batch: Whether its loss compares the images of a batch with each other, so that a process's share
            goes through the network whole. Batch norm then normalises ghost batches within it; each is neighbouring
            images, of all views, which have to lie one after the other.
        knows_copies: Whether a loss that compares the images of a batch takes copies of an image for that image.
    """

    needs_labels: ClassVar[bool] = False
    views_compared: ClassVar[int] = 1
    min_images: ClassVar[int] = 1
    has_logits: ClassVar[bool] = False
    cuda_graph_safe: ClassVar[bool] = False
    needs_whole_batch: ClassVar[bool] = False
    knows_copies: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """Short name in run folders and reports."""
        return type(self).__name__.lower()

    @property
    def labelled_fraction(self) -> float | None:
        """Fraction of each batch that is taken from the labelled images alone; None takes all from one stream."""
        return None

    def views(self, standard: View) -> tuple[View, ...]:
        """The views of each image in training, made from the dataset's standard training view."""
        return (standard,)

    def check(self, batch_size: int, views: int) -> None:
        """Check that the objective can be trained on such batches.

        Args:
            batch_size: Number of images in one process's share of a batch or in a micro-batch.
            views: Number of views of each image.

        Raises:
            BadInput: If it cannot, naming what is needed.
        """
        if views < self.views_compared:
            raise BadInput(
                f"{self.name} must get at least {self.views_compared} views of an image to compare, got {views}; give "
                "Data(augment=...) as many views or leave it out"
            )
        if batch_size < self.min_images:
            raise BadInput(
                f"{self.name} must get at least {self.min_images} images at a time, got {batch_size}; give a larger "
                "--batch-size, or fewer processes"
            )

    def describe_copies(self, batch_size: int, images: int) -> str:
        """Tell of copies of an image that the loss takes for other images, and what prevents them; "" for none.

        Args:
            batch_size: Number of images in a batch, of all processes.
            images: Number of images of the training set.
        """
        if not self.needs_whole_batch or self.knows_copies or batch_size <= images:
            return ""
        return (
            f"a batch of {batch_size} holds copies of the {images} images, which {self.name} takes for other images; "
            f"give --batch-size {images} or less"
        )

    def check_backbone(self, backbone: nn.Module, views: Sequence[View]) -> None:  # noqa: B027  # most take any
        """Check that the objective can be trained with such a backbone.

        Args:
            backbone: A backbone for images of the first view's size.
            views: The views of each image.

        Raises:
            BadInput: If it cannot, naming what is needed.
        """

    @abstractmethod
    def heads(self, backbone: nn.Module, features: int, classes: int) -> nn.Module:
        """The layers that the objective adds to a backbone.

        Args:
            backbone: The backbone, which a momentum encoder copies.
            features: Number F of the backbone's outputs.
            classes: Number of classes of the data.
        """

    def classifier(self, heads: nn.Module) -> nn.Module | None:
        """The layer of `heads` that maps the backbone's features to logits of the images' classes, (B, F) -> (B, C).

        It is kept in tickets, so that an evaluation on the same classes can start from it. None where no classes are
        learned.
        """
        return None

    @abstractmethod
    def loss(self, net: Network, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Named loss terms, each a scalar; their sum is minimised. `progress` runs from 0 to 1 over the training."""

    def after_step(self, net: Network, progress: float) -> None:  # noqa: B027  # most objectives do nothing here
        """Called without gradients after each optimiser step, for example to move a momentum encoder."""

    def collapsed_loss(self, batch_size: int) -> float | None:
        """The loss of an embedding that is the same for all images, where it is known; else None.

        Training stops where the loss stays at exactly this value. `batch_size` counts the images of all processes.
        """
        return None

    @abstractmethod
    def metrics(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        """Named values per image that show whether the task is learned, each (B,) float; sets have their means."""

    def preview(self, batch: Batch) -> dict[str, Tensor]:
        """The network's inputs of a batch, for people to look at: name -> (B, C, H, W), normalised."""
        return {f"view {number}": view for number, view in enumerate(batch.views, 1)}

    def preview_with(self, build: Callable[[], Network], batch: Batch) -> dict[str, Tensor]:
        """The same for an objective whose inputs depend on the network, such as on the size of its patches.

        Args:
            build: Draws the search's network.
            batch: The first images of the first step.
        """
        return self.preview(batch)


def check_at_least(objective: Objective, minimum: float, *fields: str) -> None:
    """Check that settings of an objective are not below a bound.

    Args:
        objective: An objective whose class has a default for each of the fields.
        minimum: The bound, which is allowed.
        *fields: Names of the settings.

    Raises:
        BadInput: If one of them is below it or no number, naming its flag and its default.
    """
    _check_range(objective, fields, lambda value: value >= minimum, f"at least {minimum:g}")


def check_above(objective: Objective, bound: float, *fields: str) -> None:
    """Check that settings of an objective are above a bound, which itself is refused; see `check_at_least`."""
    _check_range(objective, fields, lambda value: value > bound, f"above {bound:g}")


def check_within(objective: Objective, low: float, high: float, *fields: str) -> None:
    """Check that settings of an objective are between two bounds, which are allowed; see `check_at_least`."""
    _check_range(objective, fields, lambda value: low <= value <= high, f"in [{low:g}, {high:g}]")


def _check_range(objective: Objective, fields: Sequence[str], allowed: Callable[[float], bool], words: str) -> None:
    for field in fields:
        if not allowed(value := getattr(objective, field)):
            # Optimisers have a momentum too, and theirs is the short flag.
            flag = f"--{'objective.' if field == 'momentum' else ''}{field.replace('_', '-')}"
            default = getattr(type(objective), field)
            raise BadInput(f"{flag} must be {words}, got {value:g}; give {flag} {default:g}, the default")


def objective_of(recipe: Recipe) -> Objective:
    """The objective of a recipe.

    Raises:
        BadInput: If it is no objective.
    """
    if not isinstance(recipe.objective, Objective):
        raise BadInput(f"Recipe(objective=...) must be an Objective, got {recipe.objective!r}")
    return recipe.objective
