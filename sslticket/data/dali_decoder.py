"""Image files decoded by NVIDIA DALI, on CPU or GPU; the only module that knows DALI.

On a GPU the pipeline turns files into normalised crops. On a CPU it decodes alone, no more than the views need, and
torch cuts and resizes the bytes, as it does those of images that were kept. The loader (`data/file_loader.py`) decides
which images, with which random numbers, and what happens to files that cannot be read.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from sslticket.data.augment import CROP_ATTEMPTS, View
from sslticket.data.augment_ops import TransformAndNormalize
from sslticket.data.decoded_images import BatchSpec, DecodedBatch, FileDecoder, HostParts, cut_decoded
from sslticket.errors import BadInput, one_line

try:
    from nvidia.dali import Pipeline, __version__, fn, types
    from nvidia.dali import math as dali_math
except ImportError as missing:
    raise BadInput(
        f"NVIDIA DALI must be installed to decode images with it, and importing it failed ({one_line(missing)}); type: "
        "pip install 'sslticket[cuda13]', or give --decoder torchvision"
    ) from missing

DataNode = Any  # DALI has no types

# The fields of `ViewParams` that a crop needs.
_CROP_PARAMS = {"resized": ("area", "ratio", "position", "flip"), "pad": ("position", "flip"), "center": ("flip",)}


@dataclass(frozen=True)
class DaliDecoder(FileDecoder):
    """Image files become tensors through DALI; for a CUDA device the JPEGs are decoded there too.

    Attributes:
        on_host: Whether images for a CUDA device are decoded on the host all the same.
    """

    on_host: bool = False

    def run(
        self, get_batch: Callable[[int], BatchSpec], count: int, largest: int, parts: HostParts
    ) -> Iterator[tuple[tuple[Tensor, ...], np.ndarray]]:
        """See `FileDecoder.run`."""
        if self.decodes_on_gpu:
            return self._run_on_gpu(get_batch, count, largest)
        return cut_decoded(_HostDecoding(self, largest, parts), self, get_batch, count, parts)

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
        """See `FileDecoder.refused`."""
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
        """See `FileDecoder.peek_sizes`."""
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
    def rules(self) -> str:
        """See `FileDecoder.rules`."""
        return f"DALI {__version__}"

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
