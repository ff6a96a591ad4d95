"""Does an embedding find the other view of the same image? The metric of objectives that compare views."""

import torch
import torch.nn.functional as F
from torch import Tensor


def retrieval(one: Tensor, other: Tensor) -> dict[str, Tensor]:
    """How well the second views of a batch are found from the first, by cosine similarity.

    Args:
        one: (B, D) embeddings of the images' first views, B at least 2.
        other: (B, D) of their second views.

    Returns:
        `retrieval top1`: 1 where the nearest of the B second views is of the same image (chance 1 / B);
        `positive similarity` to it; and `negative similarity`, the mean to the others. Each (B,).
    """
    # In full precision under mixed precision too: rounding would decide which of two near neighbours is nearer.
    with torch.autocast(one.device.type, enabled=False):
        similar = F.normalize(one.float(), dim=1) @ F.normalize(other.float(), dim=1).T
    same = similar.diagonal()
    found = similar.argmax(dim=1) == torch.arange(len(one), device=one.device)
    others = (similar.sum(dim=1) - same) / max(1, len(one) - 1)
    return {"retrieval top1": found.float(), "positive similarity": same, "negative similarity": others}
