"""Batches of image files through NVIDIA DALI, on CPU or GPU; the only module that knows DALI.

The pipeline turns files into normalised crops; the loader decides which images, with which random numbers, and what happens to files that cannot be read.
"""

import os
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from sslticket.data.augment import CROP_ATTEMPTS, View, ViewParams
from sslticket.data.augment_apply import TransformAndNormalize, copy_all_to_device
from sslticket.data.decode import ImageKind
from sslticket.data.loader import Batch, Sampler
from sslticket.data.manifest import Manifest
from sslticket.data.tar import TarReader
from sslticket.data.unreadable import UnreadableImages, Verdicts
from sslticket.errors import BadInput, is_out_of_memory

try:
    from nvidia.dali import Pipeline, fn, types
    from nvidia.dali import math as dali_math
except ImportError as missing:
    raise BadInput(
        f"image files are read through NVIDIA DALI, which cannot be imported ({' '.join(str(missing).split())}); "
        "pip install nvidia-dali-cuda130"
    ) from missing

DataNode = Any  # DALI has no types

# The fields of `Draws` that a crop looks at.
_CROP_PARAMS = {"resized": ("area", "ratio", "place", "flip"), "pad": ("place", "flip"), "center": ("flip",)}


class BatchSpec(NamedTuple):
    """What one batch is made of."""

    paths: list[str]
    rows: np.ndarray  # (B,) int64, handed through
    params: tuple[ViewParams, ...]  # one per view
    encoded: list[np.ndarray] | None = None  # each file's bytes, uint8, where they are not to be read from `paths`
    kept_alive: tuple[object, ...] = ()  # what some of the paths lead to; held until the batch is there

    @property
    def inputs(self) -> list[np.ndarray]:
        """What the pipeline is given for each image: its bytes, or its path's."""
        return [encode_path(path) for path in self.paths] if self.encoded is None else self.encoded


