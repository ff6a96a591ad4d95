"""A backbone's forward pass as a graph of PyTorch's basic operations, which others read and run in their own ways."""

import copy
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, functionalize
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.attention import SDPBackend, sdpa_kernel

from sslticket.masking import gate
from sslticket.masking.mask import State

_ATEN = torch.ops.aten
MATRIX: dict[Any, tuple[int, int]] = {
    _ATEN.convolution: (0, 1),
    _ATEN.mm: (0, 1),
    _ATEN.bmm: (0, 1),
    _ATEN.mv: (0, 1),
    _ATEN.dot: (0, 1),
    _ATEN.addmm: (1, 2),
    _ATEN.addbmm: (1, 2),
    _ATEN.baddbmm: (1, 2),
    _ATEN.addmv: (1, 2),
}
"""The operations that every convolution, linear layer, `matmul`, `einsum` and attention comes down to, and which of
their arguments are multiplied."""
RECURRENT: dict[Any, tuple[int, ...]] = {
    _ATEN.mkldnn_rnn_layer: (0, 1, 2),
    _ATEN.lstm: (0,),
    _ATEN.gru: (0,),
}
"""Whole recurrent layers, which are one operation."""


@dataclass(frozen=True, eq=False)
class Trace:
    """What a backbone does with one image in evaluation.

    Attributes:
        graph: called with a state and a (1, C, S, S) image; each node is a function without side effects.
        state: the backbone's own parameters and buffers on the CPU, under the names that they have behind gates.
        image: of zeros.
    """

    graph: GraphModule
    state: State
    image: Tensor

    @classmethod
    def of(cls, backbone: nn.Module, *, channels: int, image_size: int) -> "Trace":
        """Run the backbone once; its state, its mode and the random numbers stay as they are.

        Args:
            backbone: with or without gates.
            channels: of the images.
            image_size: side of the square images, in pixels.
        """
        state = {
            name: value.detach().cpu()
            for members in (backbone.named_parameters(), backbone.named_buffers())
            for name, value in members
        }
        # A copy that shares all tensors: some networks keep what they compute in attributes of their own.
        shared = {id(tensor): tensor for tensor in (*backbone.parameters(), *backbone.buffers())}
        net = copy.deepcopy(backbone, cast(dict[int, Any], shared)).eval()
        image = torch.zeros(1, channels, image_size, image_size)

        def forward(state: State, image: Tensor) -> Tensor:
            return cast(Tensor, functional_call(net, state, (image,)))

        # By plain products and softmax: fused attention is one operation that hides what it multiplies.
        with torch.no_grad(), torch.random.fork_rng(devices=[]), sdpa_kernel(SDPBackend.MATH):
            graph = make_fx(functionalize(forward, remove="mutations"))(state, image)
        return cls(graph, state, image)

    def names(self) -> dict[str, str]:
        """Clean names of all parameters and buffers but those of gates, by their names in `state`."""
        return {name: clean for name in self.state if (clean := gate.clean(name)) is not None}

    def arguments(self, state: dict[str, Any], image: Any) -> list[Any]:
        """What the graph's inputs are, in its order.

        Args:
            state: for each name in `state` what stands for it.
            image: what stands for the image.
        """
        return [*(state[name] for name in self.state), image]
