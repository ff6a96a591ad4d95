"""The licence of the images that a ticket was found on, as a model card on the Hugging Face Hub names it."""

import re
from dataclasses import dataclass
from typing import Any

from sslticket.data.catalogue import DATASETS
from sslticket.errors import BadInput

# SPDX names in lower case that the Hub's `license` knows and that data is published under; all else is "other".
_KNOWN = {
    *("mit", "apache-2.0", "bsd-3-clause", "cc0-1.0", "odbl", "pddl", "unlicense"),
    *(f"cc-{terms}-{version}" for terms in ("by", "by-sa") for version in ("2.0", "2.5", "3.0", "4.0")),
    *(f"cc-by-{terms}-{version}" for terms in ("nc", "nd", "nc-nd", "nc-sa") for version in ("2.0", "3.0", "4.0")),
}


@dataclass(frozen=True)
class Licence:
    """What is known of it.

    Attributes:
        text: in a few words, such as "CC BY 4.0".
        link: where it is told; "" where nobody knows.
    """

    text: str
    link: str

    @classmethod
    def of(cls, dataset: str, given: str | None) -> "Licence":
        """The catalogue's for this data set, unless another is given.

        Raises:
            BadInput: if none is given and none is known, as for one's own images.
        """
        entry = DATASETS.get(dataset)
        # The catalogue's entry for one's own images has no place on the web.
        link = entry.home if entry and entry.home.startswith("http") else ""
        if given is not None:
            if not given.strip() or "\n" in given:
                raise BadInput(f"{given!r} is no licence; give --data-licence in a few words, such as 'CC BY 4.0'")
            return cls(given.strip(), link)
        if entry is None or not link:
            raise BadInput(
                f"no licence is known of the images of {dataset!r}; say it with --data-licence, such as 'CC BY 4.0'"
            )
        return cls(entry.licence, link)

    @property
    def front_matter(self) -> dict[str, Any]:
        """The Hub's fields: its own name for the licence, or "other" with a name and a link."""
        slug = re.sub(r"[^a-z0-9.]+", "-", self.text.lower()).strip("-")
        if slug in _KNOWN:
            return {"license": slug}
        named = {"license": "other", "license_name": slug or "as-stated-below"}
        return named | {"license_link": self.link} if self.link else named
