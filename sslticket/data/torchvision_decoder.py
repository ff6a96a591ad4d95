"""Image files decoded on the host by torchvision, for machines without DALI.

Windows, views and all that follows a decoder are those of DALI's path on a CPU, in the same code. JPEGs are decoded by
torchvision, and other files by Pillow, whose picture is what an image shows (`data/decode.py`). All three libraries
decode JPEGs by libjpeg-turbo. torchvision 0.29 says that a later version will decode no more: then Pillow does all.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import Tensor

from sslticket.data.decode import (
    IMAGE_FORMATS,
    MAX_FILE_BYTES,
    DecodeError,
    decode_whole,
    exif_orientation,
    open_regular_file,
    to_upright,
)
from sslticket.data.decoded_images import BatchSpec, DecodedBatch, FileDecoder, HostParts, cut_decoded
from sslticket.errors import is_out_of_memory

try:
    from torchvision.io import ImageReadMode, decode_jpeg
except ImportError:
    decode_jpeg = None

_JPEG = b"\xff\xd8\xff"


class TorchvisionDecoder(FileDecoder):
    """Image files become tensors through torchvision, on the host for any device."""

    def run(
        self, get_batch: Callable[[int], BatchSpec], count: int, largest: int, parts: HostParts
    ) -> Iterator[tuple[tuple[Tensor, ...], np.ndarray]]:
        """See `FileDecoder.run`."""
        return cut_decoded(_Decoding(self, parts), self, get_batch, count, parts)

    def refused(self, inputs: Sequence[np.ndarray]) -> list[int]:
        """See `FileDecoder.refused`."""
        found = []
        for position, given in enumerate(inputs):
            try:
                self.decode(given)
            except RuntimeError:
                found.append(position)
        return found

    def peek_sizes(self, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """See `FileDecoder.peek_sizes`."""
        return np.array([self._size(given) for given in inputs], np.int32).reshape(-1, 2)

    @property
    def rules(self) -> str:
        """See `FileDecoder.rules`."""
        return f"Pillow, and torchvision {torchvision.__version__}" if decode_jpeg else "Pillow"

    def decode(self, given: np.ndarray) -> Tensor:
        """Decode an image whole and upright, (H, W, C) uint8; it is one of the `inputs` of a batch spec.

        Raises:
            RuntimeError: If neither torchvision nor Pillow reads it.
        """
        content, gray = self._content(given), len(self.mean) == 1
        if decode_jpeg is not None and content[:3].tobytes() == _JPEG:
            try:
                mode = ImageReadMode.GRAY if gray else ImageReadMode.RGB
                pixels: Tensor = decode_jpeg(torch.from_numpy(content), mode, apply_exif_orientation=True)
                return pixels.permute(1, 2, 0).contiguous()
            except RuntimeError as error:  # what Pillow reads is an image all the same
                if is_out_of_memory(error):
                    raise
        try:
            whole = np.array(to_upright(decode_whole(content.tobytes())).convert("L" if gray else "RGB"))
        except DecodeError as error:
            raise RuntimeError(str(error)) from error
        return torch.from_numpy(whole.reshape(*whole.shape[:2], -1))

    def _content(self, given: np.ndarray) -> np.ndarray:
        """The bytes of a file; torch wants them in memory that could be written to."""
        if self.encoded:
            return np.require(given, requirements="W")
        try:
            with open_regular_file(Path(os.fsdecode(given.tobytes()))) as file:
                return np.frombuffer(bytearray(file.read(MAX_FILE_BYTES)), np.uint8)
        except OSError as error:
            raise RuntimeError(str(error)) from error

    def _size(self, given: np.ndarray) -> tuple[int, int]:
        try:
            image = Image.open(BytesIO(self._content(given).tobytes()), formats=IMAGE_FORMATS)
        except Exception as error:  # Pillow raises nearly anything at a damaged head
            raise RuntimeError(str(error)) from error
        width, height = image.size
        return (width, height) if exif_orientation(image) >= 5 else (height, width)


class _Decoding:
    """Decodes whole images in the threads that cut them; see `Decoding`."""

    def __init__(self, decoder: TorchvisionDecoder, parts: HostParts) -> None:
        self._decoder, self._pool, self._sizes = decoder, parts.pool, parts.sizes
        self._begun: list[Future[Tensor]] = []

    def start(self, batch: BatchSpec) -> DecodedBatch:
        """See `Decoding.start`."""
        self._begun = [self._pool.submit(self._decoder.decode, given) for given in batch.inputs]
        kept = {position: torch.from_numpy(pixels) for position, pixels in batch.kept.items()}
        return DecodedBatch(batch, kept, [], parts=False)

    def finish(self, decoded: DecodedBatch) -> DecodedBatch:
        """See `Decoding.finish`."""
        for position, image in zip(decoded.batch.missing.tolist(), self._begun, strict=True):
            decoded.images[position] = image.result()
        decoded.place(self._decoder.views, self._sizes)
        return decoded
