"""What a ticket is and where it comes from: in words, as Python that makes its network, and as config.json."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import PurePath
from typing import Any

import torch
from torch import nn

from sslticket.config.recipe import UNKNOWN, RecipeRecord
from sslticket.data.datasets.catalogue import InputSpec
from sslticket.errors import BadInput
from sslticket.escaping import python_literal
from sslticket.models import PAPER_MODELS
from sslticket.pruning.pattern import kept_patterns
from sslticket.pruning.prunable import describe_layers, shorten_names
from sslticket.ticket import Ticket


def ticket_facts(ticket: Ticket) -> dict[str, str]:
    """Names and values for a table; what an imported ticket does not tell is called unknown.

    Raises:
        BadInput: If the ticket does not say it, since no search wrote it and nobody imported it.
    """
    try:
        # What others write into files and pages must have the types that a search writes.
        recipe, origin, inputs = ticket.recipe, ticket.provenance, InputSpec.from_recipe(ticket.recipe)
        imported = is_imported(ticket)
        words = [recipe["model"], recipe["data"]["dataset"]]
        words += [origin[key] for key in ("objective", "dataset", "data_hash")]
        words += [where[key] for where, key in ((recipe, "init"), (origin, "init_hash")) if key in where]
        keys = ("images", "classes", "rewind_samples", "search_samples")
        counts = [origin[key] for key in keys if key in origin or not imported]
        counts += [inputs.channels, inputs.image_size] if inputs else []
        for kind, values in ((str, words), (int, counts)):
            for value in values:
                if type(value) is not kind:
                    raise TypeError(f"{str(value)[:40]!r} is no {kind.__name__}")
        return _imported_facts(ticket) if imported else _collect_facts(ticket)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadInput(
            f"the ticket with hash {ticket.hash} does not say where it is from ({type(error).__name__}: {error}); "
            "give one that a search wrote, or that `sslticket import` made"
        ) from error


def is_imported(ticket: Ticket) -> bool:
    """Whether a ticket was made of others' files."""
    return isinstance(ticket.provenance.get("imported"), dict)


def density_text(ticket: Ticket) -> str:
    """Level and density, and which layers were pruned where these are not all."""
    mask, which = ticket.mask, describe_layers(ticket.recipe)
    return f"{ticket.level}, density {mask.density:.4%}: {mask.survivors:,} of {mask.total:,} prunable weights" + (
        f"; pruned {which}" if which else ""
    )


def pattern_text(ticket: Ticket) -> str:
    """The N:M patterns of usual sizes that the mask keeps to, and where; "" for none."""
    told, kept, asked = [], kept_patterns(ticket.mask), ticket.record.pattern
    for pattern, others in kept.items():
        left = f", but for {shorten_names(others)}, whose inputs {pattern.partition(':')[2]} does not divide"
        told.append(f"{pattern} along the inputs" + (left if others else ""))
    also = [f"the search was asked for {asked}"] if asked is not None and asked not in kept else []
    return "; ".join([*told, *also])


def _collect_facts(ticket: Ticket) -> dict[str, str]:
    recipe, origin = ticket.recipe, ticket.provenance
    # As JSON: what strangers wrote is described, too, whether or not it can be a data set here.
    data, inputs = recipe["data"], InputSpec.from_recipe(recipe)
    labels = _labels_text(data, origin)
    start = f"after {origin['rewind_samples']:,} samples"
    if origin.get("weights") == "trained":
        start = f"{start}, but the weights are those with which level {ticket.level - 1} ended"
    return {
        "model": recipe["model"] + (f", {inputs}" if inputs else ""),
        "objective": origin["objective"],
        "data": f"{origin['dataset']}{_images_text(data)}: {origin['images']:,} images, {origin['classes']:,} classes, "
        f"hash {origin['data_hash']}",
        **({"labels": labels} if labels else {}),
        **({"init": f"{recipe['init']}, hash {origin['init_hash']}"} if "init_hash" in origin else {}),
        "level": density_text(ticket),
        **({"pattern": pattern} if (pattern := pattern_text(ticket)) else {}),
        "W_k": f"{start}; the search saw {origin['search_samples']:,}",
        **({"head": _head_text(ticket)} if ticket.head else {}),
        "seed": str(origin["seed"]),
        "made by": f"{origin['commit'] or 'no checkout'}; {_versions_text(origin['versions'])}",
    }


