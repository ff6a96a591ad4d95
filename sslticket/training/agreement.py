"""Whether all processes are about to do the same: what a training would not show by itself, they compare before it."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sslticket import origin, surroundings
from sslticket.machine import Machine

_FLAGS = "give the same flags to every process"
_OWN = ("data_root", "threads", "max_bad_images", "tensorboard", "timeout")  # of the machine; they may differ


class Fact(NamedTuple):
    """What a process has before it, where all must have the same.

    Attributes:
        says: what it is, as a sentence goes on after "process 2": "sees 1,437 training images".
        fix: what to do where another process says otherwise.
    """

    says: str
    fix: str


def flag(name: str, value: object) -> Fact:
    """Of a flag, by the name of its field."""
    return Fact(f"has --{name.replace('_', '-')} {value}", _FLAGS)


def program() -> dict[str, Fact]:
    """Of the code that runs, and of the libraries that a result depends on."""
    facts = {"code": Fact(f"runs code with the hash {origin.code()}", "check out one commit on every machine")}
    for library, version in origin.versions().items():
        facts[library] = Fact(f"has {library} {version}", "install the same versions on every machine")
    outside = ", ".join(surroundings.told("any")) or "no variable"
    facts["surroundings"] = Fact(f"has {outside} set that changes rounding", "set the same on every machine")
    return facts


def settings(machine: Machine) -> dict[str, Fact]:
    """Of those settings of the machine on which a result depends."""
    given = {field.name: getattr(machine, field.name) for field in dataclasses.fields(machine)}
    return {name: flag(name, value) for name, value in given.items() if name not in _OWN}


def difference(told: Sequence[Mapping[str, Fact]]) -> str | None:
    """Who says otherwise than process 0, of what, and the fix, in one line; None where all say the same.

    Args:
        told: what each process says, by rank; what they differ in first is told.
    """
    first = told[0]
    for name in dict.fromkeys(name for each in told for name in each):
        says = [each[name].says if name in each else f"has no {name}" for each in told]
        odd = [rank for rank, text in enumerate(says) if text != says[0]]
        if odd:
            alike = [str(rank) for rank in odd[1:] if says[rank] == says[odd[0]]]
            more = f" (and {', '.join(alike)})" if alike else ""
            fix = (first if name in first else told[odd[0]])[name].fix
            return f"process {odd[0]}{more} {says[odd[0]]}, and process 0 {says[0]}; {fix}"
    return None
