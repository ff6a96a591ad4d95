"""Memory that is not enough, wherever a command meets its end: one line with the fix, and exit code 2."""

from pathlib import Path

import pytest
import torch

from sslticket.cli import recipe_commands as command
from sslticket.cli.exit_status import run_and_exit
from sslticket.data.dali_decoder import DaliDecoder
from sslticket.data.file_loader import FileLoader
from sslticket.data.loader import Sampler
from sslticket.data.source import make_loader, open_split
from sslticket.errors import is_out_of_memory, out_of_memory_message
from sslticket.objectives.supervised import Supervised
from tests.digits import write_digits
from tests.recipes import load

# As torch 2.11 says them, shortened where the rest is about fragmentation.
GPU = (
    "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79.11 GiB of which 5.32 GiB is "
    "free. Including non-PyTorch memory, this process has 73.78 GiB memory in use."
)
HOST = (
    "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
    "4000000000000 bytes. Error code 12 (Cannot allocate memory)"
)
CUBLAS = "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"
CUDNN = "FIND was unable to find an engine to execute this computation"
DALI = (
    "Critical error in pipeline:\nError in MIXED operator `nvidia.dali.fn.decoders.image`:\n"
    "CUDA runtime API error cudaErrorMemoryAllocation (2):\nout of memory"
)
FIX = "; give more processes, --precision bf16, --accumulate or --ghost-batch for smaller parts of a batch"


@pytest.mark.parametrize(
    ("error", "start"),
    [
        (
            torch.OutOfMemoryError(GPU),
            "the memory of GPU 0 is not enough (20.00 GiB more were asked for; it has 79.11 GiB, of which 5.32 GiB "
            "are free)",
        ),
        (RuntimeError(HOST), "the memory of this machine is not enough (4000000000000 bytes more were asked for)"),
        (RuntimeError(CUBLAS), f"the memory of a GPU is not enough ({CUBLAS})"),
        (RuntimeError(CUDNN), f"the memory of a GPU is not enough ({CUDNN})"),
        (RuntimeError(DALI), f"the memory of a GPU is not enough ({' '.join(DALI.split())})"),
        (MemoryError(), "the memory of this machine is not enough"),
    ],
    ids=["GPU", "host", "cuBLAS", "cuDNN", "DALI", "Python"],
)
def test_every_library_s_words_for_it_become_one_line(error: Exception, start: str) -> None:
    told = out_of_memory_message(error)
    assert told is not None
    assert told.startswith(start + FIX)
    assert "\n" not in told


def test_a_real_allocation_that_fails_is_known() -> None:
    with pytest.raises(RuntimeError) as refused:
        torch.empty(2**58, dtype=torch.uint8)
    assert is_out_of_memory(refused.value)


@pytest.mark.parametrize("error", [RuntimeError("expected 3 channels"), ValueError("out of memory"), KeyError("x")])
def test_other_errors_stay_what_they_are(error: Exception) -> None:
    assert out_of_memory_message(error) is None
    with pytest.raises(type(error)):
        run_and_exit(lambda: (_ for _ in ()).throw(error))


@pytest.mark.parametrize("error", [torch.OutOfMemoryError(GPU), RuntimeError(HOST)], ids=["GPU", "host"])
def test_a_search_that_runs_out_ends_with_one_line_and_code_2(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loss, calls = Supervised.loss, 0

    def third_fails(self: Supervised, net, batch, progress):
        nonlocal calls
        calls += 1
        if calls == 6:  # three are what the plan looks at
            raise error
        return loss(self, net, batch, progress)

    monkeypatch.setattr(Supervised, "loss", third_fails)
    words = ["--length", "6it", "--rewind", "2it", "--levels", "1", "--batch-size", "16", "--out", str(tmp_path)]
    with pytest.raises(SystemExit) as ended:
        run_and_exit(lambda: command.run_with_flags(load("supervised_digits"), words))
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert said.splitlines()[-1] == f"error: {out_of_memory_message(error)}"
    assert not list(tmp_path.rglob("level-01.safetensors"))


def test_a_decoder_without_memory_makes_no_image_a_bad_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_split("folder", "train", write_digits(tmp_path, train=2))
    view = source.dataset.train_view.at_size(8)
    order = Sampler(len(source.manifest), 4, seed=0)
    batches = make_loader(
        source, (view,), order, augment_seed=0, device=torch.device("cpu"), threads=1, max_bad_images=9
    )
    assert isinstance(batches, FileLoader)

    def fails(*given: object) -> None:
        raise RuntimeError(DALI)

    monkeypatch.setattr(DaliDecoder, "run", fails)
    monkeypatch.setattr(
        "sslticket.data.file_loader.Verdicts.revise", lambda *given: pytest.fail("it looked for bad images")
    )
    with pytest.raises(RuntimeError, match="cudaErrorMemoryAllocation"):
        next(batches.train(0, 1))
    assert batches.unreadable == {}
