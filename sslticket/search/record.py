"""What a search writes about a ticket: its provenance, and the row of its level."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from sslticket.config.recipe import recipe_family, recipe_settings, search_label
from sslticket.data.unreadable import unreadable_fields
from sslticket.provenance import collect_provenance, git_commit, library_versions
from sslticket.pruning import prunable as weights_by_magnitude
from sslticket.pruning.mask import StateDict
from sslticket.pruning.prunable import describe_layers
from sslticket.search.plan import SearchPlan
from sslticket.ticket import Ticket


class SearchCost(NamedTuple):
    """What a search has cost.

    Attributes:
        samples: source images seen, each time.
        forward_images: images that went forward through the backbone, each time; None where an older version, which
            did not count them, has found some of the tickets.
    """

    samples: int = 0
    forward_images: int | None = 0

    @classmethod
    def of_ticket(cls, ticket: Ticket) -> "SearchCost":
        """Up to the moment when a ticket was found."""
        return cls(int(ticket.provenance["search_samples"]), ticket.provenance.get("search_forward_images"))

    def plus(self, samples: int, forward_images: int) -> "SearchCost":
        """With more of both."""
        forward = None if self.forward_images is None else self.forward_images + forward_images
        return SearchCost(self.samples + samples, forward)


def ticket_provenance(
    plan: SearchPlan,
    *,
    weights: Literal["initial", "early", "trained"],
    spent: SearchCost,
    numerics: str,
    rewind: int | None = None,
) -> dict[str, Any]:
    """Where a ticket comes from; nothing in it depends on the clock, so a repeated search repeats the file.

    Args:
        plan: of the search.
        weights: "initial" for W_0, "early" for W_k, "trained" for those that the level before ended with.
        spent: what the search has cost so far.
        numerics: how the trainings computed that led to it.
        rewind: the step whose weights these are; None for the plan's.
    """
    images, recipe = plan.images, plan.recipe
    manifest = images.source.manifest
    shuffled = {} if images.permutation is None else {"permutation": images.permutation}
    half = {} if images.half is None else {"half": images.half}
    return {
        "dataset": recipe.data.name,
        "images": len(images.true_labels.manifest),
        **half,
        **shuffled,
        "classes": len(manifest.classes),
        "classes_hash": manifest.classes_hash,
        "source_hash": images.source_hash,
        "data_hash": manifest.hash,
        "objective": recipe.task,
        "seed": recipe.seed,
        "rewind_samples": (plan.stages.rewind if rewind is None else rewind) * recipe.training.batch_size,
        "weights": weights,
        "search_samples": spent.samples,
        **({} if spent.forward_images is None else {"search_forward_images": spent.forward_images}),
        "numerics": numerics,
        "versions": library_versions(),
        "commit": git_commit(),
    }


def level_row(
    plan: SearchPlan,
    ticket: Ticket,
    measured: Mapping[str, Any],
    *,
    effective: float,
    bad: Mapping[str, str],
    device: str,
    numerics: str,
) -> dict[str, Any]:
    """What finding a ticket cost and showed.

    Args:
        plan: of the search.
        ticket: of the level.
        measured: in the training that found it.
        effective: fraction of the prunable weights that lie on a path from the image to the features.
        bad: images that could not be read so far, by path, and why.
        device: what computed.
        numerics: and how.
    """
    forward = ticket.provenance.get("search_forward_images")
    return {
        **_ticket_columns(plan, ticket, "level"),
        **measured,
        "effective_density": effective,
        "search_samples": ticket.provenance["search_samples"],
        **({} if forward is None else {"search_forward_images": forward}),
        "search_epochs": ticket.provenance["search_samples"] / plan.clock.set_size,
        "layers": {name: list(count) for name, count in ticket.mask.layer_counts().items()},
        **unreadable_fields(bad),
        "device": device,
        "numerics": numerics,
    }


def magnitudes_row(
    plan: SearchPlan, ticket: Ticket, trained: StateDict, *, device: str, numerics: str
) -> dict[str, Any]:
    """How large the weights of the search's own dense network are at the end of its training, by its own objective.

    Args:
        plan: of the search.
        ticket: of level 0.
        trained: the backbone's weights at the end.
        device: what computed.
        numerics: and how.
    """
    target = {"protocol": "search", "start": "0", "target": plan.recipe.data.name, "seed": plan.recipe.seed}
    of = _ticket_columns(plan, ticket, "magnitudes")
    where = {"device": device, "numerics": numerics}
    return {**of, **target, **weights_by_magnitude.magnitude_statistics(trained, list(ticket.mask)), **where}


def _ticket_columns(plan: SearchPlan, ticket: Ticket, kind: str) -> dict[str, Any]:
    """What every row of a search says of the ticket that it is about."""
    recipe = plan.recipe
    return {
        "kind": kind,
        "run": plan.run_dir.path.name,
        "recipe": recipe_family(ticket.recipe),
        "objective": recipe.task,
        "model": recipe.model,
        "source": recipe.data.name,
        "subset": recipe.data.subset,
        "subset_by": recipe.data.subset_by,
        "level": ticket.level,
        "density": ticket.mask.density,
        "within": describe_layers(ticket.recipe),
        "ticket_hash": ticket.hash,
        "search_seed": recipe.seed,
        "search": search_label(ticket.recipe),
        "settings": recipe_settings(ticket.recipe),
        "rewind_samples": ticket.provenance["rewind_samples"],
        **collect_provenance(),
        "source_hash": plan.images.source_hash,
        "data_hash": ticket.provenance["data_hash"],
        "precision": recipe.precision,
    }


def training_summary(measured: Mapping[str, Any], level: int) -> str:
    """What the training that found the ticket of a level showed, in one line that says which network was trained.

    Args:
        measured: in that training.
        level: of the ticket that it found.
    """
    shown = {name: value for name, value in measured["metrics"].items() if name != "loss"}
    if measured["probe"]:
        shown["nearest neighbours"] = list(measured["probe"].values())[-1]
    metrics = "".join(f", {name} {value:.4g}" for name, value in shown.items())
    if measured["loss"] is None:
        return f"{'no further training' if level else 'untrained'}{metrics}, {measured['seconds']:.0f} s"
    # What was trained is the network before the pruning: its scores are not those of the ticket that it led to.
    density = measured.get("trained_density", 1.0)
    trained = "the dense network, trained to W_k" if not level else f"found by training at density {density:.3%}"
    saved = measured["saved_samples"]
    settled = f", settled with {saved:,} samples saved" if saved else ""
    return f"{trained}: loss {measured['loss']:.4g}{metrics}{settled}, {measured['seconds']:.0f} s"
