"""Variables of the environment that others read: none changes a result unseen."""

import os
import re
import subprocess
import sys
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path

import pytest

from sslticket.config import runtime
from sslticket.config.runtime import RuntimeConfig
from sslticket.errors import BadInput
from sslticket.training.numerics import Numerics

# What accelerate reads and no number here depends on: devices that somebody chooses and rows name, trackers, clouds,
# what it sets itself, what is read where several processes meet, and examples.
ELSEWHERE = (
    *(
        "*_VISIBLE_DEVICES",
        "*_VISIBLE_MODULES",
        "*_VISIBLE_CORES",
        "ZE_AFFINITY_MASK",
        "MLFLOW_*",
        "CLEARML_*",
        "AWS_*",
    ),
    *("MASTER_ADDR", "MASTER_PORT", "NPROC", "OMP_NUM_THREADS", "KMP_*", "PYTHONPATH", "PYTORCH_ENABLE_MPS_FALLBACK"),
    *("DEEPSPEED_USE_HPU", "PT_HPU_LAZY_MODE", "USE_TORCH_XLA", "PJRT_DEVICE", "TPU_NAME", "FOO"),
)
STEP = """
import torch
from sslticket import RotNet
from sslticket.config.runtime import RuntimeConfig
from sslticket.training.network import MaskedNetwork
from sslticket.training.engine import Engine
engine = Engine.create(RuntimeConfig(), None)
net = MaskedNetwork.build("conv3", RotNet(), channels=1, image_size=8, classes=10, seed=0)
bias = net.get_parameter("heads.bias")
torch.nn.init.zeros_(bias)
with engine.prepare(net) as wrapped:
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    engine.accelerator.backward(net.heads(net.backbone(torch.ones(2, 1, 8, 8))).sum())
    optimizer.step()
    print(bias.tolist(), type(wrapped).__name__, net.backbone.features[0].weight.sum().item())
state = engine.accelerator.state
print(engine.device_name, state.distributed_type.value, state.num_processes, state.mixed_precision, engine.numerics)
print(torch.get_float32_matmul_precision())
"""
HOSTILE = {
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4",
    "ACCELERATE_MIXED_PRECISION": "bf16",
    "ACCELERATE_DYNAMO_BACKEND": "INDUCTOR",
    "ACCELERATE_DOWNCAST_BF16": "1",
    "ACCELERATE_TORCH_DEVICE": "meta",
    "ACCELERATE_USE_SAGEMAKER": "true",
    "ACCELERATE_GRADIENT_CLIPPING": "0.001",
    "ACCELERATE_FP8_BACKEND": "TE",
    "ACCELERATE_USE_FSDP": "false",
    "FSDP_OFFLOAD_PARAMS": "true",
    "PARALLELISM_CONFIG_TP_SIZE": "2",
    "MEGATRON_LM_TP_DEGREE": "2",
    "OMPI_COMM_WORLD_LOCAL_RANK": "3",
    "MPI_LOCALNRANKS": "many",
    "PMI_SIZE": "8",
    "WORLD_SIZE": "1",
    "RANK": "0",
    "LOCAL_RANK": "5",
    "LOCAL_WORLD_SIZE": "0",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1",
}


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    known = (
        *runtime.HIDDEN_VARIABLES,
        *runtime.REFUSED_VARIABLES,
        *runtime.RECORDED_VARIABLES,
        *runtime.RECORDED_IF_COMPILED,
    )
    for name in list(os.environ):
        if any(fnmatchcase(name, pattern) for pattern in known):
            monkeypatch.delenv(name)


def step(**variables: str) -> str:
    kept = {name: value for name, value in os.environ.items() if name not in HOSTILE}
    return subprocess.run(
        [sys.executable, "-c", STEP], env=kept | variables, capture_output=True, text=True, check=True, timeout=200
    ).stdout


@pytest.mark.slow
def test_a_step_is_the_same_whatever_others_have_left_in_the_environment() -> None:
    told = step(**HOSTILE)
    assert told.startswith("[-1.0, -1.0, -1.0, -1.0] MaskedNetwork ")
    assert told == step()


