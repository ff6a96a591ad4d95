"""Fast by default on CUDA and exact on request; what decides the rounding is told by rows, tickets and dry runs."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sslticket.analysis.trained_weights import Magnitudes
from sslticket.cli import recipe_commands as command
from sslticket.config import flags
from sslticket.config.recipe import Precision
from sslticket.config.runtime import RuntimeConfig
from sslticket.config.training import SGD, TrainConfig
from sslticket.evaluation import tasks
from sslticket.evaluation.jobs import EvaluationPlan, TrainingJob, evaluate_tasks
from sslticket.evaluation.protocols import Protocol
from sslticket.objectives.base import Objective
from sslticket.objectives.byol import BYOL
from sslticket.objectives.dino import DINO
from sslticket.objectives.mocov2 import MoCoV2
from sslticket.objectives.rotnet import RotNet
from sslticket.objectives.simclr import SimCLR
from sslticket.objectives.supervised import Supervised
from sslticket.results.throughput import Throughput, Workload
from sslticket.search.imp import IMP
from sslticket.search.plan import plan_search
from sslticket.search.run_search import run_search
from sslticket.ticket import Ticket
from sslticket.training import numerics
from sslticket.training.engine import Engine
from sslticket.training.network import MaskedNetwork
from sslticket.training.numerics import COMPILE_FROM_STEPS, MAX_GRAPH_STATE, Numerics
from tests.runs import recipe, search, tickets

SHORT = Protocol(
    name="short", dataset="digits", training=TrainConfig(length="8it", batch_size=128, optimizer=SGD(lr=0.1))
)
ONE = IMP(levels=1, rate=0.5, rewind="2it")
LAST = RuntimeConfig(channels_last=True)
LARGE: dict[str, Any] = {"size": MAX_GRAPH_STATE + 1, "steady": True, "ghost_batch": None}


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decisions as on a CUDA device that knows bfloat16."""
    monkeypatch.setattr(numerics, "_device_type", lambda: "cuda")
    monkeypatch.setattr(numerics, "_supports_bfloat16", lambda: True)


