"""What only a CUDA device can show. None of this has met one yet; without one it is skipped and says so."""

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState

from sslticket.config.recipe import Recipe
from sslticket.config.runtime import RuntimeConfig
from sslticket.data.loader import Loader, Sampler
from sslticket.data.source import make_loader, open_split
from sslticket.errors import is_out_of_memory
from sslticket.search.plan import plan_search
from sslticket.search.run_search import run_search
from sslticket.ticket import Ticket
from sslticket.training import numerics
from sslticket.training.loop import TrainingLoop
from tests.device import cases

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    # What CUDA's libraries warn of nobody has seen yet; pytest tells it at the end.
    pytest.mark.filterwarnings("default"),
]

LIGHTLY = {"simclr", "mocov2", "byol", "simsiam", "barlowtwins", "vicreg", "swav", "dino"}
EXACT = RuntimeConfig(exact=True)
PLAIN = RuntimeConfig(compile=False)
SILENT = ("supervised", "shuffled", "rotnet", "s4l-rotation")  # no wait in a step; the others have at most two


@pytest.fixture(autouse=True)
def anew() -> Iterator[None]:
    """Accelerate keeps the first device that it was given: a test on the CPU would else get the GPU, or the reverse."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def named(objective: str) -> str:
    """The objective, if the package that its heads come from is here; else the test is skipped and says which."""
    if objective in LIGHTLY and find_spec("lightly") is None:
        pytest.skip(f"{objective} needs lightly")
    return objective


def found(out: Path, recipe: Recipe, machine: RuntimeConfig = PLAIN) -> list[Ticket]:
    """The tickets of a whole search."""
    planned = plan_search(recipe, machine, out)
    run_search(planned, machine)
    return [Ticket.load(planned.run_dir.ticket_path(level)) for level in range(planned.levels + 1)]


def finite(tickets: list[Ticket]) -> bool:
    return all(bool(value.float().isfinite().all()) for ticket in tickets for value in ticket.weights.values())


def differing(ours: Ticket, theirs: Ticket) -> float:
    """The share of the kept weights that the other does not keep."""
    odd = sum(int((ours.mask[name] & ~theirs.mask[name]).sum()) for name in ours.mask)
    return odd / ours.mask.survivors


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("objective", cases.OBJECTIVES)
def test_every_objective_finds_tickets_in_half_precision(tmp_path: Path, objective: str, precision: str) -> None:
    tickets = found(tmp_path, cases.recipe(named(objective), precision=precision))  # type: ignore[arg-type]
    assert len(tickets) == 3
    assert tickets[2].mask.survivors == round(tickets[0].mask.total * 0.25)
    assert finite(tickets)


@pytest.mark.parametrize("search", cases.SEARCHES)
def test_every_search_finds_tickets(tmp_path: Path, search: str) -> None:
    tickets = found(tmp_path, cases.recipe(search=cases.SEARCHES[search], precision="bf16"))
    assert tickets[-1].mask.survivors > 0
    assert finite(tickets)


@pytest.mark.parametrize("optimizer", cases.OPTIMIZERS)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_another_memory_layout_finds_the_same_masks_but_for_rounding(
    tmp_path: Path, optimizer: str, precision: str
) -> None:
    which = cases.recipe(optimizer=optimizer, precision=precision)  # type: ignore[arg-type]
    rows, columns = (
        found(tmp_path / str(last), which, RuntimeConfig(exact=True, channels_last=last)) for last in (False, True)
    )
    assert differing(rows[0], columns[0]) == 0
    assert differing(rows[1], columns[1]) < (0.002 if precision == "fp32" else 0.02), "7.6% where momentum was moved"
    assert finite(columns)


@pytest.mark.parametrize("optimizer", cases.OPTIMIZERS)
def test_a_first_step_that_overflows_in_float16_is_skipped(
    tmp_path: Path, optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        torch.amp, "GradScaler", partial(torch.amp.GradScaler, init_scale=2.0**30, backoff_factor=2.0**-15)
    )
    assert finite(found(tmp_path, cases.recipe(optimizer=optimizer, precision="fp16")))


def test_exact_is_what_the_cpu_finds_but_for_rounding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = found(tmp_path / "gpu", cases.recipe(precision="fp32"), EXACT)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "1")
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    AcceleratorState._reset_state(reset_partial_state=True)
    planned = plan_search(cases.recipe(precision="fp32"), EXACT, tmp_path / "cpu")
    run_search(planned, EXACT)
    assert json.loads(planned.run_dir.row_path(1).read_text())["device"].startswith("cpu")
    theirs = [Ticket.load(planned.run_dir.ticket_path(level)) for level in range(planned.levels + 1)]
    assert differing(ours[0], theirs[0]) == 0
    assert differing(ours[1], theirs[1]) < 0.005


def test_rows_say_how_fast_numbers_were_computed(tmp_path: Path) -> None:
    planned = plan_search(cases.recipe(precision="bf16"), PLAIN, tmp_path)
    run_search(planned, PLAIN)
    assert json.loads(planned.run_dir.row_path(1).read_text())["numerics"] == "bf16 tf32 channels-last"


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["rotnet", "byol"])
def test_compiled_parts_find_tickets_and_count_their_passes(tmp_path: Path, objective: str) -> None:
    machine = RuntimeConfig(compile=True)
    planned = plan_search(cases.recipe(named(objective), precision="bf16"), machine, tmp_path)
    run_search(planned, machine)
    row = json.loads(planned.run_dir.row_path(1).read_text())
    assert row["search_forward_images"] == 4 * cases.BATCH * cases.STEPS
    assert row["numerics"] == "bf16 tf32 channels-last compiled"


def test_a_step_that_is_launched_as_a_graph_is_the_step_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    which = cases.recipe(precision="fp32", steps=12)
    machine = RuntimeConfig(channels_last=False, compile=False)
    ours = found(tmp_path / "graph", which, machine)
    monkeypatch.setattr(numerics, "GRAPH_CLASSES", {})
    theirs = found(tmp_path / "kernels", which, machine)
    assert differing(ours[1], theirs[1]) < 0.002


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch, mode: str) -> Iterator[None]:
    """Torch complains of waits in the block, as `mode` says, but not where losses are looked at."""
    look = TrainingLoop._check_losses

    def quiet(self: TrainingLoop, losses: list[torch.Tensor], last: int) -> None:
        torch.cuda.set_sync_debug_mode("default")
        look(self, losses, last)
        torch.cuda.set_sync_debug_mode(mode)

    monkeypatch.setattr(TrainingLoop, "_check_losses", quiet)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it says once that it does not see everything
            torch.cuda.set_sync_debug_mode(mode)
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")
        monkeypatch.setattr(TrainingLoop, "_check_losses", look)


@pytest.mark.parametrize("objective", cases.OBJECTIVES)
def test_the_host_hardly_waits_in_a_step(tmp_path: Path, objective: str, monkeypatch: pytest.MonkeyPatch) -> None:
    steps, taken, silent = 8, TrainingLoop.run, named(objective) in SILENT

    def counted(self: TrainingLoop, start: int, stop: int) -> None:
        taken(self, start, start + steps)  # the optimiser makes its state, and libraries choose their algorithms
        with warnings.catch_warnings(record=True) as said, watched(monkeypatch, "error" if silent else "warn"):
            warnings.simplefilter("always")
            taken(self, start + steps, start + 2 * steps)
        waits = [str(each.message) for each in said if "synchroniz" in str(each.message)]
        assert len(waits) <= 2 * steps, waits[:3]
        raise KeyboardInterrupt  # enough of this search

    monkeypatch.setattr(TrainingLoop, "run", counted)
    planned = plan_search(cases.recipe(objective, precision="bf16", steps=3 * steps), PLAIN, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run_search(planned, PLAIN)


@pytest.mark.parametrize("objective", ["supervised", "rotnet", "mocov2"])
def test_what_is_told_of_memory_is_enough_and_not_far_from_what_is_taken(tmp_path: Path, objective: str) -> None:
    which = cases.recipe(named(objective), model="resnet18_cifar", batch_size=512, precision="fp32")
    planned = plan_search(which, PLAIN, tmp_path)
    assert planned.memory_model is not None
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run_search(planned, PLAIN)
    taken, told = torch.cuda.max_memory_allocated() - before, planned.memory_model.estimate(planned.micro_batch)
    assert taken < told.total
    assert told.total - told.workspace < 1.3 * taken


def test_too_large_a_tensor_is_known_as_too_little_memory() -> None:
    with pytest.raises(torch.OutOfMemoryError) as refused:
        torch.empty(2**50, device="cuda")
    assert is_out_of_memory(refused.value)


def batches(name: str, root: Path | None, device: str, kind: str) -> Loader:
    source = open_split(name, "train", root)
    view = source.dataset.train_view if kind == "train" else source.dataset.eval_view
    return make_loader(
        source,
        (view,),
        Sampler(len(source.manifest), 32, seed=1),
        augment_seed=2,
        device=torch.device(device),
        threads=2,
        max_bad_images=0,
    )


def test_arrays_give_the_same_batches_as_on_the_cpu() -> None:
    for kind in ("train", "eval"):
        pairs = zip(*(batches("digits", None, device, kind).train(3, 6) for device in ("cpu", "cuda")), strict=True)
        for ours, theirs in pairs:
            assert theirs.views[0].is_cuda
            torch.testing.assert_close(theirs.views[0].cpu(), ours.views[0], rtol=1e-6, atol=1e-6)
            assert torch.equal(theirs.indices.cpu(), ours.indices)


@pytest.mark.data
def test_photographs_decoded_on_the_gpu_look_as_on_the_cpu(photographs: Path) -> None:
    pytest.importorskip("nvidia.dali", reason="photographs need nvidia-dali")
    for kind in ("train", "eval"):
        pairs = zip(
            *(batches("imagenet", photographs, device, kind).train(0, 2) for device in ("cpu", "cuda")), strict=True
        )
        for ours, theirs in pairs:
            assert theirs.views[0].is_cuda
            assert torch.equal(theirs.indices.cpu(), ours.indices)
            # Two JPEG decoders and two resizers: a mean difference of one shade of 255, at a deviation of 0.23.
            assert (theirs.views[0].cpu() - ours.views[0]).abs().mean() < 1 / 255 / 0.22
