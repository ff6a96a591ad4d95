"""Under which protocol to score what a search has found."""

from collections.abc import Mapping
from typing import Any

from sslticket.data.inputs import Inputs
from sslticket.errors import BadInput
from sslticket.evaluation.pace import image_size
from sslticket.evaluation.protocols import PROTOCOLS, Protocol, own


def proposed(recipe: Mapping[str, Any]) -> Protocol | None:
    """What to score a search's tickets under; None where no protocol takes them.

    The published protocol that has the search's own training, if there is one. Else, where the search trained with the
    true labels of all images, its own; and otherwise the main paper's protocol of the data set, or the next that takes
    the network, those of its image size before others. Tickets of one half are scored on the other.

    Args:
        recipe: the search's, as `Recipe.to_dict` gives it.
    """
    data, inputs = recipe["data"], Inputs.of(recipe)
    half = {"a": "b", "b": "a"}.get(data["half"])
    here = [each for each in PROTOCOLS if (each.dataset, each.half) == (data["dataset"], half)]
    here = [each for each in here if each.takes(recipe["model"])]
    if inputs is None:
        return None
    alike = [each for each in here if image_size(each) == inputs.image_size]
    mine = _own_or_none(recipe)
    if mine and (same := [each for each in alike if each.fit_for(recipe["model"]) == mine.fit]):
        return same[0]
    if mine and half is None and _labelled(recipe):
        return mine
    others = (each for each in here if each not in alike and _takes_size(recipe, inputs, image_size(each)))
    return alike[0] if alike else next(others, None)


def _own_or_none(recipe: Mapping[str, Any]) -> Protocol | None:
    try:
        return own(recipe)
    except BadInput:  # a recipe file may define an effect of its own
        return None


def _labelled(recipe: Mapping[str, Any]) -> bool:
    """Whether a search trained with the true labels of all images."""
    data = recipe["data"]
    parts = (
        (data["subset"], data["labels"]) != (1, 1) or data["subset_list"] or data["labels_list"] or data.get("shots")
    )
    return recipe["objective"]["is"] == "Supervised" and not parts and not data["shuffle_labels"]


def _takes_size(recipe: Mapping[str, Any], inputs: Inputs, size: int) -> bool:
    """Whether the network works with images of this size too, as those do that pool globally."""
    import torch  # only here: a protocol is data, and looked up before anything is trained

    from sslticket import models

    with torch.random.fork_rng(devices=[]):
        backbone = models.build(recipe["model"], channels=inputs.channels, image_size=inputs.image_size)
    return models.takes(backbone, channels=inputs.channels, image_size=size)
