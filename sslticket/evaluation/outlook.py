"""A matrix before it is run: what is done, what is left, and how long that takes."""

from collections.abc import Sequence

from sslticket.evaluation.matrix import NATURAL, Matrix, Training
from sslticket.evaluation.pace import Pace
from sslticket.evaluation.tasks import Task
from sslticket.units import duration

_HEAD = ("protocol", "control", "rows", "done", "trainings", "steps each", "samples", "training time")


def outlook(matrix: Matrix, pace: Pace) -> str:
    """A table for a person: a line for each protocol and control, and what it comes to.

    Time is that of training alone, at the median speed of the rows that are there; "unknown" where this device has
    measured no row of the model, under the protocol or on images of its size.
    """
    left, trainings = set(matrix.left()), matrix.trainings()
    kinds = [_kind(task, task.control) for task in matrix.tasks]
    kinds += [_kind(each.like, each.control) for each in trainings]
    lines = [_HEAD]
    for protocol, control in dict.fromkeys(kinds):
        rows = [task for task in matrix.tasks if _kind(task, task.control) == (protocol, control)]
        own = [each for each in trainings if _kind(each.like, each.control) == (protocol, control)]
        lines.append(
            (
                protocol,
                control,
                f"{len(rows):,}",
                f"{len(rows) - len(left.intersection(rows)):,}",
                f"{len(own):,}",
                ", ".join(f"{steps:,}" for steps in dict.fromkeys(each.steps for each in own)),
                f"{sum(each.samples for each in own):,}",
                _time(own, pace),
            )
        )
    shared = len(left) - sum(1 for each in trainings if each.rows)
    ends = [
        f"{len(matrix.tasks):,} rows, {len(matrix.tasks) - len(left):,} done",
        f"left: {len(trainings):,} trainings, {sum(each.samples for each in trainings):,} samples, "
        f"training time {_time(trainings, pace)}",
    ]
    if shared:
        ends.append(f"{shared:,} rows share the training of another")
    return "\n".join([table(lines), *ends])


def _kind(task: Task, control: str) -> tuple[str, str]:
    """A line's protocol and control, in words."""
    if control == NATURAL:
        return task.protocol.name, "dense, for natural zeros"
    return task.protocol.name, control + (", own head" if task.head == "own" else "")


def _time(trainings: Sequence[Training], pace: Pace) -> str:
    """Training alone: measuring and loading come on top."""
    seconds = 0.0
    for training in trainings:
        rate = pace.rate(training.model, training.like.protocol, training.numerics)
        if rate is None and training.samples:
            return "unknown"
        seconds += training.samples / (rate or 1)
    return f"about {duration(seconds)}" if seconds else "none"


def table(lines: Sequence[Sequence[str]]) -> str:
    """Lines of columns of one width: the first two, text, to the left, and the numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place < 2 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
