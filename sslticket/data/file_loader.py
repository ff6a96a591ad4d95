"""Batches of image files: which images, with which random numbers, and what happens to those that cannot be read.

What decodes them is a `FileDecoder`: DALI (`data/dali_decoder.py`), or torchvision (`data/torchvision_decoder.py`).
"""

import os
import tempfile
import weakref
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from sslticket.data.augment_ops import copy_all_to_device
from sslticket.data.decode import VERDICT_RULES, ImageKind
from sslticket.data.decoded_cache import DecodedCache, open_cache
from sslticket.data.decoded_images import BatchSpec, FileDecoder, HostParts
from sslticket.data.loader import Batch, Sampler
from sslticket.data.manifest import Manifest
from sslticket.data.tar import TarReader
from sslticket.data.unreadable import UnreadableImages, Verdicts
from sslticket.errors import BadInput, is_out_of_memory

_BATCHES_JUDGED_AHEAD = 2  # whose images are checked, where they have no verdict yet, before they are asked for


class FileLoader:
    """A `Loader` of image files.

    Before an image is decoded, it has its verdict (`unreadable.Verdicts`). In training, an unreadable image's
    position in the batch is taken by the next readable one in the shuffled stream. That rule depends on the images
    alone, so a restarted run, and any number of processes, see the same global batches. One pass over the set leaves it
    out. Where a decoder might show another picture than Pillow, or refuses the file, it is given Pillow's.
    """

    def __init__(
        self,
        manifest: Manifest,
        decoder: FileDecoder,
        sampler: Sampler,
        *,
        augment_seed: int,
        unreadable: UnreadableImages,
        budget: float | None = None,
    ) -> None:
        """Open nothing yet; for the arguments see `source.make_loader`."""
        assert sampler.num_images == len(manifest), "the sampler is of another set of images"
        self._manifest, self._decoder, self._sampler, self._seed = manifest, decoder, sampler, augment_seed
        self._labels, self._files = np.asarray(manifest.labels), manifest.frame["file"].to_numpy(object)
        self._local_batch_size = sampler.batch_size // sampler.world_size
        self._unreadable = unreadable
        self._archives = TarReader(manifest.archives) if manifest.archives else None
        self._byte_ranges = manifest.byte_ranges if manifest.archives else None
        self._verdicts = Verdicts(manifest, decoder.threads, self._archives)
        self._pool, self._budget, self._keys = ThreadPoolExecutor(decoder.threads), budget, dict[int, int | None]()
        self._sizes = np.zeros((len(manifest), 2), np.int32)

    @cached_property
    def _kept(self) -> DecodedCache | None:
        """Where decoded images are kept; None where they are not."""
        if self._budget == 0 or self._decoder.decodes_on_gpu:
            return None
        rules = f"{VERDICT_RULES} {self._decoder.rules}"
        return open_cache(self._manifest, len(self._decoder.mean), rules, self._budget)

    def _key(self, row: int, kind: int) -> int | None:
        """The key under which the image of a row is kept; None where it is not."""
        if row not in self._keys:
            self._keys[row] = self._verdicts.state_key(row)
        key = self._keys[row]
        return None if key is None else key + (kind == ImageKind.PILLOW)

    def _keep(self, row: int, image: np.ndarray) -> None:
        key = self._keys.get(row)
        if self._kept is not None and key is not None:
            self._kept.add(key + bool(self._verdicts.is_pillows(row)), image)

    @property
    def unreadable(self) -> Mapping[str, str]:
        """Images that could not be read, by path, and why."""
        return self._unreadable

    def train(self, start: int, stop: int) -> Iterator[Batch]:
        """Yield this process's slice of the augmented global batches `start` to `stop - 1`."""
        try:
            known = self._verdicts.known_unreadable if start else np.empty(0, np.int64)
            if len(known):
                # A training that goes on here has met these images before, and named them in its rows.
                steps = range(min(start, -(-self._sampler.num_images // self._sampler.batch_size) + 1))
                self._is_unreadable(np.intersect1d(known, np.concatenate([self._sampler.indices(s) for s in steps])))
            while start < stop:
                start += yield from self._decode_until_refused(partial(self._training_spec, start, stop), stop - start)
        finally:
            self._verdicts.save()

    def once(self) -> Iterator[Batch]:
        """Yield this process's part of one pass over the readable images, in order; the last batch is short."""
        left = np.arange(self._sampler.rank, len(self._manifest), self._sampler.world_size)
        try:
            while len(left := left[~self._is_unreadable(left)]):
                batches = np.split(left, range(self._local_batch_size, len(left), self._local_batch_size))
                done = yield from self._decode_until_refused(partial(self._pass_spec, batches), len(batches))
                left = np.concatenate([left[:0], *batches[done:]])
        finally:
            self._verdicts.save()

    def _is_unreadable(self, rows: np.ndarray) -> np.ndarray:
        """Which of these rows cannot be read, (N,) bool; new ones are named and counted."""
        unreadable: np.ndarray = self._verdicts.kinds(rows) == ImageKind.UNREADABLE
        if unreadable.any():
            root = self._manifest.root
            by_path = {f"{root}/{self._manifest.frame['file'].iat[row]}": row for row in rows[unreadable].tolist()}
            new = {path: self._verdicts.reasons[row] for path, row in by_path.items() if path not in self._unreadable}
            if new:
                self._unreadable.add(new)
            if self._verdicts.all_unreadable:
                raise BadInput(
                    f"at least one image in {root} must be readable, got none of {len(self._manifest)}; repair them"
                )
        return unreadable

    def _decode_until_refused(self, get_batch: Callable[[int], BatchSpec], count: int) -> Generator[Batch, None, int]:
        """Batches up to the first with an image that the decoder refuses, which is then known; how many they were."""
        done, known, device = 0, self._verdicts.revisions, self._decoder.device
        parts = HostParts(self._pool, self._sizes, None if self._kept is None or self._kept.full else self._keep)
        try:
            for views, rows in self._decoder.run(
                self._with_bytes(get_batch, count), count, self._local_batch_size, parts
            ):
                labels, indices = copy_all_to_device([self._labels[rows], rows], device)
                yield Batch(views, labels, indices)
                done += 1
        except RuntimeError as error:
            if is_out_of_memory(error):  # each image alone might fail for the same reason, and would count as bad
                raise
            again = self._with_bytes(lambda _: get_batch(done), 1)(0)
            rows = again.rows[again.missing]
            if not len(rows):  # the decoder was asked for none, so it is another's error, such as a transform's
                raise
            for row in rows[self._decoder.refused(again.inputs)].tolist():
                self._verdicts.revise(row)
            # Another pass over the same loader may have revised them since these batches were asked for; or a file was
            # replaced, and its window is one in an image of another size.
            before, self._sizes[rows] = self._sizes[rows], 0
            if self._verdicts.revisions == known:
                self._sizes[rows] = self._decoder.peek_sizes(again.inputs)
                if np.array_equal(before, self._sizes[rows]) or not before.any():
                    raise
        return done

    def _with_bytes(self, get_batch: Callable[[int], BatchSpec], count: int) -> Callable[[int], BatchSpec]:
        """The same batches, with the images that are kept and the paths or bytes of all others, Pillow's in place."""
        if self._archives is None or self._byte_ranges is None:
            return lambda batch: self._with_pillow_images(self._with_kept(get_batch(batch)))
        byte_ranges = self._byte_ranges
        prefetched = self._archives.prefetch(
            lambda batch: self._with_kept(get_batch(batch)), lambda batch: byte_ranges[batch.rows[batch.missing]], count
        )

        def read(number: int) -> BatchSpec:
            batch, encoded = prefetched(number)
            return self._with_pillow_images(batch._replace(encoded=encoded))

        return read

    def _with_kept(self, batch: BatchSpec) -> BatchSpec:
        """The batch with the images that are kept, and the paths of the others."""
        if self._kept is not None:
            kinds = self._verdicts.kinds(batch.rows).tolist()
            keys = [self._key(row, kind) for row, kind in zip(batch.rows.tolist(), kinds, strict=True)]
            found = self._kept.get(keys, self._pool)
            batch = batch._replace(kept={at: image for at, image in enumerate(found) if image is not None})
        root = self._manifest.root
        return batch._replace(paths=[f"{root}/{file}" for file in self._files[batch.rows[batch.missing]]])

    def _with_pillow_images(self, batch: BatchSpec) -> BatchSpec:
        """The batch with Pillow's picture in place of each image of which another decoder might make another."""
        rows = batch.rows[batch.missing]
        positions = np.flatnonzero(self._verdicts.kinds(rows) == ImageKind.PILLOW).tolist()
        if not positions:
            return batch
        paths, files = list(batch.paths), list[_MemoryFile]()
        encoded = None if batch.encoded is None else list(batch.encoded)
        mode = "RGB" if len(self._decoder.mean) == 3 else "L"
        contents = self._verdicts.decode_to_ppm(rows[positions].tolist(), mode)
        for position, content in zip(positions, contents, strict=True):
            if content is None:
                continue  # the decoder refuses it too, and then it is checked again
            if encoded is not None:
                encoded[position] = np.frombuffer(content, np.uint8)
            else:
                files.append(_MemoryFile(content))
                paths[position] = files[-1].path
        return batch._replace(paths=paths, encoded=encoded, kept_alive=tuple(files))

    def _training_spec(self, start: int, stop: int, batch: int) -> BatchSpec:
        step, local = start + batch, self._sampler.local_slice
        rows = self._sampler.indices(step)[local]
        if not self._verdicts.complete:
            for later in range(step, min(step + 1 + _BATCHES_JUDGED_AHEAD, stop)):
                self._verdicts.start(self._sampler.indices(later)[local])
        for position in np.flatnonzero(self._is_unreadable(rows)):
            rows[position] = self._sampler.replacement(step, local.start + int(position), self._verdicts)
        return self._batch_spec(rows, self._sampler.batch_size, local, step)

    def _pass_spec(self, batches: list[np.ndarray], batch: int) -> BatchSpec:
        rows = batches[batch]
        return self._batch_spec(rows, len(rows), slice(None), f"once {batch}")

    def _batch_spec(self, rows: np.ndarray, count: int, local: slice, step: int | str) -> BatchSpec:
        """The batch of these rows; random numbers are sampled for `count` images and sliced."""
        params = tuple(
            view.sample(count, self._seed, step, number).slice_batch(local)
            for number, view in enumerate(self._decoder.views)
        )
        return BatchSpec(rows, params)


class _MemoryFile:
    """A file in memory, which has a path as long as something holds this."""

    def __init__(self, content: bytes) -> None:
        if not hasattr(os, "memfd_create"):  # Linux has it alone
            number, self.path = tempfile.mkstemp(suffix=".ppm")
            weakref.finalize(self, os.unlink, self.path)
            os.close(number)
            Path(self.path).write_bytes(content)
            return
        number = os.memfd_create("image")
        weakref.finalize(self, os.close, number)
        with open(number, "wb", closefd=False) as file:
            file.write(content)
        self.path = f"/proc/self/fd/{number}"
