"""What autocast does on the pretend accelerator: CUDA's lists of operations, as far as the objectives use them."""

from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

_KEY = "AutocastPrivateUse1"
_LOW = (
    "conv1d conv2d conv3d convolution linear matmul mm addmm bmm baddbmm addbmm einsum mv prelu "
    "conv_transpose2d.input scaled_dot_product_attention"
)
_FULL = (
    "exp log log2 log10 log1p expm1 pow.Tensor_Scalar pow.Tensor_Tensor rsqrt reciprocal layer_norm norm.Scalar "
    "norm.ScalarOpt_dim cosine_similarity nll_loss nll_loss_nd kl_div l1_loss mse_loss smooth_l1_loss softplus "
    "logsumexp softmax.int log_softmax.int cumsum linalg_vector_norm sum sum.dim_IntList prod cdist"
)
_LIBRARIES: list[torch.library.Library] = []  # what is registered lasts as long as these


def register(name: str) -> None:
    """Let autocast know the device; once a process.

    Args:
        name: of the device.
    """
    others, library = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
    _LIBRARIES.extend([others, library])
    others.fallback(torch.library.fallthrough_kernel, _KEY)
    for operations, low in ((_LOW, True), (_FULL, False)):
        for operation in operations.split():
            _register(library, name, operation, low=low)


def _register(library: torch.library.Library, name: str, operation: str, *, low: bool) -> None:
    packet, _, overload = operation.partition(".")
    func = getattr(getattr(torch.ops.aten, packet), overload or "default")

    def cast(given: Any) -> Any:
        if isinstance(given, Tensor) and given.is_floating_point() and given.dtype != torch.float64:
            return given.to(torch.get_autocast_dtype(name) if low else torch.float32)
        return given

    def kernel(*args: Any, **kwargs: Any) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, _KEY))):
            return func(*pytree.tree_map(cast, args), **pytree.tree_map(cast, kwargs))

    library.impl(func, kernel, _KEY)
