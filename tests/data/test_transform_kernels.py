"""The compiled transforms of large images: what they are beside torch's operations, which have tests of their own."""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as theirs

from sslticket.data import augment_ops
from sslticket.data.augment import Blur, Grayscale, HSVNoise, Jitter, Rotate, Solarize, Transform, View
from sslticket.data.augment_ops import TransformAndNormalize, apply_transforms
from sslticket.data.transform_kernels import KERNELS

pytestmark = pytest.mark.data

STRONG = Jitter(brightness=0.8, contrast=0.8, saturation=0.8, hue=0.5)
ALL = (Rotate(degrees=20), STRONG, HSVNoise(), Grayscale(), Blur(sigma=(0.5, 2.0), kernel=7), Solarize())
NORMALIZE = TransformAndNormalize.from_mean_std((0.4, 0.5, 0.6), (0.1, 0.2, 0.3), torch.device("cpu"))


@dataclass(frozen=True, kw_only=True)
class Negative(Transform):
    """A transform of one's own, for which there is no kernel."""

    def apply(self, pixels: Tensor) -> Tensor:
        return 255 - pixels


@pytest.fixture(scope="module")
def photographs(few_photographs: Path) -> Tensor:
    """Six photographs as torch resizes them: bytes, (6, 3, 120, 120), a pixel's channels side by side."""
    images = [Image.open(file).convert("RGB") for file in sorted(few_photographs.glob("train/*/*.JPEG"))[:6]]
    pixels = torch.stack([torch.from_numpy(np.array(image.resize((120, 120)))) for image in images])
    assert len(pixels) == 6
    return pixels.permute(0, 3, 1, 2)


@pytest.fixture
def without_numba(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As on a machine where numba cannot be imported."""
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.delitem(sys.modules, "sslticket.data.transform_kernels")
    augment_ops._kernels.cache_clear()
    yield
    augment_ops._kernels.cache_clear()


def test_every_transform_that_comes_with_the_package_has_a_kernel() -> None:
    assert set(KERNELS) == {Rotate, Jitter, HSVNoise, Grayscale, Blur, Solarize}
    assert {kind for kind in Transform.__subclasses__() if kind.__module__.startswith("sslticket.")} == set(KERNELS)


@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize("transform", ALL, ids=lambda transform: type(transform).__name__)
def test_a_kernel_computes_what_torchs_operations_compute(
    photographs: Tensor, transform: Transform, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = photographs[:, :channels].float()
    view = View(size=120, transforms=(replace(transform, probability=0.7),))
    draws = view.sample(6, 2)
    assert 0 < draws.transforms[0]["on"].sum() < 6
    ours = apply_transforms(images.clone(), view, draws)
    monkeypatch.setattr(augment_ops, "_kernels_for", lambda values: None)
    torchs = apply_transforms(images.clone(), view, draws)
    assert not torch.equal(torchs, ours) or isinstance(transform, Solarize | Grayscale)
    # In shades of 255, by rounding: 0.0003 in most, and 0.002 where a rotation finds its places.
    assert (torchs - ours).abs().max() < 0.005
    if channels == 3:
        assert (torchs - images).abs().mean() > 1


def test_powers_are_those_of_double_precision() -> None:
    """The kernel has a logarithm and an exponential function of its own."""
    gray = torch.linspace(0, 255, 120 * 120).view(1, 1, 120, 120)
    view = View(size=120, transforms=(HSVNoise(power=3.0, factor=1.0, shift=0.3),))
    for seed in range(20):
        draws = view.sample(1, seed)
        power, factor, shift = (float(draws.transforms[0][name][0, 1]) for name in ("power", "factor", "shift"))
        expected = 255 * ((gray.double() / 255) ** power * factor + shift).clamp(0, 1)
        assert (apply_transforms(gray.clone(), view, draws) - expected).abs().max() < 2e-4


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_threads_write_bytes_into_their_part_of_a_batch(photographs: Tensor, layout: torch.memory_format) -> None:
    view = View(size=120, transforms=tuple(replace(transform, probability=0.7) for transform in ALL))
    draws = view.sample(6, 3)
    expected = NORMALIZE(photographs.float().contiguous(), view, draws)
    plain = NORMALIZE(apply_transforms(photographs.float(), view, draws), replace(view, transforms=()), draws)
    assert torch.equal(expected, plain)
    batch = torch.full((8, 3, 120, 120), torch.nan).to(memory_format=layout)
    assert NORMALIZE.runs_in_threads(view)

    def write(place: int) -> None:
        part = slice(place, place + 1)
        NORMALIZE.write(photographs[part], batch[1 + place : 2 + place], view, draws.slice_batch(part))

    with ThreadPoolExecutor(3) as threads:
        list(threads.map(write, range(6)))
    assert torch.equal(batch[1:7], expected)
    assert batch[[0, 7]].isnan().all()


def test_a_transform_of_ones_own_comes_between_the_kernels(photographs: Tensor) -> None:
    images = photographs.float().contiguous()
    view = View(size=120, transforms=(Solarize(), Negative(), Grayscale()))
    assert not NORMALIZE.runs_in_threads(view)
    expected = theirs.rgb_to_grayscale(255 - torch.where(images >= 128, 255 - images, images), 3)
    torch.testing.assert_close(apply_transforms(images.clone(), view, view.sample(6, 3)), expected, rtol=0, atol=0.05)


def test_without_numba_torch_transforms_the_images_and_a_line_says_so(
    photographs: Tensor, without_numba: None, capsys: pytest.CaptureFixture[str]
) -> None:
    view = View(size=120, transforms=(Solarize(),))
    for _ in range(2):
        found = apply_transforms(photographs.float(), view, view.sample(6, 3))
        assert torch.equal(found, torch.where(photographs >= 128, 255 - photographs, photographs).float())
    assert not NORMALIZE.runs_in_threads(view)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("note: images are transformed by torch")
    assert "numba" in line


def test_kernels_that_cannot_be_kept_on_a_full_disk_compute_all_the_same(tmp_path: Path) -> None:
    script = """
import resource, sys
import numpy as np
from sslticket.data.transform_kernels import normalize
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), -1))
pixels = np.ones((1, 1, 2, 2), np.float32)
normalize(pixels, np.zeros(1, np.float32), np.full(1, 3, np.float32))
print(pixels.sum(), len(normalize.stats.cache_hits))
"""
    for most, known in (("100", 0), ("-1", 0), ("-1", 1)):
        done = subprocess.run(
            [sys.executable, "-c", script, most],
            env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.stdout.strip(), done.stderr) == (f"12.0 {known}", "")


def test_small_images_need_no_numba(
    photographs: Tensor, without_numba: None, capsys: pytest.CaptureFixture[str]
) -> None:
    view = View(size=32, transforms=ALL)
    apply_transforms(photographs[:, :, :32, :32].float(), view, view.sample(6, 3))
    assert capsys.readouterr().err == ""
