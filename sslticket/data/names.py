"""What sets of images are called in rows, tickets, reports and folders' names."""

import re

from sslticket.errors import BadInput

_LONGEST = 40  # characters of a part's name, which has to fit a folder's name and a line of a report


def named(dataset: str, which: str | None) -> str:
    """A data set and, in brackets, which images of that name these are: "imagenet[flowers102]".

    Args:
        dataset: its name, with its half's letter.
        which: a part's name, or some digits of the images' hash; None where the name says it all.
    """
    return dataset if which is None else f"{dataset}[{which}]"


def check_part(dataset: str, part: str | None) -> None:
    """Whether a part may be called so.

    Raises:
        BadInput: if the text cannot go into names, or the data set is one's own, of which nobody knows the whole.
    """
    if part is None:
        return
    if dataset == "folder":
        raise BadInput(f"a folder of your own has no official counts, so {part!r} is no part of them; leave --part out")
    if part.strip() != part or len(part) > _LONGEST or not re.fullmatch(r"[A-Za-z0-9 ._-]+", part):
        raise BadInput(
            f"{part!r} cannot name a part of {dataset}; give --part up to {_LONGEST} letters, digits, spaces, dots, "
            "underscores and hyphens, such as --part flowers102"
        )


def in_paths(name: str) -> str:
    """A name as a part of files' names, which no shell has to have quoted: "imagenet-flowers102"."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-.")
