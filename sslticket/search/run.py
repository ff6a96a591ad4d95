"""A planned search, run to its end."""

from dataclasses import replace

from sslticket.data.opening import Source, open_split
from sslticket.data.places import MissingSplit
from sslticket.machine import Machine
from sslticket.search.lab import Lab
from sslticket.search.plan import Plan
from sslticket.training.net import Net
from sslticket.training.progress import Progress
from sslticket.training.workbench import Workbench


def run(plan: Plan, machine: Machine) -> dict[str, str]:
    """Find every ticket of the plan that is not there yet; returns the images that could not be read, with reasons.

    Raises:
        BadInput: if the machine cannot run it, or more images than allowed are unreadable.
        Diverged: if a loss is not finite.
    """
    recipe = plan.recipe
    bench = Workbench.on(machine, recipe.precision)
    bench.check_batch(recipe.fit.batch_size)
    view = recipe.data.view(plan.source.dataset.train)
    net = Net.build(
        recipe.model,
        recipe.objective,
        channels=plan.source.dataset.channels,
        image_size=view.size,
        classes=len(plan.source.manifest.classes),
        seed=recipe.seeds.init,
    )
    done = max(
        (plan.samples(level) for level in range(plan.levels + 1) if plan.folder.ticket(level).exists()), default=0
    )
    with (
        plan.folder.opened(bench.first),
        bench.prepared(net) as wrapped,
        Progress(plan.samples(plan.levels), done=done, show=bench.first) as progress,
    ):
        evaluation = _evaluation(plan, machine)
        lab = Lab(plan, bench, net, wrapped, evaluation=evaluation, progress=progress)
        for ticket in recipe.search.tickets(lab):
            progress.note(f"level {ticket.level}: density {ticket.mask.density:.3%}, {lab.summary(ticket.level)}")
    return lab.bad_images


def _evaluation(plan: Plan, machine: Machine) -> Source | None:
    """The split on which the objective's own metrics are reported.

    A search does without where the dataset has none, and where a whole training sees fewer images than it holds: there
    the metrics of a trial would take longer than the trial.
    """
    try:
        source = open_split(plan.recipe.data.dataset, "eval", machine.data_root)
    except MissingSplit:
        return None
    manifest = source.manifest.of_classes(plan.source.manifest.classes)
    clock = plan.recipe.fit.clock(len(plan.source.manifest))
    return replace(source, manifest=manifest) if clock.total * clock.batch_size >= len(manifest) else None
