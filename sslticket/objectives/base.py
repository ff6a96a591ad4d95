"""What an objective is."""

from abc import ABC, abstractmethod
from typing import Protocol

from torch import Tensor, nn

from sslticket.data.loader import Batch


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
    """

    @property
    def name(self) -> str:
        """Short name in run folders and reports."""
        return type(self).__name__.lower()

    @abstractmethod
    def heads(self, backbone: nn.Module, features: int, classes: int) -> nn.Module:
        """The layers that the objective adds to a backbone with `features` outputs, for data of `classes` classes."""

    @abstractmethod
    def loss(self, net: Network, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Named loss terms, each a scalar; their sum is minimised. `progress` runs from 0 to 1 over the training."""

    @abstractmethod
    def metrics(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        """Is the task learnt? Named values per image, each (B,) float; their mean over a set is reported."""
