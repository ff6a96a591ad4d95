"""Batches of image files: which rows, with which random numbers, and what happens to files that cannot be read."""

import os
import weakref
from collections.abc import Callable, Generator, Iterator, Mapping
from functools import partial

import numpy as np

from sslticket.data.archives import Archives
from sslticket.data.bad import BadImages
from sslticket.data.dali import Decoder, Feed
from sslticket.data.handover import together
from sslticket.data.judging import Kind
from sslticket.data.loader import Batch
from sslticket.data.manifest import Manifest
from sslticket.data.order import Order
from sslticket.data.verdicts import Verdicts
from sslticket.errors import BadInput, is_out_of_memory

_AHEAD = 2  # batches whose images are judged, where they have no verdict yet, before they are asked for


class FileLoader:
    """A `Loader` of image files.

    Before DALI is given an image, it has its verdict (`sslticket.data.verdicts`). In training, an unreadable image's
    place in the batch is taken by the next readable one in the shuffled stream. That rule depends on the images alone,
    so a restarted run, and any number of processes, see the same global batches. One pass over the set leaves it out.
    Where DALI might show another picture than Pillow, or refuses the file, it is given Pillow's.
    """

    def __init__(
        self, manifest: Manifest, decoder: Decoder, order: Order, *, augment_seed: int, bad: BadImages
    ) -> None:
        """See `opening.loader`."""
        assert order.length == len(manifest), "the order is of another set of images"
        self._manifest, self._decoder, self._order, self._seed = manifest, decoder, order, augment_seed
        self._labels = np.asarray(manifest.labels)
        self._each = order.batch_size // order.world
        self._bad = bad
        self._archives = Archives(manifest.archives) if manifest.archives else None
        self._places = manifest.places if manifest.archives else None
        self._verdicts = Verdicts(manifest, decoder.threads, self._archives)

    @property
    def bad(self) -> Mapping[str, str]:
        """Images that could not be read, by path, and why."""
        return self._bad

    def train(self, start: int, stop: int) -> Iterator[Batch]:
        """This process's share of the augmented global batches `start` to `stop - 1`."""
        try:
            self._meet_again(start)
            while start < stop:
                start += yield from self._attempt(partial(self._training, start, stop), stop - start)
        finally:
            self._verdicts.save()

    def once(self) -> Iterator[Batch]:
        """This process's share of one pass over the readable images, in order; the last batch is short."""
        left = np.arange(self._order.rank, len(self._manifest), self._order.world)
        try:
            while len(left := left[~self._is_bad(left)]):
                batches = np.split(left, range(self._each, len(left), self._each))
                done = yield from self._attempt(partial(self._plain, batches), len(batches))
                left = np.concatenate([left[:0], *batches[done:]])
        finally:
            self._verdicts.save()

    def _meet_again(self, start: int) -> None:
        """Name those bad images that a training which goes on here had met before, and told of in its rows."""
        if start and len(known := self._verdicts.known_bad):
            steps = range(min(start, -(-self._order.length // self._order.batch_size) + 1))
            self._is_bad(np.intersect1d(known, np.concatenate([self._order.rows(step) for step in steps])))

    def _is_bad(self, rows: np.ndarray) -> np.ndarray:
        """Which of these rows cannot be read, (N,) bool; new ones are named and counted."""
        bad: np.ndarray = self._verdicts.kinds(rows) == Kind.BAD
        if bad.any():
            root = self._manifest.root
            told = {f"{root}/{self._manifest.frame['file'].iat[row]}": row for row in rows[bad].tolist()}
            new = {path: self._verdicts.reason(row) for path, row in told.items() if path not in self._bad}
            if new:
                self._bad.add(new)
            if self._verdicts.all_bad:
                raise BadInput(f"none of the {len(self._manifest)} images in {root} can be read")
        return bad

    def _attempt(self, feed: Callable[[int], Feed], batches: int) -> Generator[Batch, None, int]:
        """Batches up to the first that has an image which DALI refuses, which is then known; how many they were."""
        done, known, device = 0, self._verdicts.revised, self._decoder.device
        try:
            for views, rows in self._decoder.run(self._read(feed, batches), batches, self._each):
                label, row = together([self._labels[rows], rows], device)
                yield Batch(views, label, row)
                done += 1
        except RuntimeError as error:
            if is_out_of_memory(error):  # each image alone might fail for the same reason, and would count as bad
                raise
            again = self._read(lambda _: feed(done), 1)(0)
            for row in again.rows[self._decoder.refused(again.raw)].tolist():
                self._verdicts.revise(row)
            # Another pass over the same loader may have revised them since these batches were asked for.
            if self._verdicts.revised == known:
                raise
        return done

    def _read(self, feed: Callable[[int], Feed], batches: int) -> Callable[[int], Feed]:
        """The same feed, with the bytes of images inside archives in it, and with those that Pillow decodes."""
        if self._archives is None or self._places is None:
            return lambda batch: self._with_pillows(feed(batch))
        places = self._places
        ahead = self._archives.ahead(feed, lambda plain: places[plain.rows], batches)

        def read(batch: int) -> Feed:
            plain, encoded = ahead(batch)
            return self._with_pillows(plain._replace(encoded=encoded))

        return read

    def _with_pillows(self, feed: Feed) -> Feed:
        """The feed with Pillow's picture in place of each image of which DALI might make another."""
        places = np.flatnonzero(self._verdicts.kinds(feed.rows) == Kind.PILLOW).tolist()
        if not places:
            return feed
        paths, lent = list(feed.paths), list[_InMemory]()
        encoded = None if feed.encoded is None else list(feed.encoded)
        mode = "RGB" if len(self._decoder.mean) == 3 else "L"
        for place, content in zip(places, self._verdicts.ppms(feed.rows[places].tolist(), mode), strict=True):
            if content is None:
                continue  # DALI refuses it too, and then it is judged anew
            if encoded is not None:
                encoded[place] = np.frombuffer(content, np.uint8)
            else:
                lent.append(_InMemory(content))
                paths[place] = lent[-1].path
        return feed._replace(paths=paths, encoded=encoded, lent=tuple(lent))

    def _training(self, start: int, stop: int, batch: int) -> Feed:
        step, share = start + batch, self._order.share
        rows = self._order.rows(step)[share]
        if not self._verdicts.complete:
            for later in range(step, min(step + 1 + _AHEAD, stop)):
                self._verdicts.begin(self._order.rows(later)[share])
        for place in np.flatnonzero(self._is_bad(rows)):
            rows[place] = self._order.stand_in(step, share.start + int(place), self._verdicts)
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


class _InMemory:
    """A file in memory, which has a path as long as somebody holds this."""

    def __init__(self, content: bytes) -> None:
        number = os.memfd_create("image")
        weakref.finalize(self, os.close, number)
        with open(number, "wb", closefd=False) as file:
            file.write(content)
        self.path = f"/proc/self/fd/{number}"
