"""A ticket, readably."""

from torch import Tensor, nn

from sslticket import models
from sslticket.data.datasets.catalogue import InputSpec
from sslticket.errors import BadInput
from sslticket.escaping import escape_terminal
from sslticket.export.description import ticket_facts
from sslticket.pruning.effective_sparsity import effective_mask
from sslticket.pruning.forward_graph import MaskCoverage
from sslticket.pruning.prunable import shorten_names
from sslticket.ticket import Ticket

_MAX_IMAGE_SIDE = 1024  # pixels a side for which a network is made here: a stranger's ticket must not cost gigabytes


def describe_ticket(ticket: Ticket, place: str, size: int) -> str:
    """What the ticket is, where it comes from, how dense it is as a whole, and how dense each layer is.

    Args:
        ticket: read from there.
        place: as it was named.
        size: of its file, in bytes.

    Raises:
        BadInput: if no search wrote it, so that it does not tell.
    """
    told = {"ticket": f"{place}, {size:,} bytes, hash {ticket.hash}"} | ticket_facts(ticket)
    network, dense = _describe_network(ticket)
    lines = [f"{name:<10}{escape_terminal(value)}" for name, value in (told | network).items()]
    counts = ticket.mask.layer_counts()
    whole = {
        name: value.numel() for name, value in ticket.weights.items() if name in dense or _is_layer_weight(name, value)
    }
    layers = [name for name in ticket.weights if name in counts or name in whole]
    names = {name: escape_terminal(name) for name in layers}
    width = max(map(len, names.values()), default=0)
    lines += ["", f"{'layer':<{width}}  {'kept':>12}  {'of':>12}  density"]
    for name in layers:
        if name not in counts:
            lines.append(f"{names[name]:<{width}}  {whole[name]:>12,}  {whole[name]:>12,}  not pruned")
            continue
        alive, total = counts[name]
        bar = "█" * round(20 * alive / total)
        lines.append(f"{names[name]:<{width}}  {alive:>12,}  {total:>12,}  {alive / total:>8.3%}  {bar}".rstrip())
    return "\n".join(lines)


def _describe_network(ticket: Ticket) -> tuple[dict[str, str], tuple[str, ...]]:
    """What only the network itself tells, and its dense matrices; nothing where it cannot be made here."""
    inputs = InputSpec.from_recipe(ticket.recipe)
    if inputs is None or inputs.image_size > _MAX_IMAGE_SIDE:
        return {}, ()
    model, images = ticket.recipe["model"], {"channels": inputs.channels, "image_size": inputs.image_size}
    try:
        backbone = models.create_model(model, **images)
        ticket.apply(models.create_model(model, **images))  # the ticket may be for another version of the network
    except BadInput:
        return {}, ()
    acting = MaskCoverage.measure(backbone, **images)
    told = {"all": _describe_whole(ticket, backbone, acting.unprunable)}
    try:
        acting.check(model, list(ticket.mask))
    except BadInput as error:
        return told | {"effective": str(error)}, acting.unprunable
    found = effective_mask(backbone, ticket.mask, **images).survivors
    cut = "" if found else "; nothing gets through"
    on_paths = f"{found:,} weights lie on a path from the image to the features{cut}"
    return told | {"effective": f"density {found / ticket.mask.total:.4%}: {on_paths}"}, acting.unprunable


def _describe_whole(ticket: Ticket, backbone: nn.Module, dense: tuple[str, ...]) -> str:
    parameters, mask = sum(parameter.numel() for parameter in backbone.parameters()), ticket.mask
    left = parameters - mask.total + mask.survivors
    told = f"density {left / parameters:.4%}: {left:,} of {parameters:,} parameters of the backbone"
    return f"{told}; dense matrices: {shorten_names(dense)}" if dense else told


def _is_layer_weight(name: str, value: Tensor) -> bool:
    """Whether a tensor is the weight of a layer that some search may prune; vectors are biases and batch norm's."""
    return name.endswith(".weight") and value.dim() > 1