def _imported_facts(ticket: Ticket) -> dict[str, str]:
    recipe, origin = ticket.recipe, ticket.provenance
    imported, inputs = origin["imported"], InputSpec.from_recipe(recipe)
    unknown = [str(name) for name in imported.get("unknown", [])]
    data, seen = {"subset_by": "samples", "subset": 1, **recipe["data"]}, origin.get("rewind_samples")
    start = "early weights of an unknown step" if seen is None else f"after {seen:,} samples"
    if origin.get("weights") not in ("early", "initial"):
        start = "as in the file; how long they were trained is unknown" + ("" if seen is None else f", {start} as told")
    told = [f"{name} {imported[name]}" for name in ("replicate", "step", "epoch") if name in imported]
    files = ", ".join(f"{name} (hash {digest})" for name, digest in imported.get("files", {}).items())
    labels = _labels_text({**data, "shuffle_labels": 0}, origin)
    if data.get("shuffle_labels"):
        labels = f"{data['shuffle_labels']:.3g} of them drawn at random"
    return {
        "model": recipe["model"] + (f", {inputs}" if inputs else ""),
        "objective": origin["objective"],
        "data": f"{origin['dataset']}{_images_text(data)}; which images is unknown",
        **({"labels": labels} if labels else {}),
        "level": density_text(ticket) + ("; how often it was pruned is unknown" if "level" in unknown else ""),
        **({"pattern": pattern} if (pattern := pattern_text(ticket)) else {}),
        "W_k": start,
        **({"head": _head_text(ticket)} if ticket.head else {}),
        "seed": str(origin.get("seed", UNKNOWN)),
        "made by": ", ".join([f"{imported['from']}", *told]) + f"; imported from {files}",
        "unknown": ", ".join(unknown) or "nothing",
    }


