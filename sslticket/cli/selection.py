"""Which tickets a command is about, under which protocols, with which seeds: flags that commands share."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sslticket import hub
from sslticket.cli import flags
from sslticket.errors import BadInput

if TYPE_CHECKING:
    from sslticket.evaluation.tasks import Levels

USUAL = "0-6, then every third"


def add(parser: flags.Parser, *, levels: str = USUAL) -> None:
    """The flags of commands that train tickets; `levels` says which are taken by default."""
    add_tickets(parser, levels=levels)
    parser.add_argument(
        "--protocol",
        nargs="+",
        required=True,
        metavar="NAME",
        help="imagenet, cifar10, svhn-sgd, digits-demo, ..., or own for each ticket's own fit; @k after a "
        "name starts its schedule at the rewind point; docs/evaluation.md has them all",
    )
    parser.add_argument(
        "--head",
        nargs="+",
        choices=("own", "new"),
        help="go on from the ticket's own classification layer, or draw a new one, or each in turn [own where the "
        "ticket was found on the protocol's task]",
    )
    parser.add_argument(
        "--part",
        metavar="NAME",
        help="what the protocol's images are if they are not the whole official set, such as flowers102 [none]",
    )
    parser.add_argument("--seeds", nargs="+", metavar="SEED", help="such as 0 1 2 or 0-5 [the protocol's own]")
    parser.add_argument(
        "--precision", choices=("fp32", "bf16", "fp16"), help="of the passes [bf16 on CUDA without --exact, else fp32]"
    )
    parser.add_argument("--dry-run", action="store_true", help="print what is done and what is left; train nothing")


def add_tickets(parser: flags.Parser, *, levels: str = USUAL) -> None:
    """The flags that name tickets."""
    parser.add_argument(
        "tickets", nargs="+", type=Path, help="folders of runs, such as runs/<key>, ticket files, or hf://USER/NAME"
    )
    parser.add_argument(
        "--levels", nargs="+", metavar="LEVEL", help=f"of folders: such as 0 3 6 or 0-6, or all [{levels}]"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs"),
        metavar="PATH",
        help="where tickets named hf:// are kept, with their rows; other rows lie beside their tickets [runs]",
    )


def places(given: argparse.Namespace) -> list[Path]:
    """The folders and files that were given; tickets on the Hub are fetched.

    Raises:
        BadInput: if one cannot be fetched.
    """
    return [hub.kept(place, given.out) if hub.is_name(place) else place for place in given.tickets]


def protocols(given: argparse.Namespace) -> list[str]:
    """What --protocol says, each once.

    Raises:
        BadInput: for an unknown protocol, or what cannot name a part.
    """
    from sslticket.data.names import check_part
    from sslticket.evaluation.protocols import OWN, find

    chosen = list(dict.fromkeys(given.protocol))
    for name in chosen:
        if name.partition("@")[0] != OWN:  # which only a ticket can tell
            check_part(find(name).dataset, given.part)
    return chosen


def levels(words: Sequence[str] | None) -> "Levels":
    """What --levels says: the usual ones where nothing was given.

    Raises:
        BadInput: for what is no number, range or "all".
    """
    from sslticket.evaluation import tasks

    if words is None:
        return tasks.USUAL
    return tasks.ALL if list(words) == ["all"] else tasks.Levels(tuple(numbers(words, "--levels")))


def seeds(words: Sequence[str] | None) -> list[int] | None:
    """What --seeds says; None for each protocol's own.

    Raises:
        BadInput: for what is no number or range.
    """
    return None if words is None else numbers(words, "--seeds")


def numbers(words: Sequence[str], flag: str) -> list[int]:
    """Numbers and ranges: "0 2 4-6" is 0, 2, 4, 5, 6.

    Raises:
        BadInput: for anything else.
    """
    found: list[int] = []
    for word in words:
        first, dash, last = word.partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise BadInput(f"{flag} {word!r} is no number or range; write it like 0 1 2 or 0-5")
        some = range(int(first), int(last or first) + 1)
        if not some:
            raise BadInput(f"{flag} {word!r} is an empty range; write it like {last}-{first}")
        found += some
    return list(dict.fromkeys(found))
