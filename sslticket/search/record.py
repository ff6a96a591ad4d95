"""What a search writes about a ticket: its provenance, and the row of its level."""

from collections.abc import Mapping
from typing import Any, Literal

from sslticket import origin
from sslticket.masking.layers import described
from sslticket.recipe import family, search_name, settings
from sslticket.search.plan import Plan
from sslticket.ticket import Ticket


def provenance(plan: Plan, *, weights: Literal["early", "trained"], samples: int) -> dict[str, Any]:
    """Where a ticket comes from; nothing in it depends on the clock, so a repeated search repeats the file.

    Args:
        plan: of the search.
        weights: "early" for W_k, "trained" for those that the level before ended with.
        samples: that the search has seen so far.
    """
    images, recipe = plan.images, plan.recipe
    manifest = images.source.manifest
    shuffled = {} if images.permutation is None else {"permutation": images.permutation}
    half = {} if images.half is None else {"half": images.half}
    return {
        "dataset": manifest.dataset,
        "images": len(images.true.manifest),
        **half,
        **shuffled,
        "classes": len(manifest.classes),
        "data_hash": manifest.hash,
        "objective": recipe.task,
        "seed": recipe.seed,
        "rewind_samples": plan.stages.rewind * recipe.fit.batch_size,
        "weights": weights,
        "search_samples": samples,
        "versions": origin.versions(),
        "commit": origin.commit(),
    }


def row(
    plan: Plan, ticket: Ticket, measured: Mapping[str, Any], *, effective: float, bad_images: int, device: str
) -> dict[str, Any]:
    """What finding a ticket cost and showed.

    Args:
        plan: of the search.
        ticket: of the level.
        measured: in the training that found it.
        effective: fraction of the prunable weights that lie on a path from the image to the features.
        bad_images: that could not be read so far.
        device: what computed.
    """
    recipe = plan.recipe
    return {
        "kind": "level",
        "run": plan.folder.path.name,
        "recipe": family(ticket.recipe),
        "objective": recipe.task,
        "model": recipe.model,
        "source": recipe.data.name,
        "subset": recipe.data.subset,
        "subset_by": recipe.data.subset_by,
        "level": ticket.level,
        "density": ticket.mask.density,
        "effective_density": effective,
        "within": described(ticket.recipe),
        "ticket_hash": ticket.hash,
        "search_seed": recipe.seed,
        "search": search_name(ticket.recipe),
        "settings": settings(ticket.recipe),
        "rewind_samples": ticket.provenance["rewind_samples"],
        **measured,
        "search_samples": ticket.provenance["search_samples"],
        "search_epochs": ticket.provenance["search_samples"] / plan.clock.set_size,
        "layers": {name: list(count) for name, count in ticket.mask.counts().items()},
        "bad_images": bad_images,
        **origin.stamp(),
        "data_hash": ticket.provenance["data_hash"],
        "device": device,
        "precision": recipe.precision,
    }


def summary(measured: Mapping[str, Any], level: int) -> str:
    """What the training for a level showed, in one line."""
    shown = {name: value for name, value in measured["metrics"].items() if name != "loss"}
    if measured["probe"]:
        shown["nearest neighbours"] = list(measured["probe"].values())[-1]
    metrics = "".join(f", {name} {value:.4g}" for name, value in shown.items())
    untrained = "no further training" if level else "untrained"
    loss = untrained if measured["loss"] is None else f"loss {measured['loss']:.4g}"
    saved = measured["saved_samples"]
    settled = f", settled with {saved:,} samples saved" if saved else ""
    return f"{loss}{metrics}{settled}, {measured['seconds']:.0f} s"
