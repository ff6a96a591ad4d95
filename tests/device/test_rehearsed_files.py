"""Image files on the pretend accelerator: the host decodes and cuts, and the device gets bytes."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch

from sslticket.data.augment import Blur, Grayscale, View
from sslticket.data.loader import Loader, Sampler
from sslticket.data.source import make_loader, open_split
from tests.device import pretend

Device = Callable[[], AbstractContextManager[pretend.Pretend]]
VIEWS = (
    View(size=48, crop="resized", flip=True),
    View(size=32, crop="resized", flip=True, transforms=(Grayscale(probability=0.5), Blur(kernel=5))),
    View(size=40, resize=64),
)


def loader(root: Path, device: torch.device, last: bool) -> Loader:
    source = open_split("imagenet", "train", root)
    order = Sampler(len(source.manifest), 6, 2)
    return make_loader(
        source, VIEWS, order, augment_seed=3, device=device, threads=2, max_bad_images=0, channels_last=last
    )


@pytest.mark.data
@pytest.mark.parametrize("last", [False, True])
def test_views_on_a_device_are_those_of_a_cpu_to_the_bit(few_photographs: Path, device: Device, last: bool) -> None:
    expected = list(loader(few_photographs, torch.device("cpu"), last).train(0, 6))
    with device() as there:
        found = list(loader(few_photographs, torch.device(pretend.NAME), last).train(0, 6))  # kept images
        assert {view.device.type for batch in found for view in batch.views} == {pretend.NAME}
        # Pinned memory is taken on CUDA alone; there is nothing else to wait for.
        assert all(what.startswith("a copy from pageable memory") for what in there.tally.waits)
        for batch, other in zip(found, expected, strict=True):
            assert batch.indices.cpu().tolist() == other.indices.tolist()
            for one, same in zip(batch.views, other.views, strict=True):
                assert torch.equal(one.cpu(), same)
                assert one.cpu().stride() == same.stride()