def _versions_text(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{library} {number}" for library, number in versions.items())


def _head_text(ticket: Ticket) -> str:
    classes = f"the classification layer of {len(ticket.head['weight']):,} classes at the same step"
    origin = ticket.provenance
    masked = f", {origin['head_kept']:,} of {origin['head_total']:,} weights" if "head_kept" in origin else ""
    return classes + masked


def _images_text(data: Mapping[str, Any]) -> str:
    """Which of the set's training images; tickets of earlier versions lack some of these settings."""
    half = f", half {data['half']} of {data['dataset']}" if data.get("half") else ""
    if data.get("subset_list"):
        return f"{half}, the images in {PurePath(data['subset_list']).name}"
    if data.get("shots"):
        return f"{half}, {data['shots']} of each class"
    of = "images, drawn without their labels" if data["subset_by"] == "random" else data["subset_by"]
    return half + ("" if data["subset"] == 1 else f", {data['subset']:.3g} of the {of}")


def _labels_text(data: Mapping[str, Any], origin: Mapping[str, Any]) -> str:
    """What was done to the labels; "" where they are all known and true."""
    words = []
    if data.get("labels_list"):
        words.append(f"known of the images in {PurePath(data['labels_list']).name}")
    elif data.get("labels", 1) != 1:
        words.append(f"known of {data['labels']:.3g} of each class's images")
    if data.get("shuffle_labels"):
        permuted = origin["permutation"]["hash"]
        words.append(f"{data['shuffle_labels']:.3g} of them permuted at random, permutation's hash {permuted}")
    return "; ".join(words)


# What constructors raise over arguments that they do not take.
_CONSTRUCTOR_ERRORS = (ArithmeticError, AssertionError, AttributeError, IndexError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class Construction:
    """Python that makes the network.

    Attributes:
        imports: A line of imports.
        call: An expression.
        has_classifier: Whether the network has a classification layer, which the ticket knows nothing of.
    """

    imports: str
    call: str
    has_classifier: bool


def network_construction(ticket: Ticket) -> Construction:
    """How to make the network that the ticket applies to, by its original library where that one's fits."""
    name = RecipeRecord(ticket.recipe).model
    if name in PAPER_MODELS:
        return _torchvision_construction(ticket) or _own_construction(ticket)
    import timm

    if timm.is_model(name):
        found = timm_arguments(ticket)
        arguments_text = "".join(f", {key}={value}" for key, value in (found or {}).items())
        call = f"timm.create_model({python_literal(name)}, num_classes=0{arguments_text})"
        return _own_construction(ticket) if found is None else Construction("import timm", call, False)
    return _torchvision_construction(ticket) or _own_construction(ticket)


def timm_arguments(ticket: Ticket) -> Mapping[str, int] | None:
    """What `timm.create_model` needs beside the name, for a network that the ticket fits; None where it has none."""
    import timm

    name, images = RecipeRecord(ticket.recipe).model, image_arguments(ticket)
    if not timm.is_model(name):
        return None
    channels = {} if images.get("channels", 3) == 3 else {"in_chans": images["channels"]}
    sizes: list[dict[str, int]] = [{}, *([{"img_size": images["image_size"]}] if "image_size" in images else [])]
    for size in sizes:
        arguments = channels | size
        if _ticket_fits(ticket, partial(timm.create_model, name, num_classes=0, **arguments)):
            return arguments
    return None


def image_arguments(ticket: Ticket) -> dict[str, int]:
    """Channels and side in pixels of the images that the network takes, as far as they are known."""
    if (inputs := InputSpec.from_recipe(ticket.recipe)) is not None:
        return {"channels": inputs.channels, "image_size": inputs.image_size}
    data = ticket.recipe.get("data") if is_imported(ticket) else None
    told = data if isinstance(data, Mapping) else {}
    return {key: told[key] for key in ("channels", "image_size") if type(told.get(key)) is int}


def _torchvision_construction(ticket: Ticket) -> Construction | None:
    from torchvision import models

    name = RecipeRecord(ticket.recipe).model
    if name not in models.list_models(module=models) or not _ticket_fits(
        ticket, lambda: models.get_model(name, weights=None)
    ):
        return None
    return Construction("from torchvision.models import get_model", f"get_model({python_literal(name)})", True)


def _own_construction(ticket: Ticket) -> Construction:
    arguments_text = "".join(f", {key}={value}" for key, value in image_arguments(ticket).items())
    call = f"models.create_model({python_literal(RecipeRecord(ticket.recipe).model)}{arguments_text})"
    return Construction("from sslticket import models", call, False)


def _ticket_fits(ticket: Ticket, make: Callable[[], Any]) -> bool:
    try:
        # On no device: nothing is drawn or kept, and a network of any size takes milliseconds.
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            net = make()
        assert isinstance(net, nn.Module)
        ticket.apply(net)
    except (BadInput, *_CONSTRUCTOR_ERRORS):
        return False
    return True


def hub_config(ticket: Ticket) -> dict[str, Any]:
    """Model, images, density, recipe and provenance; with timm's keys where timm has the network."""
    inputs, images = InputSpec.from_recipe(ticket.recipe), image_arguments(ticket)
    about: dict[str, Any] = {
        "library_name": "sslticket",
        "model": RecipeRecord(ticket.recipe).model,
        "channels": images.get("channels"),
        "image_size": images.get("image_size"),
        "level": ticket.level,
        "density": ticket.mask.density,
        "survivors": ticket.mask.survivors,
        "prunable": ticket.mask.total,
        "ticket_hash": ticket.hash,
    }
    return about | _timm_config(ticket, inputs) | {"recipe": ticket.recipe, "provenance": ticket.provenance}


def _timm_config(ticket: Ticket, inputs: InputSpec | None) -> dict[str, Any]:
    """The keys by which `timm.create_model("local-dir:...")` and `"hf-hub:..."` make a network; else nothing."""
    arguments, name = timm_arguments(ticket), RecipeRecord(ticket.recipe).model
    if arguments is None:
        return {}
    import timm

    images: dict[str, Any] = {}
    if inputs:
        size = [inputs.channels, inputs.image_size, inputs.image_size]
        images = {"input_size": size} | ({"mean": inputs.mean, "std": inputs.std} if inputs.mean else {})
    return {
        "architecture": name,
        "num_classes": 0,
        "model_args": dict(arguments),
        "pretrained_cfg": {"num_classes": 0, **images, **_layer_names(timm.get_pretrained_cfg(name))},
    }


def _layer_names(known: Any) -> dict[str, Any]:
    """What timm calls the layers that depend on classes and channels: by these it takes other numbers of them."""
    named = {key: getattr(known, key, None) for key in ("classifier", "first_conv")}
    return {key: value for key, value in named.items() if value is not None}
