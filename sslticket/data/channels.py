"""Grey images for networks that take colour ones, and the reverse."""

from dataclasses import replace

import numpy as np

from sslticket.data.opening import Source
from sslticket.errors import BadInput

# Shares of red, green and blue in luma, ITU-R BT.601, as JPEG and every image library have it; in 16-bit fixed point.
_LUMA = np.array([19595, 38470, 7471], np.uint32)
_AT_ONCE = 4096  # images, as the whole set in 32 bits might not fit


def in_channels(source: Source, channels: int) -> Source:
    """The same images with another number of channels: grey ones are repeated, of colour ones the luma is taken.

    They are normalised as their own set is: a grey set's mean and deviation go to each channel; of a colour set's, the
    mean of the luma follows exactly and its deviation as if the channels rose and fell together, as in photographs they
    nearly do (of CIFAR-10, 0.247 where 0.239 is measured).

    Args:
        source: of 1 or 3 channels.
        channels: 1 or 3.

    Raises:
        BadInput: for another number of channels.
    """
    entry = source.dataset
    if entry.channels == channels:
        return source
    if {entry.channels, channels} != {1, 3}:
        raise BadInput(
            f"images of {entry.name} have {entry.channels} channels and the network takes {channels}; "
            "only grey images (1) and colour images (3) can be turned into each other"
        )
    if channels == 3:
        changed = replace(entry, channels=3, mean=entry.mean * 3, std=entry.std * 3)
        # Repeated in the loader's copy on the device only; here the three channels are one.
        images = None if source.images is None else np.broadcast_to(source.images, (*source.images.shape[:3], 3))
        return replace(source, dataset=changed, images=images)
    shares = _LUMA / _LUMA.sum()
    mean, std = (float(np.dot(shares, values)) for values in (entry.mean, entry.std))
    changed = replace(entry, channels=1, mean=(mean,), std=(std,))
    return replace(source, dataset=changed, images=None if source.images is None else _luma(source.images))


def _luma(images: np.ndarray) -> np.ndarray:
    """(N, H, W, 3) bytes -> (N, H, W, 1) bytes, rounded half up."""
    grey = np.empty((*images.shape[:3], 1), np.uint8)
    for start in range(0, len(images), _AT_ONCE):
        part = images[start : start + _AT_ONCE].astype(np.uint32) @ _LUMA
        grey[start : start + _AT_ONCE, ..., 0] = (part + 0x8000) >> 16
    return grey
