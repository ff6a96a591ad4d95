"""Batches of image files through NVIDIA DALI, on CPU or GPU; the only module that knows DALI.

On a GPU the pipeline turns files into normalised crops. On a CPU it decodes alone, no more than the views need, and
torch cuts and resizes the bytes, as it does those of images that were kept. The loader decides which images, with which
random numbers, and what happens to files that cannot be read.
"""

import os
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from sslticket.data.augment import CROP_ATTEMPTS, View
from sslticket.data.augment_ops import TransformAndNormalize, copy_all_to_device
from sslticket.data.decode import VERDICT_RULES, ImageKind
from sslticket.data.decoded_cache import DecodedCache, open_cache
from sslticket.data.decoded_images import BatchSpec, CutBatch, DecodedBatch, ViewCutter
from sslticket.data.loader import Batch, Sampler
from sslticket.data.manifest import Manifest
from sslticket.data.tar import TarReader
from sslticket.data.unreadable import UnreadableImages, Verdicts
from sslticket.errors import BadInput, is_out_of_memory, one_line

try:
    from nvidia.dali import Pipeline, __version__, fn, types
    from nvidia.dali import math as dali_math
except ImportError as missing:
    raise BadInput(
        f"NVIDIA DALI must be installed to read image files, and importing it failed ({one_line(missing)}); type: "
        "pip install nvidia-dali-cuda130"
    ) from missing

DataNode = Any  # DALI has no types

# The fields of `ViewParams` that a crop needs.
_CROP_PARAMS = {"resized": ("area", "ratio", "position", "flip"), "pad": ("position", "flip"), "center": ("flip",)}


