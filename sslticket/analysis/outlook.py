"""An analysis before it is run: what is done, what is left, and how long that takes."""

from collections.abc import Sequence

from sslticket.analysis.analyse import Survey
from sslticket.analysis.subjects import Course
from sslticket.evaluation.outlook import table
from sslticket.evaluation.pace import Pace
from sslticket.units import duration

_HEAD = ("protocol", "control", "rows", "done", "trainings left", "samples", "training time")


def outlook(survey: Survey, pace: Pace) -> str:
    """A table for a person: a line for each protocol and control, and what it comes to.

    A training that several lines share is counted in the first of them. Time is that of training alone, at the median
    speed of the rows that are there; "unknown" where this device has measured none.
    """
    left, lines = survey.left(), [_HEAD]
    counted: set[str] = set()
    for key in dict.fromkeys((subject.task.protocol.name, subject.task.control) for subject in survey.subjects):
        own, here = (
            [each for each in some if (each.task.protocol.name, each.task.control) == key]
            for some in (survey.subjects, left)
        )
        trainings = [course for course in survey.trainings(here) if str(course.file) not in counted]
        counted |= {str(course.file) for course in trainings}
        samples = sum(course.samples for course in trainings)
        numbers = f"{len(own):,}", f"{len(own) - len(here):,}", f"{len(trainings):,}", f"{samples:,}"
        lines.append((*key, *numbers, _time(trainings, pace)))
    trainings = survey.trainings(left)
    ends = (
        f"{len(survey.subjects):,} rows, {len(survey.subjects) - len(left):,} done",
        f"left: {len(trainings):,} trainings, {sum(course.samples for course in trainings):,} samples, "
        f"training time {_time(trainings, pace)}",
    )
    return "\n".join([table(lines), *ends])


def _time(trainings: Sequence[Course], pace: Pace) -> str:
    """Training alone: measuring comes on top."""
    seconds = 0.0
    for course in trainings:
        rate = pace.rate(course.model, course.task.protocol, course.numerics)
        if rate is None:
            return "unknown"
        seconds += course.samples / rate
    return f"about {duration(seconds)}" if seconds else "none"