@pytest.fixture
def settings_kept() -> Iterator[None]:
    """What torch keeps for the process is put back."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark
    yield
    torch.set_float32_matmul_precision(before[0])
    _, torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = before


@pytest.mark.parametrize(
    ("machine", "precision", "steps", "told"),
    [  # of a large network
        (RuntimeConfig(), None, COMPILE_FROM_STEPS - 1, "bf16 tf32 channels-last"),
        (RuntimeConfig(), None, COMPILE_FROM_STEPS, "bf16 tf32 channels-last compiled"),
        (RuntimeConfig(compile=True), None, 1, "bf16 tf32 channels-last compiled"),
        (RuntimeConfig(compile=False), "fp16", COMPILE_FROM_STEPS, "fp16 tf32 channels-last"),
        (RuntimeConfig(channels_last=False), "fp32", 1, "fp32 tf32"),
        (RuntimeConfig(exact=True), None, COMPILE_FROM_STEPS, "fp32"),
        (RuntimeConfig(exact=True), "bf16", COMPILE_FROM_STEPS, "bf16"),
        (RuntimeConfig(exact=True, channels_last=True, compile=True), None, 1, "fp32 channels-last compiled"),
    ],
)
@pytest.mark.usefixtures("cuda")
def test_on_cuda_what_is_left_open_is_fast(
    machine: RuntimeConfig, precision: Precision | None, steps: int, told: str
) -> None:
    assert (
        str(
            Numerics.resolve(machine, precision).for_training(
                steps, size=MAX_GRAPH_STATE + 1, steady=True, ghost_batch=None
            )
        )
        == told
    )


@pytest.mark.parametrize(("steady", "compiled"), [(True, False), (False, True)])
@pytest.mark.usefixtures("cuda")
def test_a_small_network_is_compiled_where_no_graph_can_hold_its_steps(steady: bool, compiled: bool) -> None:
    assert (
        Numerics.resolve(RuntimeConfig(), None)
        .for_training(COMPILE_FROM_STEPS, size=MAX_GRAPH_STATE, steady=steady, ghost_batch=None)
        .compiled
        == compiled
    )
    assert (
        Numerics.resolve(RuntimeConfig(compile=True), None)
        .for_training(COMPILE_FROM_STEPS, size=MAX_GRAPH_STATE, steady=steady, ghost_batch=None)
        .compiled
    )


@pytest.mark.usefixtures("cuda")
def test_statistics_that_several_processes_share_are_not_worth_compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "8")
    large: dict[str, Any] = {"size": MAX_GRAPH_STATE + 1, "steady": True}
    assert (
        not Numerics.resolve(RuntimeConfig(), None).for_training(COMPILE_FROM_STEPS, **large, ghost_batch=None).compiled
    )
    assert Numerics.resolve(RuntimeConfig(), None).for_training(COMPILE_FROM_STEPS, **large, ghost_batch=96).compiled
    assert (
        Numerics.resolve(RuntimeConfig(compile=True), None)
        .for_training(COMPILE_FROM_STEPS, **large, ghost_batch=None)
        .compiled
    )


def test_rows_name_torchvision_where_it_decodes_files_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")

    def told(files: bool, machine: RuntimeConfig) -> str:
        return str(Numerics.resolve(machine, None).for_training(1, **LARGE, files=files))

    assert told(True, RuntimeConfig()) == told(True, RuntimeConfig(decoder="dali")) == "fp32"
    assert told(True, RuntimeConfig(decoder="torchvision")) == "fp32 torchvision-decoded"
    assert told(False, RuntimeConfig(decoder="torchvision")) == "fp32"
    monkeypatch.setattr("sslticket.data.decode.find_spec", lambda name: None)
    assert told(True, RuntimeConfig()) == "fp32 torchvision-decoded"
    assert told(False, RuntimeConfig(decoder="dali")) == "fp32"


@pytest.mark.usefixtures("cuda")
def test_a_gpu_without_bfloat16_stays_at_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numerics, "_supports_bfloat16", lambda: False)
    assert str(Numerics.resolve(RuntimeConfig(), None).for_training(1, **LARGE)) == "fp32 tf32 channels-last"


def test_a_cpu_is_exact_unless_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")  # also on a machine that has a GPU
    assert str(Numerics.resolve(RuntimeConfig(), None).for_training(COMPILE_FROM_STEPS, **LARGE)) == "fp32"
    assert str(Numerics.resolve(LAST, "bf16").for_training(COMPILE_FROM_STEPS, **LARGE)) == "bf16 channels-last"
    assert str(Numerics.resolve(RuntimeConfig(compile=True), None).for_training(1, **LARGE)) == "fp32 compiled"


@pytest.mark.usefixtures("cuda", "settings_kept")
def test_the_process_is_set_and_set_back_and_torch_compile_can_read_it() -> None:
    for machine, products, fast in ((RuntimeConfig(), "high", True), (RuntimeConfig(exact=True), "highest", False)) * 2:
        Numerics.resolve(machine, None).apply()
        assert torch.get_float32_matmul_precision() == products
        assert (torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark) == (fast, fast)
        assert torch.backends.cuda.matmul.allow_tf32 == fast


def test_the_devices_own_precision_is_a_word_in_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numerics, "_device_type", lambda: "cpu")
    open_, given = recipe(precision=None), recipe(precision="fp32")
    assert (
        plan_search(open_, RuntimeConfig(), tmp_path).run_dir.path
        == plan_search(given, RuntimeConfig(), tmp_path).run_dir.path
    )
    assert plan_search(open_, RuntimeConfig(), tmp_path).recipe.precision == "fp32"
    monkeypatch.setattr(numerics, "_device_type", lambda: "cuda")
    monkeypatch.setattr(numerics, "_supports_bfloat16", lambda: True)
    fast, exact = (plan_search(open_, machine, tmp_path) for machine in (RuntimeConfig(), RuntimeConfig(exact=True)))
    assert fast.run_dir.path == plan_search(replace(given, precision="bf16"), RuntimeConfig(), tmp_path).run_dir.path
    assert exact.run_dir.path == plan_search(given, RuntimeConfig(), tmp_path).run_dir.path
    assert re.search(r"numerics +bf16 tf32 channels-last\n", f"{fast.describe()}\n")


def test_flags_turn_on_and_off_what_is_left_open() -> None:
    which = recipe()
    read = command._recipe_parser(which).parse_args
    for words, expected in (
        ([], RuntimeConfig()),
        (["--exact", "--no-compile"], RuntimeConfig(exact=True, compile=False)),
        (["--channels-last", "--compile"], RuntimeConfig(channels_last=True, compile=True)),
    ):
        assert flags.override_fields(RuntimeConfig(), vars(read(words))) == expected


def test_rows_and_tickets_tell_it_and_a_run_goes_on_in_another_way(tmp_path: Path) -> None:
    which = recipe(search=IMP(levels=2, rate=0.5, rewind="2it"))
    first = search(tmp_path, which)
    for level in (1, 2):
        first.run_dir.ticket_path(level).unlink()
    second = plan_search(which, LAST, tmp_path)
    assert second.run_dir.path == first.run_dir.path
    run_search(second, LAST)
    told = [ticket.provenance["numerics"] for ticket in tickets(second)]
    assert told == ["fp32", "fp32 channels-last", "fp32 channels-last"]
    assert [json.loads(second.run_dir.row_path(level).read_text())["numerics"] for level in range(3)] == told
    assert json.loads(second.run_dir.magnitudes_path.read_text())["numerics"] == "fp32 channels-last"
    assert Ticket.load(second.run_dir.initial_path).provenance["numerics"] == "fp32"


def test_evaluations_and_analyses_tell_it_and_do_not_take_one_for_the_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [search(tmp_path, recipe(objective, search=ONE)).run_dir.path for objective in (Supervised(), RotNet())]
    # The random ticket of both is one training.
    rows = [
        tasks.make_tasks(tasks.find_ticket_files([at], tasks.Levels((1,))), ["random"], [SHORT], [0], ["new"])
        for at in runs
    ]
    plain, last = Engine.create(RuntimeConfig(), "fp32"), Engine.create(LAST, "fp32")
    assert {row["numerics"] for row in evaluate_tasks(rows[0], plain)} == {"fp32"}
    both = [*rows[0], *rows[1]]
    donors = [
        [
            each.finished_row
            for each in EvaluationPlan.build(both, None, bench.numerics).jobs()
            if isinstance(each, TrainingJob) and each.control == "random"
        ]
        for bench in (plain, last)
    ]
    assert donors == [[rows[0][1].row_file], [None]]
    found = list(evaluate_tasks(both, last))
    assert {(row["control"], row["numerics"]) for row in found} == {
        ("ticket", "fp32 channels-last"),
        ("random", "fp32 channels-last"),
    }
    assert "though not measured at fp32 channels-last: 2 at fp32" in capsys.readouterr().err
    throughput = Throughput(runs, plain.device_name, lambda name: 8)
    works = [Workload("conv3", "short", 8, how, 8, 8 * 128) for how in ("fp32", "fp32 channels-last", "bf16")]
    assert [throughput.images_per_second(work) is not None for work in works] == [True, True, False]
    dense = tasks.find_ticket_files(runs[:1], tasks.Levels((0,)))
    (row,) = Magnitudes().rows(dense, SHORT, [0], last)
    assert row["numerics"] == "fp32 channels-last"
    (endpoint,) = (runs[0] / "endpoints").iterdir()
    assert endpoint.name.endswith(".fp32-channels-last.start0.safetensors")


def compiled(net: nn.Module) -> set[str]:
    return {name for name, module in net.named_modules() if module._compiled_call_impl is not None}


@pytest.mark.parametrize(
    ("objective", "parts"),
    [
        (Supervised(), set()),  # one layer alone leaves nothing to join
        (SimCLR(dim=16), {"heads"}),
        (
            BYOL(hidden=32, dim=16),
            {"heads.projection", "heads.prediction", "heads.momentum.backbone", "heads.momentum.projection"},
        ),
        (MoCoV2(dim=16, queue=64), {"heads.projection", "heads.momentum.backbone", "heads.momentum.projection"}),
        (
            DINO(hidden=32, bottleneck=16, outputs=32),
            {"heads.student", "heads.momentum.backbone", "heads.momentum.projection"},
        ),
    ],
    ids=lambda value: value.name if isinstance(value, Objective) else "",
)
def test_heads_and_slow_copies_are_compiled_too_as_they_are_called(objective: Objective, parts: set[str]) -> None:
    bench = Engine.create(RuntimeConfig(compile=True), "fp32")
    net = MaskedNetwork.build("conv3", objective, channels=1, image_size=8, classes=10, seed=0)
    with bench.prepare(net):
        assert compiled(net) == {"backbone"} | parts


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch hides it, unless warnings are errors
@pytest.mark.parametrize("objective", [RotNet(), BYOL(hidden=32, dim=16), SimCLR(dim=16)], ids=lambda each: each.name)
def test_a_compiled_search_learns_what_an_eager_one_does(tmp_path: Path, objective: Objective) -> None:
    found = []
    for compile_ in (False, True):
        machine = RuntimeConfig(compile=compile_)
        planned = plan_search(recipe(objective, search=ONE), machine, tmp_path / str(compile_))
        run_search(planned, machine)
        found.append(tickets(planned))
    (early, eager), (early_made, made) = found
    assert made.provenance["numerics"] == "fp32 compiled"
    differ = sum(int((layer & ~made.mask[name]).sum()) for name, layer in eager.mask.items())
    assert differ / eager.mask.survivors < 0.005
    for name, value in early.weights.items():
        torch.testing.assert_close(early_made.weights[name], value, rtol=1e-3, atol=1e-4)