def test_every_variable_that_accelerate_reads_is_accounted_for() -> None:
    spec = find_spec("accelerate")
    assert spec is not None
    assert spec.origin is not None
    reads = re.compile(r"""(?:environ(?:\.get|\.pop)?[(\[]|getenv\(|_from_env\(\[?)\s*f?["']([A-Z0-9_]+)["']""")
    prefixes = re.compile(r"""prefix = ["']([A-Z0-9_]+_)["']""")
    home, found = Path(spec.origin).parent, set[str]()
    for path in home.rglob("*.py"):
        if path.relative_to(home).parts[0] not in ("commands", "test_utils"):
            text = path.read_text(encoding="utf-8")
            found |= {*reads.findall(text), *prefixes.findall(text)}
    assert {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "ACCELERATE_DYNAMO_", "RANK"} <= found
    known = (*runtime.HIDDEN_VARIABLES, *runtime.LAUNCHER_VARIABLES, *ELSEWHERE)
    assert [name for name in sorted(found) if not any(fnmatchcase(name, each) for each in known)] == []


@pytest.mark.parametrize("name", runtime.REFUSED_VARIABLES)
def test_what_would_act_against_a_flag_is_refused_by_its_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    value = "BF16" if name.endswith("MODE") else "1"
    monkeypatch.setenv(name, value)
    with pytest.raises(BadInput, match=f"^{name}={value} is set; .*unset it$"):
        Numerics.resolve(RuntimeConfig(), None)


@pytest.mark.parametrize(
    ("name", "value"), [("ACCELERATE_USE_FSDP", "false"), ("ONEDNN_DEFAULT_FPMATH_MODE", "strict"), ("FORK_LAST3", "0")]
)
def test_a_variable_that_asks_for_nothing_is_none(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    runtime.check_environment()


@pytest.mark.parametrize("name", ["ACCELERATE_USE_CPU", "ACCELERATE_DEBUG_MODE", "FORK_LAUNCHED", "TIMM_FUSED_ATTN"])
def test_a_word_that_a_library_cannot_read_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "perhaps")
    with pytest.raises(BadInput, match=f"^{name} must be .*, got 'perhaps'; unset it$"):
        Numerics.resolve(RuntimeConfig(), None)


def test_what_rounds_otherwise_is_in_the_numerics_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    assert str(Numerics.resolve(RuntimeConfig(), "fp32")) == "fp32"
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    monkeypatch.setenv("JSIMD_FORCENONE", "1")
    monkeypatch.setenv("TORCHINDUCTOR_MAX_AUTOTUNE", "1")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/tmp/cache")
    assert str(Numerics.resolve(RuntimeConfig(), "fp32")) == "fp32 ATEN_CPU_CAPABILITY=default JSIMD_FORCENONE=1"
    compiled = "fp32 compiled ATEN_CPU_CAPABILITY=default JSIMD_FORCENONE=1 TORCHINDUCTOR_MAX_AUTOTUNE=1"
    assert str(Numerics.resolve(RuntimeConfig(compile=True), "fp32")) == compiled


def test_threads_of_mkl_are_told_where_the_threads_of_the_row_do_not_tell_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setenv("MKL_NUM_THREADS", "2")
    assert runtime.rounding_variables("cpu") == ()
    monkeypatch.setenv("MKL_NUM_THREADS", "1")
    assert runtime.rounding_variables("cpu") == ("MKL_NUM_THREADS=1",)
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert runtime.rounding_variables("cpu") == ()


def test_what_a_gpu_reads_is_told_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    assert runtime.rounding_variables("cpu") == ()
    assert runtime.rounding_variables("cuda") == ("CUBLAS_WORKSPACE_CONFIG=:4096:8",)


def test_a_value_becomes_one_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.cpu.hwcaps=-AVX2 x/../y\n")
    assert runtime.rounding_variables("cpu") == ("GLIBC_TUNABLES=glibc.cpu.hwcaps=-AVX2_x_.._y_",)


def test_what_was_hidden_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp8")
    monkeypatch.setenv("RANK", "0")
    with runtime.hide_launcher_variables(alone=False):
        assert ("ACCELERATE_MIXED_PRECISION" in os.environ, os.environ["RANK"]) == (False, "0")
    with runtime.hide_launcher_variables(alone=True):
        assert "RANK" not in os.environ
    assert (os.environ["ACCELERATE_MIXED_PRECISION"], os.environ["RANK"]) == ("fp8", "0")


def test_every_variable_is_in_the_documented_table() -> None:
    text = (Path(__file__).parent.parent.parent / "docs" / "running.md").read_text(encoding="utf-8")
    told = (*runtime.RECORDED_VARIABLES, *runtime.RECORDED_ON_GPU, *runtime.RECORDED_IF_COMPILED)
    names = (*runtime.HIDDEN_VARIABLES, *runtime.ALLOWED_VARIABLES, *runtime.REFUSED_VARIABLES, *told)
    assert [name for name in names if f"`{name}`" not in text] == []