@dataclass(frozen=True)
class DaliDecoder:
    """How image files become tensors.

    Attributes:
        views: What is cut from each image.
        mean: Mean by channel, pixels from 0 to 1.
        std: Standard deviation by channel, pixels from 0 to 1.
        device: Where the tensors are wanted; on a CUDA device the JPEGs are decoded there too.
        threads: Threads for reading and decoding.
        channels_last: Memory format of the tensors.
        encoded: Whether a batch spec holds the images' bytes; else they are read from its paths.
        on_host: Whether images for a CUDA device are decoded on the host all the same.
    """

    views: tuple[View, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    device: torch.device
    threads: int
    channels_last: bool = False
    encoded: bool = False
    on_host: bool = False

    def run(
        self,
        get_batch: Callable[[int], BatchSpec],
        count: int,
        largest: int,
        parts: "HostParts",
    ) -> Iterator[tuple[tuple[Tensor, ...], np.ndarray]]:
        """Yield the views, (B, C, H, W) float32 each, and rows, (B,) int64, of the batches 0 to `count - 1`.

        Args:
            get_batch: What a batch is made of; called ahead of time, and each may be of another size.
            count: Number of batches.
            largest: Images in the largest batch.
            parts: What decoding on the host needs.

        Raises:
            RuntimeError: At the first batch that has an image which cannot be read.
        """
        if self.decodes_on_gpu:
            yield from self._run_on_gpu(get_batch, count, largest)
            return
        decoding, cutting, failure = _HostDecoding(self, largest, parts), deque[CutBatch](), None
        cutter = ViewCutter(self.views, self.mean, self.std, self.device, parts.pool, channels_last=self.channels_last)
        started = decoding.start(get_batch(0)) if count else None
        for number in range(count + 1):
            # While the batch before is used, this one is cut and the next one is decoded.
            try:
                if started is not None:
                    decoded, started = decoding.finish(started), None
                    cutting.append(cutter.begin(decoded, parts.keep))
                    if number + 1 < count:
                        started = decoding.start(get_batch(number + 1))
            except RuntimeError as error:
                failure, started = error, None
            while cutting and (len(cutting) > 1 or started is None):
                yield cutter.finish(cutting.popleft())
            if failure is not None:
                raise failure

    def _run_on_gpu(
        self, get_batch: Callable[[int], BatchSpec], count: int, largest: int
    ) -> Iterator[tuple[tuple[Tensor, ...], np.ndarray]]:
        pipe, source = self.make_pipeline(largest, 2), _Source(self.views, get_batch, count)
        with pipe:
            given, row, *numbers = fn.external_source(
                source=source,
                num_outputs=2 + sum(len(_CROP_PARAMS[view.crop]) for view in self.views),
                batch=True,
                batch_info=True,
            )
            pipe.set_outputs(row, *self._graph(self.read_bytes(given), iter(numbers)))
        transform = TransformAndNormalize.from_mean_std(self.mean, self.std, self.device)
        borrowed = _BorrowedBatches()
        for _ in range(count):
            # The host waits for DALI here, which is two batches ahead, and not for what torch has still to do.
            rows, *views = pipe.run()
            crops = borrowed.copy_out([from_dlpack(batch.as_tensor()) for batch in views], self.device)
            if self.channels_last:
                crops = [crop.permute(0, 3, 1, 2) for crop in crops]
            sampled = zip(crops, self.views, source.requested.popleft().params, strict=True)
            yield (
                tuple(transform(crop, view, params) if view.transforms else crop for crop, view, params in sampled),
                np.array(rows.as_tensor()),
            )

    def refused(self, inputs: Sequence[np.ndarray]) -> list[int]:
        """Find the positions of those images that DALI does not decode, among the `inputs` of a batch spec."""
        found, left = [], list(range(len(inputs)))
        while left:
            pipe = self.make_pipeline(1, 1)
            with pipe:
                given = self.read_bytes(
                    fn.external_source(source=[[inputs[position]] for position in left], batch=True)
                )
                # Like the real pipeline: a file whose size can be read may still be undecodable.
                pipe.set_outputs(
                    fn.peek_image_shape(given), fn.decoders.image(given, device=self.decoder_settings["device"])
                )
            while left:
                position = left.pop(0)
                try:
                    pipe.run()
                except RuntimeError:
                    found.append(position)
                    break
        return found

    def peek_sizes(self, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """Return height and width of images, upright, (N, 2), which are among the `inputs` of a batch spec.

        Raises:
            RuntimeError: If one of them has none.
        """
        pipe = self.make_pipeline(len(inputs), 1)
        with pipe:
            pipe.set_outputs(
                fn.peek_image_shape(self.read_bytes(fn.external_source(source=[list(inputs)], batch=True)))
            )
        return np.array(pipe.run()[0].as_tensor())[:, :2]

    def read_bytes(self, given: DataNode) -> DataNode:
        """What the pipeline decodes, made of what it is given."""
        return given if self.encoded else fn.io.file.read(given)

    @property
    def decodes_on_gpu(self) -> bool:
        """Whether the pipeline decodes on a GPU, and then makes the views there."""
        return self.device.type == "cuda" and not self.on_host

    @property
    def decoder_settings(self) -> dict[str, Any]:
        """Where images are decoded, and to which channels."""
        kind = types.RGB if len(self.mean) == 3 else types.GRAY
        return {"device": "mixed" if self.decodes_on_gpu else "cpu", "output_type": kind}

    def make_pipeline(self, batch_size: int, queue: int) -> Pipeline:
        """Make an empty pipeline for batches of up to a size."""
        number = None
        if self.decodes_on_gpu:
            number = torch.cuda.current_device() if self.device.index is None else self.device.index
        return Pipeline(batch_size, self.threads, number, prefetch_queue_depth=queue)

    def _graph(self, encoded: DataNode, numbers: Iterator[DataNode]) -> Iterator[DataNode]:
        """One output per view; an image is decoded once, and where there is one view, only the window that it needs."""
        shape = fn.peek_image_shape(encoded)[0:2]
        decode = self.decoder_settings
        sliced = len(self.views) == 1 and self.views[0].crop == "resized"
        whole = None if sliced else fn.decoders.image(encoded, **decode)
        for view in self.views:
            params = {name: next(numbers) for name in _CROP_PARAMS[view.crop]}
            if view.crop == "resized":
                start, size = dali_resized_window(view, shape, params["area"], params["ratio"], params["position"])
                window = {"start": start, "shape": size, "axes": [0, 1]}
                image = fn.decoders.image_slice(encoded, **decode, **window) if sliced else fn.slice(whole, **window)
                image = fn.resize(image, size=[view.size, view.size])
            else:
                image, resized = whole, shape
                if view.resize is not None:
                    resized = view.resize * shape // dali_math.min(shape[0], shape[1])
                    image = fn.resize(image, size=fn.cast(resized, dtype=types.FLOAT))
                image = fn.slice(
                    image,
                    start=dali_square_start(view, resized, params.get("position")),
                    shape=[view.size, view.size],
                    axes=[0, 1],
                    out_of_bounds_policy="pad",
                )
            # With transforms to come, pixels stay as they are: normalising is the last thing that happens to them.
            mean, std = [0.0], [1.0]
            if not view.transforms:
                mean, std = ([255 * value for value in values] for values in (self.mean, self.std))
            layout = "HWC" if self.channels_last else "CHW"
            yield fn.crop_mirror_normalize(image, mirror=params["flip"], mean=mean, std=std, output_layout=layout)


class HostParts(NamedTuple):
    """What decoding on the host is given by its loader, which has it for as long as it lives.

    Attributes:
        pool: Threads that cut views out of images.
        sizes: Height and width of every image of the manifest, (N, 2) int32; 0 until they are known.
        keep: Takes the row of each image that was decoded, and the image whole; None where nothing is kept.
    """

    pool: ThreadPoolExecutor
    sizes: np.ndarray
    keep: Callable[[int, np.ndarray], None] | None = None


class _HostDecoding:
    """Decodes on the host, a batch ahead: whole images, or the part that all views of an image lie in.

    A part of an image is to the bit what would be cut from the whole image. Sizes are asked for once, and parts placed
    by numpy: in DALI's arithmetic, that would take a twelfth of the time of decoding, in every epoch.
    """

    def __init__(self, decoder: DaliDecoder, largest: int, parts: HostParts) -> None:
        """Make no pipeline yet: where all images are kept, none is needed."""
        self._decoder, self._largest, self._sizes = decoder, largest, parts.sizes
        self._sliced = parts.keep is None and all(view.crop == "resized" for view in decoder.views)

    @cached_property
    def _pipe(self) -> Pipeline:
        pipe = self._decoder.make_pipeline(self._largest, 1)
        with pipe:
            encoded, how = self._decoder.read_bytes(fn.external_source(name="files")), self._decoder.decoder_settings
            if self._sliced:
                start, shape = (fn.external_source(name=name) for name in ("start", "shape"))
                pipe.set_outputs(fn.decoders.image_slice(encoded, **how, start=start, shape=shape, axes=[0, 1]))
            else:
                pipe.set_outputs(fn.decoders.image(encoded, **how))
        return pipe

    def start(self, batch: BatchSpec) -> DecodedBatch:
        """Begin to decode what of a batch is not kept, one batch at a time.

        Raises:
            RuntimeError: If one of the images has no size.
        """
        kept = {position: torch.from_numpy(pixels) for position, pixels in batch.kept.items()}
        decoded = DecodedBatch(batch, kept, [], self._sliced)
        if not len(missing := batch.missing):
            return decoded
        inputs = batch.inputs
        if self._sliced:
            rows = batch.rows[missing]
            if len(unknown := np.flatnonzero(self._sizes[rows].min(axis=1) == 0)):
                self._sizes[rows[unknown]] = self._decoder.peek_sizes([inputs[number] for number in unknown])
            decoded.place(self._decoder.views, self._sizes)
            for name, values in zip(("start", "shape"), decoded.bounds(missing), strict=True):
                self._pipe.feed_input(name, values)
        self._pipe.feed_input("files", inputs)
        self._pipe.schedule_run()
        return decoded

    def finish(self, decoded: DecodedBatch) -> DecodedBatch:
        """Wait for what was begun last.

        Raises:
            RuntimeError: If one of the images cannot be read.
        """
        if len(missing := decoded.batch.missing):
            (images,) = self._pipe.outputs()
            for number, position in enumerate(missing.tolist()):
                decoded.images[position] = from_dlpack(images[number])
        if not decoded.cuts:
            decoded.place(self._decoder.views, self._sizes)
        return decoded


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
        """Return the tensors of one batch in torch's own memory on the device; on a CPU they stay where they are."""
        if device.type != "cuda":
            return [tensor.to(device) for tensor in batch]
        while self._kept and self._kept[0][0].query():  # type: ignore[no-untyped-call]
            self._kept.popleft()
        copies, copied = [tensor.clone() for tensor in batch], torch.cuda.Event()  # type: ignore[no-untyped-call]
        copied.record(torch.cuda.current_stream(device))
        self._kept.append((copied, batch))
        return copies


def dali_resized_window(
    view: View, shape: DataNode, area: DataNode, ratio: DataNode, position: DataNode
) -> tuple[DataNode, DataNode]:
    """Place the window of `View.resized_crop_windows` in DALI's arithmetic.

    Args:
        view: The view.
        shape: Height and width of the image, (2,).
        area: Proposed areas as in `ViewParams`, (CROP_ATTEMPTS,) float32.
        ratio: Proposed ratios as in `ViewParams`, (CROP_ATTEMPTS,) float32.
        position: Position of the window as in `ViewParams`, (2,) float32.

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
    # In double precision, as numpy multiplies it: a position of nearly 1 must not be rounded up to the far end.
    exact = fn.cast(position, dtype=types.FLOAT64)
    start = dali_math.floor((exact * any_fits + 0.5 * none_fits) * (shape - size + 1))
    return fn.cast(start, dtype=types.INT32), fn.cast(size, dtype=types.INT32)


def dali_square_start(view: View, shape: DataNode, position: DataNode | None) -> DataNode:
    """Place the window of `View.square_crop_windows` in DALI's arithmetic.

    Args:
        view: The view.
        shape: Height and width of the image, (2,) int64.
        position: Position of the window as in `ViewParams`, (2,) float32; None for a crop that samples none.

    Returns:
        Top and left, (2,) int32.
    """
    pad = view.pad if view.crop == "pad" else 0
    spare, missing = dali_math.max(shape + (2 * pad - view.size), 0), dali_math.max(view.size - 2 * pad - shape, 0)
    middle = spare // 2 + (spare - 4 * (spare // 4) == 3)
    first = middle if position is None else dali_math.floor(fn.cast(position, dtype=types.FLOAT64) * (spare + 1))
    return fn.cast(first - pad - missing // 2, dtype=types.INT32)


@dataclass(frozen=True)
class _Source:
    """The source of a pipeline: a batch's inputs, rows and random numbers, by the pipeline's own count of batches.

    Attributes:
        views: What is cut from each image.
        get_batch: What a batch is made of.
        count: Number of batches.
        requested: The batches that the pipeline has asked for and not yet delivered, oldest first.
    """

    views: tuple[View, ...]
    get_batch: Callable[[int], BatchSpec]
    count: int
    requested: deque[BatchSpec] = field(default_factory=deque)

    def __call__(self, info: DataNode) -> list[Any]:
        if info.iteration >= self.count:
            raise StopIteration
        batch = self.get_batch(info.iteration)
        self.requested.append(batch)
        arrays: list[Any] = [batch.inputs, batch.rows]
        for view, params in zip(self.views, batch.params, strict=True):
            for values in (getattr(params, name) for name in _CROP_PARAMS[view.crop]):
                arrays.append(values.astype(np.int32) if values.dtype == bool else values)  # DALI takes no bools
        return arrays


_BATCHES_JUDGED_AHEAD = 2  # whose images are checked, where they have no verdict yet, before they are asked for


class DaliLoader:
    """A `Loader` of image files.

    Before DALI is given an image, it has its verdict (`unreadable.Verdicts`). In training, an unreadable image's
    position in the batch is taken by the next readable one in the shuffled stream. That rule depends on the images
    alone, so a restarted run, and any number of processes, see the same global batches. One pass over the set leaves it
    out. Where DALI might show another picture than Pillow, or refuses the file, it is given Pillow's.
    """

    def __init__(
        self,
        manifest: Manifest,
        decoder: DaliDecoder,
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
        rules = f"{VERDICT_RULES} DALI {__version__}"
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
        """Batches up to the first that has an image which DALI refuses, which is then known; how many they were."""
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
            if not len(rows):  # DALI was asked for none, so it is another's error, such as a transform's
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
        """The batch with Pillow's picture in place of each image of which DALI might make another."""
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
                continue  # DALI refuses it too, and then it is checked again
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
        number = os.memfd_create("image")
        weakref.finalize(self, os.close, number)
        with open(number, "wb", closefd=False) as file:
            file.write(content)
        self.path = f"/proc/self/fd/{number}"