@dataclass(frozen=True)
class DaliDecoder:
    """How image files become tensors.

    Attributes:
        views: what to cut from each image.
        mean, std: by channel, pixels from 0 to 1.
        device: where the tensors are wanted; on a CUDA device the JPEGs are decoded there too.
        threads: for reading and decoding.
        channels_last: memory format of the tensors.
        encoded: the feed holds the images' bytes; else they are read from its paths.
    """

    views: tuple[View, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    device: torch.device
    threads: int
    channels_last: bool = False
    encoded: bool = False

    def run(
        self, feed: Callable[[int], BatchSpec], count: int, largest: int
    ) -> Iterator[tuple[tuple[Tensor, ...], np.ndarray]]:
        """The views, (B, C, H, W) float32 each, and rows, (B,) int64, of `feed(0)` to `feed(count - 1)`.

        Args:
            feed: called ahead of time; each may be of another size.
            count: of batches.
            largest: images in the largest batch.

        Raises:
            RuntimeError: at the first batch that has an image which cannot be read.
        """
        pipe, supply = self._pipeline(largest, 2), _Source(self.views, feed, count)
        with pipe:
            given, row, *numbers = fn.external_source(
                source=supply,
                num_outputs=2 + sum(len(_CROP_PARAMS[view.crop]) for view in self.views),
                batch=True,
                batch_info=True,
            )
            pipe.set_outputs(row, *self._graph(self._bytes(given), iter(numbers)))
        finish, lent = TransformAndNormalize.from_mean_std(self.mean, self.std, self.device), _BorrowedBatches()
        for _ in range(count):
            # The host waits for DALI here, which is two batches ahead, and not for what torch has still to do.
            rows, *views = pipe.run()
            pixels = lent.copy_out([from_dlpack(batch.as_tensor()) for batch in views], self.device)
            if self.channels_last:
                pixels = [each.permute(0, 3, 1, 2) for each in pixels]
            yield (
                tuple(
                    finish(each, view, draws) if view.effects else each
                    for each, view, draws in zip(pixels, self.views, supply.requested.popleft().params, strict=True)
                ),
                np.array(rows.as_tensor()),
            )

    def refused(self, raw: Sequence[np.ndarray]) -> list[int]:
        """The places of those images that DALI does not decode, of what a feed's `raw` holds."""
        found, left = [], list(range(len(raw)))
        while left:
            pipe = self._pipeline(1, 1)
            with pipe:
                given = self._bytes(fn.external_source(source=[[raw[place]] for place in left], batch=True))
                # Like the real pipeline: a file whose size can be told may still be undecodable.
                pipe.set_outputs(fn.peek_image_shape(given), fn.decoders.image(given, device=self._decoding))
            while left:
                place = left.pop(0)
                try:
                    pipe.run()
                except RuntimeError:
                    found.append(place)
                    break
        return found

    def _bytes(self, given: DataNode) -> DataNode:
        return given if self.encoded else fn.io.file.read(given)

    @property
    def _decoding(self) -> str:
        return "mixed" if self.device.type == "cuda" else "cpu"

    def _pipeline(self, batch_size: int, queue: int) -> Pipeline:
        number = None
        if self.device.type == "cuda":
            number = torch.cuda.current_device() if self.device.index is None else self.device.index
        return Pipeline(batch_size, self.threads, number, prefetch_queue_depth=queue)

    def _graph(self, raw: DataNode, numbers: Iterator[DataNode]) -> Iterator[DataNode]:
        """One output per view; an image is decoded once, and only the part that is needed where there is one view."""
        shape = fn.peek_image_shape(raw)[0:2]
        kind = types.RGB if len(self.mean) == 3 else types.GRAY
        decode = {"device": self._decoding, "output_type": kind}
        part = len(self.views) == 1 and self.views[0].crop == "resized"
        whole = None if part else fn.decoders.image(raw, **decode)
        for view in self.views:
            drawn = {name: next(numbers) for name in _CROP_PARAMS[view.crop]}
            if view.crop == "resized":
                start, size = dali_resized_window(view, shape, drawn["area"], drawn["ratio"], drawn["place"])
                window = {"start": start, "shape": size, "axes": [0, 1]}
                image = fn.decoders.image_slice(raw, **decode, **window) if part else fn.slice(whole, **window)
                image = fn.resize(image, size=[view.size, view.size])
            else:
                image, resized = whole, shape
                if view.resize is not None:
                    resized = view.resize * shape // dali_math.min(shape[0], shape[1])
                    image = fn.resize(image, size=fn.cast(resized, dtype=types.FLOAT))
                image = fn.slice(
                    image,
                    start=dali_square_start(view, resized, drawn.get("place")),
                    shape=[view.size, view.size],
                    axes=[0, 1],
                    out_of_bounds_policy="pad",
                )
            # With effects to come, pixels stay as they are: normalising is the last thing that happens to them.
            mean, std = ([0.0], [1.0]) if view.effects else (_in_shades(self.mean), _in_shades(self.std))
            layout = "HWC" if self.channels_last else "CHW"
            yield fn.crop_mirror_normalize(image, mirror=drawn["flip"], mean=mean, std=std, output_layout=layout)


class _BorrowedBatches:
    """Batches in DALI's memory on CUDA, kept until torch has copied them.

    The exchange without a copy orders DALI's work before torch's, but nothing orders torch's before DALI's next: once
    Python forgets a batch, DALI's own stream may write the next one into its memory, while kernels that read it wait in
    torch's stream, since the host does not wait for them. `Tensor.record_stream` is no help: it does nothing for memory
    that is not torch's own allocator's. So torch copies a batch, which takes a thousandth of a training step, and the
    batch is forgotten after an event that follows the copy.
    """

    def __init__(self) -> None:
        self._kept: deque[tuple[torch.cuda.Event, list[Tensor]]] = deque()

    def copy_out(self, batch: list[Tensor], device: torch.device) -> list[Tensor]:
        """The tensors of one batch on the device, in torch's own memory there; on a CPU they stay where they are."""
        if device.type != "cuda":
            return [tensor.to(device) for tensor in batch]
        while self._kept and self._kept[0][0].query():  # type: ignore[no-untyped-call]
            self._kept.popleft()
        copies, copied = [tensor.clone() for tensor in batch], torch.cuda.Event()  # type: ignore[no-untyped-call]
        copied.record(torch.cuda.current_stream(device))
        self._kept.append((copied, batch))
        return copies


def dali_resized_window(
    view: View, shape: DataNode, area: DataNode, ratio: DataNode, place: DataNode
) -> tuple[DataNode, DataNode]:
    """`View.resized_crop` in DALI's arithmetic.

    Args:
        view: the view.
        shape: (2,) height and width of the image.
        area: (TRIES,) float32, as in `Draws`.
        ratio: (TRIES,) float32, as in `Draws`.
        place: (2,) float32, as in `Draws`.

    Returns:
        Top and left, height and width: (2,) int32 each.
    """
    sides = fn.cast(shape, dtype=types.FLOAT)
    height, width = sides[0], sides[1]
    pixels = area * (height * width)
    tall, wide = (dali_math.floor(dali_math.sqrt(side) + 0.5) for side in (pixels / ratio, pixels * ratio))
    fits = (tall >= 1.0) & (tall <= height) & (wide >= 1.0) & (wide <= width)
    turns = fits * types.Constant(np.arange(CROP_ATTEMPTS, 0, -1, dtype=np.int32))
    highest = fn.reductions.max(turns, axes=[0])
    first = fits & (turns == highest)
    any_fits = highest > 0
    none_fits = 1 - any_fits
    size = fn.stack(*(fn.reductions.sum(first * side, axes=[0]) for side in (tall, wide)))
    tallest, widest = (dali_math.floor(side + 0.5) for side in (width / view.ratio[0], height * view.ratio[1]))
    size += none_fits * fn.stack(dali_math.min(height, tallest), dali_math.min(width, widest))
    # In double precision, as numpy multiplies it: a place of nearly 1 must not be rounded up to the far end.
    exact = fn.cast(place, dtype=types.FLOAT64)
    start = dali_math.floor((exact * any_fits + 0.5 * none_fits) * (shape - size + 1))
    return fn.cast(start, dtype=types.INT32), fn.cast(size, dtype=types.INT32)


def dali_square_start(view: View, shape: DataNode, place: DataNode | None) -> DataNode:
    """Top and left of `View.square_crop` in DALI's arithmetic, (2,) int32, for an image of `shape` (2,) int64."""
    pad = view.pad if view.crop == "pad" else 0
    spare, missing = dali_math.max(shape + (2 * pad - view.size), 0), dali_math.max(view.size - 2 * pad - shape, 0)
    middle = spare // 2 + (spare - 4 * (spare // 4) == 3)
    first = middle if place is None else dali_math.floor(fn.cast(place, dtype=types.FLOAT64) * (spare + 1))
    return fn.cast(first - pad - missing // 2, dtype=types.INT32)


@dataclass(frozen=True)
class _Source:
    """The source of a pipeline: a batch's paths, rows and random numbers, by the pipeline's own count of batches.

    Attributes:
        requested: the batches that the pipeline has asked for and not yet delivered, oldest first.
    """

    views: tuple[View, ...]
    get_batch: Callable[[int], BatchSpec]
    count: int
    requested: deque[BatchSpec] = field(default_factory=deque)

    def __call__(self, info: DataNode) -> list[Any]:
        if info.iteration >= self.count:
            raise StopIteration
        feed = self.get_batch(info.iteration)
        self.requested.append(feed)
        arrays: list[Any] = [feed.inputs, feed.rows]
        for view, draws in zip(self.views, feed.params, strict=True):
            arrays += [_without_bools(getattr(draws, name)) for name in _CROP_PARAMS[view.crop]]
        return arrays


def _in_shades(values: tuple[float, ...]) -> list[float]:
    return [255 * value for value in values]


def _without_bools(numbers: np.ndarray) -> np.ndarray:
    return numbers.astype(np.int32) if numbers.dtype == bool else numbers


def encode_path(path: str) -> np.ndarray:
    """A path as DALI takes it, uint8."""
    return np.frombuffer(os.fsencode(path), np.uint8)


_BATCHES_JUDGED_AHEAD = 2  # batches whose images are judged, where they have no verdict yet, before they are asked for


class DaliLoader:
    """A `Loader` of image files.

    Before DALI is given an image, it has its verdict (`sslticket.data.unreadable`). In training, an unreadable image's
    place in the batch is taken by the next readable one in the shuffled stream. That rule depends on the images alone,
    so a restarted run, and any number of processes, see the same global batches. One pass over the set leaves it out.
    Where DALI might show another picture than Pillow, or refuses the file, it is given Pillow's.
    """

    def __init__(
        self, manifest: Manifest, decoder: DaliDecoder, order: Sampler, *, augment_seed: int, bad: UnreadableImages
    ) -> None:
        """See `opening.loader`."""
        assert order.num_images == len(manifest), "the order is of another set of images"
        self._manifest, self._decoder, self._sampler, self._seed = manifest, decoder, order, augment_seed
        self._labels = np.asarray(manifest.labels)
        self._local_batch_size = order.batch_size // order.world_size
        self._unreadable = bad
        self._archives = TarReader(manifest.archives) if manifest.archives else None
        self._byte_ranges = manifest.byte_ranges if manifest.archives else None
        self._verdicts = Verdicts(manifest, decoder.threads, self._archives)

    @property
    def unreadable(self) -> Mapping[str, str]:
        """Images that could not be read, by path, and why."""
        return self._unreadable

    def train(self, start: int, stop: int) -> Iterator[Batch]:
        """This process's share of the augmented global batches `start` to `stop - 1`."""
        try:
            self._report_known_unreadable(start)
            while start < stop:
                start += yield from self._decode_until_refused(partial(self._training_spec, start, stop), stop - start)
        finally:
            self._verdicts.save()

    def once(self) -> Iterator[Batch]:
        """This process's share of one pass over the readable images, in order; the last batch is short."""
        left = np.arange(self._sampler.rank, len(self._manifest), self._sampler.world_size)
        try:
            while len(left := left[~self._is_unreadable(left)]):
                batches = np.split(left, range(self._local_batch_size, len(left), self._local_batch_size))
                done = yield from self._decode_until_refused(partial(self._pass_spec, batches), len(batches))
                left = np.concatenate([left[:0], *batches[done:]])
        finally:
            self._verdicts.save()

    def _report_known_unreadable(self, start: int) -> None:
        """Name those bad images that a training which goes on here had met before, and told of in its rows."""
        if start and len(known := self._verdicts.known_unreadable):
            steps = range(min(start, -(-self._sampler.num_images // self._sampler.batch_size) + 1))
            self._is_unreadable(np.intersect1d(known, np.concatenate([self._sampler.indices(step) for step in steps])))

    def _is_unreadable(self, rows: np.ndarray) -> np.ndarray:
        """Which of these rows cannot be read, (N,) bool; new ones are named and counted."""
        bad: np.ndarray = self._verdicts.kinds(rows) == ImageKind.UNREADABLE
        if bad.any():
            root = self._manifest.root
            told = {f"{root}/{self._manifest.frame['file'].iat[row]}": row for row in rows[bad].tolist()}
            new = {path: self._verdicts.reason(row) for path, row in told.items() if path not in self._unreadable}
            if new:
                self._unreadable.add(new)
            if self._verdicts.all_unreadable:
                raise BadInput(f"none of the {len(self._manifest)} images in {root} can be read")
        return bad

    def _decode_until_refused(self, feed: Callable[[int], BatchSpec], batches: int) -> Generator[Batch, None, int]:
        """Batches up to the first that has an image which DALI refuses, which is then known; how many they were."""
        done, known, device = 0, self._verdicts.revisions, self._decoder.device
        try:
            for views, rows in self._decoder.run(self._with_bytes(feed, batches), batches, self._local_batch_size):
                label, row = copy_all_to_device([self._labels[rows], rows], device)
                yield Batch(views, label, row)
                done += 1
        except RuntimeError as error:
            if is_out_of_memory(error):  # each image alone might fail for the same reason, and would count as bad
                raise
            again = self._with_bytes(lambda _: feed(done), 1)(0)
            for row in again.rows[self._decoder.refused(again.inputs)].tolist():
                self._verdicts.revise(row)
            # Another pass over the same loader may have revised them since these batches were asked for.
            if self._verdicts.revisions == known:
                raise
        return done

    def _with_bytes(self, feed: Callable[[int], BatchSpec], batches: int) -> Callable[[int], BatchSpec]:
        """The same feed, with the bytes of images inside archives in it, and with those that Pillow decodes."""
        if self._archives is None or self._byte_ranges is None:
            return lambda batch: self._with_pillow_images(feed(batch))
        places = self._byte_ranges
        ahead = self._archives.prefetch(feed, lambda plain: places[plain.rows], batches)

        def read(batch: int) -> BatchSpec:
            plain, encoded = ahead(batch)
            return self._with_pillow_images(plain._replace(encoded=encoded))

        return read

    def _with_pillow_images(self, feed: BatchSpec) -> BatchSpec:
        """The feed with Pillow's picture in place of each image of which DALI might make another."""
        places = np.flatnonzero(self._verdicts.kinds(feed.rows) == ImageKind.PILLOW).tolist()
        if not places:
            return feed
        paths, lent = list(feed.paths), list[_MemoryFile]()
        encoded = None if feed.encoded is None else list(feed.encoded)
        mode = "RGB" if len(self._decoder.mean) == 3 else "L"
        for place, content in zip(places, self._verdicts.decode_to_ppm(feed.rows[places].tolist(), mode), strict=True):
            if content is None:
                continue  # DALI refuses it too, and then it is judged anew
            if encoded is not None:
                encoded[place] = np.frombuffer(content, np.uint8)
            else:
                lent.append(_MemoryFile(content))
                paths[place] = lent[-1].path
        return feed._replace(paths=paths, encoded=encoded, kept_alive=tuple(lent))

    def _training_spec(self, start: int, stop: int, batch: int) -> BatchSpec:
        step, share = start + batch, self._sampler.local_slice
        rows = self._sampler.indices(step)[share]
        if not self._verdicts.complete:
            for later in range(step, min(step + 1 + _BATCHES_JUDGED_AHEAD, stop)):
                self._verdicts.start(self._sampler.indices(later)[share])
        for place in np.flatnonzero(self._is_unreadable(rows)):
            rows[place] = self._sampler.replacement(step, share.start + int(place), self._verdicts)
        return self._batch_spec(rows, self._sampler.batch_size, share, step)

    def _pass_spec(self, batches: list[np.ndarray], batch: int) -> BatchSpec:
        rows = batches[batch]
        return self._batch_spec(rows, len(rows), slice(None), f"once {batch}")

    def _batch_spec(self, rows: np.ndarray, drawn: int, share: slice, step: int | str) -> BatchSpec:
        draws = tuple(
            view.sample(drawn, self._seed, step, number).slice_batch(share)
            for number, view in enumerate(self._decoder.views)
        )
        root = self._manifest.root
        return BatchSpec([f"{root}/{file}" for file in self._manifest.frame["file"].iloc[rows]], rows, draws)


class _MemoryFile:
    """A file in memory, which has a path as long as somebody holds this."""

    def __init__(self, content: bytes) -> None:
        number = os.memfd_create("image")
        weakref.finalize(self, os.close, number)
        with open(number, "wb", closefd=False) as file:
            file.write(content)
        self.path = f"/proc/self/fd/{number}"
