"""Batches of image files: which rows, with which random numbers, and what happens to files that cannot be read."""

from collections.abc import Callable, Generator, Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from sslticket.data.archives import Archives
from sslticket.data.bad import BadImages
from sslticket.data.dali import Decoder, Feed
from sslticket.data.handover import together
from sslticket.data.loader import Batch
from sslticket.data.manifest import Manifest
from sslticket.data.order import Order
from sslticket.errors import BadInput, is_out_of_memory


class FileLoader:
    """A `Loader` of image files.

    In training, an unreadable image's place in the batch is taken by the next readable one in the shuffled stream. That
    rule depends on the images alone, so a restarted run, which meets the bad ones at other moments, sees the same
    batches. One pass over the set leaves them out.
    """

    def __init__(
        self, manifest: Manifest, decoder: Decoder, order: Order, *, augment_seed: int, bad: BadImages
    ) -> None:
        """See `opening.loader`."""
        assert order.length == len(manifest), "the order is of another set of images"
        self._manifest, self._decoder, self._order, self._seed = manifest, decoder, order, augment_seed
        self._labels = np.asarray(manifest.labels)
        self._each = order.batch_size // order.world
        self._bad, self._bad_rows = bad, np.empty(0, np.int64)
        self._archives = Archives(manifest.archives) if manifest.archives else None
        self._places = manifest.places if manifest.archives else None

    @property
    def bad(self) -> Mapping[str, str]:
        """Images that could not be read, by path, and why."""
        return self._bad

    def train(self, start: int, stop: int) -> Iterator[Batch]:
        """This process's share of the augmented global batches `start` to `stop - 1`."""
        while start < stop:
            start += yield from self._attempt(partial(self._training, start), stop - start)

    def once(self) -> Iterator[Batch]:
        """This process's share of one pass over the readable images, in order; the last batch is short."""
        left = np.arange(self._order.rank, len(self._manifest), self._order.world)
        while len(left := left[~np.isin(left, self._bad_rows)]):
            batches = np.split(left, range(self._each, len(left), self._each))
            done = yield from self._attempt(partial(self._plain, batches), len(batches))
            left = np.concatenate([left[:0], *batches[done:]])

    def _attempt(self, feed: Callable[[int], Feed], batches: int) -> Generator[Batch, None, int]:
        """Batches up to the first that has an unreadable image, which is then known; returns how many they were."""
        done, known = 0, len(self._bad)
        device = self._decoder.device
        try:
            for views, rows in self._decoder.run(self._read(feed, batches), batches, self._each):
                label, row = together([self._labels[rows], rows], device)
                yield Batch(views, label, row)
                done += 1
        except RuntimeError as error:
            if is_out_of_memory(error):  # each image alone might fail for the same reason, and would count as bad
                raise
            self._find_bad(self._read(lambda _: feed(done), 1)(0))
            # Another pass over the same loader may have found them since these batches were asked for.
            if len(self._bad) == known:
                raise
        return done

    def _read(self, feed: Callable[[int], Feed], batches: int) -> Callable[[int], Feed]:
        """The same feed, with the images' bytes in it where they are inside archives."""
        if self._archives is None or self._places is None:
            return feed
        places = self._places
        ahead = self._archives.ahead(feed, lambda plain: places[plain.rows], batches)

        def read(batch: int) -> Feed:
            plain, encoded = ahead(batch)
            return plain._replace(encoded=encoded)

        return read

    def _find_bad(self, feed: Feed) -> None:
        images = dict(zip(map(Path, feed.paths), feed.raw, strict=True))
        found = {str(path): reason for path, reason in self._decoder.unreadable(images).items()}
        # By path: in a set with two streams an image has two rows.
        all_paths = f"{self._manifest.root}/" + self._manifest.frame["file"]
        self._bad_rows = np.union1d(self._bad_rows, np.flatnonzero(all_paths.isin(list(found))))
        self._bad.add(found)
        if len(self._bad_rows) == len(self._manifest):
            raise BadInput(f"none of the {len(self._manifest)} images in {self._manifest.root} can be read")

    def _training(self, start: int, batch: int) -> Feed:
        step, share = start + batch, self._order.share
        rows = self._order.rows(step)[share]
        for place in np.flatnonzero(np.isin(rows, self._bad_rows)):
            rows[place] = self._order.stand_in(step, share.start + int(place), self._bad_rows)
        return self._feed(rows, self._order.batch_size, share, step)

    def _plain(self, batches: list[np.ndarray], batch: int) -> Feed:
        rows = batches[batch]
        return self._feed(rows, len(rows), slice(None), f"once {batch}")

    def _feed(self, rows: np.ndarray, drawn: int, share: slice, step: int | str) -> Feed:
        draws = tuple(
            view.draw(drawn, self._seed, step, number).part(share) for number, view in enumerate(self._decoder.views)
        )
        root = self._manifest.root
        return Feed([f"{root}/{file}" for file in self._manifest.frame["file"].iloc[rows]], rows, draws)
