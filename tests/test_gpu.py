"""What only a CUDA device can show. None of this has met one yet; without one it is skipped and says so."""

from pathlib import Path

import pytest
import torch

from sslticket.data.loader import Loader
from sslticket.data.opening import loader, open_split
from sslticket.data.order import Order
from sslticket.objectives.rotnet import RotNet
from tests.runs import recipe, search, tickets

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def batches(name: str, root: Path | None, device: str, kind: str) -> Loader:
    source = open_split(name, "train", root)
    view = source.dataset.train if kind == "train" else source.dataset.eval
    return loader(
        source,
        (view,),
        Order(len(source.manifest), 32, seed=1),
        augment_seed=2,
        device=torch.device(device),
        threads=2,
        max_bad_images=0,
    )


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_search_runs_at_every_precision(tmp_path: Path, precision: str) -> None:
    found = tickets(search(tmp_path, recipe(RotNet(), precision=precision)))
    assert [ticket.mask.survivors for ticket in found] == [round(13_968 * 0.5**level) for level in range(4)]
    assert all(torch.isfinite(value.float()).all() for value in found[3].weights.values())


def test_arrays_give_the_same_batches_as_on_the_cpu() -> None:
    for kind in ("train", "eval"):
        pairs = zip(*(batches("digits", None, device, kind).train(3, 6) for device in ("cpu", "cuda")), strict=True)
        for ours, theirs in pairs:
            assert theirs.views[0].is_cuda
            torch.testing.assert_close(theirs.views[0].cpu(), ours.views[0], rtol=1e-6, atol=1e-6)
            assert torch.equal(theirs.row.cpu(), ours.row)


@pytest.mark.data
def test_photographs_decoded_on_the_gpu_look_as_on_the_cpu(photographs: Path) -> None:
    for kind in ("train", "eval"):
        pairs = zip(
            *(batches("imagenet", photographs, device, kind).train(0, 2) for device in ("cpu", "cuda")), strict=True
        )
        for ours, theirs in pairs:
            assert theirs.views[0].is_cuda
            assert torch.equal(theirs.row.cpu(), ours.row)
            # Two JPEG decoders and two resizers: a mean difference of one shade of 255, at a deviation of 0.23.
            assert (theirs.views[0].cpu() - ours.views[0]).abs().mean() < 1 / 255 / 0.22
