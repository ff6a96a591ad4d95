"""Variables of the environment on which a result could depend: hidden from who reads them, refused, or told in rows.

A job script of another project, a file that `accelerate config` once wrote, or a line in a shell's profile sets them,
and nobody thinks of them when results are compared. docs/running.md has this table with what each does.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase

from sslticket.errors import BadInput

_TRUE, _FALSE = ("1", "true", "yes", "on", "y", "t"), ("", "0", "false", "no", "off", "n", "f")
_CPU = "ACCELERATE_USE_CPU"
_WORDS = {
    **dict.fromkeys(("ACCELERATE_CPU_AFFINITY", "ACCELERATE_DEBUG_MODE", "FORK_LAUNCHED"), (*_TRUE, *_FALSE[1:])),
    _CPU: (*_TRUE, *_FALSE),
    "TIMM_FUSED_ATTN": ("0", "1", "2"),
}
"""What libraries that act on a variable can read of it."""

LET = ("ACCELERATE_CPU_AFFINITY", "ACCELERATE_DEBUG_MODE", "ACCELERATE_ENABLE_RICH", "ACCELERATE_LOG_LEVEL")
"""Of accelerate's, those that change no number: who looks for a fault in it still can."""
HIDDEN = (
    *("ACCELERATE_*", "FSDP_*", "FP8_*", "MEGATRON_LM_*", "PARALLELISM_CONFIG_*"),
    *("PMI_*", "OMPI_*", "MV2_*", "MPI_*", "XLA_*", "FORK_LAUNCHED"),
)
"""What accelerate reads besides its arguments: our flags decide all of it, and which processes there are we have asked
the launcher. It does not see these while it is set up."""
LAUNCHED = ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "WORLD_SIZE", "NODE_RANK")
"""What a launcher says of a process among several, and what a single one is hidden from accelerate."""

_SHARES = "sslticket trains the same network in every process; answer no to it in `accelerate config`, or unset it"
_ROUNDS = "it rounds products whatever --exact and --precision say, and no row would tell; unset it"
_SHAPES = "it changes networks of timm under their names; unset it"
REFUSED = {
    "ACCELERATE_USE_DEEPSPEED": _SHARES,
    "ACCELERATE_USE_FSDP": _SHARES,
    "ACCELERATE_USE_MEGATRON_LM": _SHARES,
    "ACCELERATE_USE_PARALLELISM_CONFIG": _SHARES,
    "NVIDIA_TF32_OVERRIDE": _ROUNDS,
    "ONEDNN_DEFAULT_FPMATH_MODE": _ROUNDS,
    "DNNL_DEFAULT_FPMATH_MODE": _ROUNDS,
    "FORK_LAST3": _SHAPES,
    "TIMM_USE_NAFLEX": _SHAPES,
    "TIMM_USE_NAFLEXVIT": _SHAPES,
}
"""What would act against a flag of ours or under the name of something else, and why it must go."""
_HARMLESS = {
    "NVIDIA_TF32_OVERRIDE": (),
    "ONEDNN_DEFAULT_FPMATH_MODE": ("STRICT",),
    "DNNL_DEFAULT_FPMATH_MODE": ("STRICT",),
}

