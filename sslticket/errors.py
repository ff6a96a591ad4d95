"""The two ways a run ends early, and how a wrong name is answered."""

from collections.abc import Iterable
from difflib import get_close_matches


class BadInput(ValueError):
    """What the user gave cannot be used; its one line names the thing and the fix (exit code 2)."""


class Diverged(ArithmeticError):
    """Training produced a non-finite loss; nothing is written from it (exit code 3)."""


def unknown(kind: str, name: str, allowed: Iterable[str]) -> BadInput:
    """An error for a `name` that is none of the `allowed`, naming the nearest ones, or all where none is near."""
    choices = sorted(set(allowed))
    near = get_close_matches(name, choices, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(choices)}"
    return BadInput(f"unknown {kind} {name!r}; {hint}")


def one_line(error: Exception) -> str:
    """What an error says, in one line; its kind, where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
