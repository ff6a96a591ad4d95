"""A control from outside the package: does it matter which filters a ticket thins out?

Run       sslticket evaluate runs/<key> --protocol cifar10 --controls examples/shuffled_channels.py:ShuffledChannels
          sslticket report runs/<key>
Python    evaluate_tickets("runs/<key>", protocol="cifar10", controls=[ShuffledChannels])
"""

import torch

from sslticket.evaluation.controls import Control
from sslticket.pruning.mask import Mask
from sslticket.seeds import seeded_generator
from sslticket.ticket import Ticket


class ShuffledChannels(Control):
    """The ticket's mask with the output channels of each layer in another order, and weights drawn anew.

    Each layer keeps its number of weights, and each channel its own, but another channel has them.
    """

    name = "shuffled-channels"
    description = "weights drawn anew in the ticket's mask with its output channels in another order"

    def mask(self, ticket: Ticket, *, seed: int, natural: Mask | None) -> Mask:
        """Layers are (output channels, ...)."""
        shuffled = {}
        for name, mask in ticket.mask.items():
            order = seeded_generator(seed, "mask", name).permutation(len(mask))
            shuffled[name] = mask[torch.from_numpy(order)]
        return Mask(shuffled)
