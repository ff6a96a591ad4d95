"""Images that cannot be read: named once, counted, and too many of them an error. And classes without images."""

import hashlib
import logging
from collections.abc import Iterable, Mapping

from sslticket.data.folders import left_out
from sslticket.data.manifest import Manifest
from sslticket.errors import BadInput
from sslticket.escaping import terminal

log = logging.getLogger("sslticket")


class BadImages(dict[str, str]):
    """Paths of unreadable images and why."""

    def __init__(self, dataset: str, limit: int, known: Mapping[str, str]) -> None:
        """Starts with the ones already known.

        Args:
            dataset: name for the error.
            limit: how many there may be.
            known: path to reason.

        Raises:
            BadInput: if these are too many already.
        """
        super().__init__(known)
        self._dataset, self._limit = dataset, limit
        self._check()

    def add(self, found: Mapping[str, str]) -> None:
        """Name and remember more of them.

        Raises:
            BadInput: if there are now more than `limit`.
        """
        name_bad(found)
        self.update(found)
        self._check()

    def _check(self) -> None:
        if len(self) > self._limit:
            first = "; ".join(f"{path}: {reason}" for path, reason in list(self.items())[:3])
            raise BadInput(
                f"{len(self)} images of {self._dataset} cannot be read, {self._limit} are allowed ({first}); "
                "repair or remove them, or raise --max-bad-images"
            )


def counted(bad: Mapping[str, str]) -> dict[str, int | str]:
    """What rows say of images that could not be read: how many, and where there are any, a hash that names them.

    Args:
        bad: by path, and why; the hash is of the names and their folders', wherever the data lies.
    """
    if not bad:
        return {"bad_images": 0}
    names = sorted("/".join(path.split("/")[-2:]) for path in bad)
    digest = hashlib.sha256("\n".join(names).encode("utf-8", "surrogateescape"))
    return {"bad_images": len(bad), "bad_hash": digest.hexdigest()[:16]}


def name_bad(found: Mapping[str, str]) -> None:
    """One line in the log for each unreadable image."""
    for path, reason in found.items():
        log.warning("skipped image %s: %s", terminal(path), terminal(reason))


def name_empty(manifest: Manifest) -> None:
    """A line in the log if classes have no images: a file may be damaged, or only a part of the set be there."""
    if empty := manifest.empty:
        what = "training" if manifest.split == "train" else "evaluation"
        log.warning("no %s images of %s in %s", what, terminal(some_classes(empty)), terminal(manifest.dataset))


def name_left_out(manifest: Manifest, names: Iterable[str]) -> None:
    """A line in the log about files among the images that are none, as `Source.left_out` has them."""
    if told := left_out(names):
        what = "training" if manifest.split == "train" else "evaluation"
        log.warning("among the %s images of %s, %s", what, manifest.dataset, told)


def some_classes(names: Iterable[str]) -> str:
    """The first ten, and how many more there are; a terminal should not scroll by with a thousand."""
    listed = sorted(names)
    more = f" and {len(listed) - 10:,} more" if len(listed) > 10 else ""
    return f"{'class' if len(listed) == 1 else 'classes'} {', '.join(listed[:10])}{more}"