TOLD = (
    *("ATEN_CPU_CAPABILITY", "DNNL_CPU_ISA_HINTS", "DNNL_MAX_CPU_ISA", "ONEDNN_CPU_ISA_HINTS", "ONEDNN_MAX_CPU_ISA"),
    *("MKL_CBWR", "MKL_DEBUG_CPU_TYPE", "MKL_DISABLE_FAST_MM", "MKL_DOMAIN_NUM_THREADS", "MKL_DYNAMIC"),
    *("MKL_ENABLE_INSTRUCTIONS", "MKL_NUM_THREADS", "OMP_DYNAMIC", "OMP_THREAD_LIMIT", "GLIBC_TUNABLES"),
    *("NPY_DISABLE_CPU_FEATURES", "NPY_ENABLE_CPU_FEATURES", "JSIMD_*"),
    *("DALI_ENABLE_CSE", "DALI_OPTIMIZE_GRAPH", "DALI_USE_EXEC2"),
    *("TIMM_FUSED_ATTN", "TIMM_USE_SCIPY_INTERP", "TORCH_LINEAR_FLATTEN_3D", "TORCH_MKLDNN_MATMUL_*"),
)
"""What changes how sums are ordered or numbers rounded, on any device: rows tell it beside the precision."""
TOLD_ON_GPU = (
    *("CUBLAS_WORKSPACE_CONFIG", "CUBLASLT_WORKSPACE_SIZE", "DISABLE_ADDMM_CUDA_LT", "NCCL_ALGO", "NCCL_PROTO"),
    *("CUDNN_ERRATA_JSON_FILE", "PYTORCH_TUNABLEOP_*", "TORCH_BLAS_PREFER_CUBLASLT", "TORCH_CUBLASLT_*"),
    *("TORCH_CUDNN_SDPA_*", "TORCH_CUDNN_USE_HEURISTIC_MODE_B", "TORCH_CUDNN_V8_API_DISABLED"),
    *("TORCH_LINALG_PREFER_CUSOLVER", "PYTORCH_MPS_*", "PYTORCH_MIOPEN_*", "MIOPEN_*"),
)
"""The same of those that only a GPU's libraries read."""
TOLD_OF_COMPILED = ("TORCHDYNAMO_*", "TORCHINDUCTOR_*", "TORCH_COMPILE_*", "TRITON_*")
"""The same of those that only torch.compile reads."""
_CHANGES_NOTHING = ("*CACHE*", "*_DIR", "*DEBUG*", "*LOG*", "*THREADS*", "*TRACE*", "*VERBOSE*", "*FILENAME*")
_SHOWN = 60  # characters of a value


def check() -> None:
    """Whether nothing is set that would act against what flags and rows say.

    Raises:
        BadInput: naming the variable and the fix.
    """
    for name, words in _WORDS.items():
        given = os.environ.get(name)
        if given is not None and given.lower() not in words:
            raise BadInput(f"{name} must be {_either(words)}, got {_shown(given)!r}; unset it")
    for name, why in REFUSED.items():
        told = os.environ.get(name, "")
        harmless = _HARMLESS.get(name, _FALSE)
        if told and told.lower() not in map(str.lower, harmless):
            raise BadInput(f"{name}={_shown(told)} is set; {why}")


def cpu_only() -> bool:
    """Whether accelerate launch was told to leave GPUs alone, as by its --cpu."""
    return os.environ.get(_CPU, "").lower() in _TRUE


@contextmanager
def hidden(alone: bool) -> Iterator[None]:
    """While this lasts, what accelerate would act on without having been told so is not in the environment.

    Args:
        alone: this is a single process, whatever its number is said to be.
    """
    names = [name for name in os.environ if _among(name, HIDDEN) and name not in LET]
    names += [name for name in LAUNCHED if alone and name in os.environ]
    kept = {name: os.environ.pop(name) for name in names}
    try:
        yield
    finally:
        os.environ.update(kept)


def told(device: str) -> tuple[str, ...]:
    """What is set that changes rounding on a type of device, as "NAME=value", those of torch.compile with it."""
    known = (*TOLD, *TOLD_OF_COMPILED, *(() if device == "cpu" else TOLD_ON_GPU))
    found = [
        (name, value)
        for name, value in sorted(os.environ.items())
        if value and _among(name, known) and not (of_compiled(name) and _among(name, _CHANGES_NOTHING))
    ]
    return tuple(f"{name}={_shown(value)}" for name, value in found if not _said_by_threads(name, value))


def of_compiled(told: str) -> bool:
    """Whether only what torch.compile makes depends on a variable."""
    return _among(told.partition("=")[0], TOLD_OF_COMPILED)


def _said_by_threads(name: str, value: str) -> bool:
    """Whether the threads, which rows tell, say it: torch takes as many as MKL may, unless OpenMP's are given."""
    return name == "MKL_NUM_THREADS" and os.environ.get("OMP_NUM_THREADS", value) == value


def _either(words: tuple[str, ...]) -> str:
    return "true or false" if "true" in words else f"{', '.join(words[:-1])} or {words[-1]}"


def _among(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _shown(value: str) -> str:
    """A value as one short word."""
    return re.sub(r"[^\w.,:+=-]", "_", value)[:_SHOWN]
