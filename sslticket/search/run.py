"""A planned search, run to its end."""

from sslticket.machine import Machine
from sslticket.search.lab import Lab
from sslticket.search.plan import Plan
from sslticket.search.watch import Watch
from sslticket.ticket import Ticket
from sslticket.training.net import Net
from sslticket.training.progress import Progress
from sslticket.training.workbench import Workbench

_SHOWN = 5  # emptied layers named in a note, which has to fit a terminal


def run(plan: Plan, machine: Machine) -> dict[str, str]:
    """Find every ticket of the plan that is not there yet; returns the images that could not be read, with reasons.

    Raises:
        BadInput: if the machine cannot run it, or more images than allowed are unreadable.
        Diverged: if a loss is not finite.
    """
    recipe = plan.recipe
    bench = Workbench.on(machine, recipe.precision)
    bench.check_batch(recipe.fit.batch_size)
    images = plan.images
    net = Net.build(
        recipe.model,
        recipe.objective,
        channels=images.source.dataset.channels,
        image_size=images.views[0].size,
        classes=len(images.source.manifest.classes),
        seed=recipe.seeds.init,
        gated=recipe.search.layers,
        learning=recipe.search.learning(recipe.fit, plan.clock),
    )
    done = max(
        (plan.samples(level) for level in range(plan.levels + 1) if plan.folder.ticket(level).exists()), default=0
    )
    with (
        plan.folder.opened(bench.first),
        bench.prepared(net) as wrapped,
        Progress(plan.samples(plan.levels), done=done, show=bench.first) as progress,
    ):
        lab = Lab(plan, bench, net, wrapped, Watch(plan, bench, net), progress)
        for ticket in recipe.search.tickets(lab):
            progress.note(f"level {ticket.level}: density {ticket.mask.density:.3%}, {lab.summary(ticket.level)}")
            if ticket.mask.emptied:
                progress.note(_emptied(ticket))
    return lab.bad_images


def _emptied(ticket: Ticket) -> str:
    """That layers have lost every weight, which cuts a network that has no way around them."""
    names = [name.removesuffix(".weight") for name in ticket.mask.emptied]
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    # Only a search that counts can be told how many to keep.
    fix = "; --min-per-layer 1 keeps a weight in each" if "min_per_layer" in ticket.recipe["search"] else ""
    return f"level {ticket.level}: at density {ticket.mask.density:.3%} no weight is left in {shown}{fix}"
