"""Where and how a run computes: settings of the machine, and variables of the environment that could change a result.

None of the settings decides which tickets come out, so none is in a recipe's key. What changes the rounding is written
into every row all the same, see `sslticket.training.numerics`. What batch norm sees of a batch would be decided here,
by the number of processes and of micro-batches; so a recipe says it (`TrainConfig.ghost_batch`), and micro-batches
follow.

The variables are hidden from the libraries that read them, refused, or recorded in rows: a job script of another
project, a file that `accelerate config` once wrote, or a line in a shell's profile sets them, and nobody thinks of them
when results are compared. docs/running.md has the table of what each does.
"""

import fnmatch
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import InitVar, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal

from sslticket import processes as launched
from sslticket.config.training import Span
from sslticket.errors import BadInput, one_line
from sslticket.registry import stored_as

_TRUE, _FALSE = ("1", "true", "yes", "on", "y", "t"), ("", "0", "false", "no", "off", "n", "f")
_CPU_VARIABLE = "ACCELERATE_USE_CPU"
_ALLOWED_VALUES = {
    **dict.fromkeys(("ACCELERATE_CPU_AFFINITY", "ACCELERATE_DEBUG_MODE", "FORK_LAUNCHED"), (*_TRUE, *_FALSE[1:])),
    _CPU_VARIABLE: (*_TRUE, *_FALSE),
    "TIMM_FUSED_ATTN": ("0", "1", "2"),
}
"""What libraries that act on a variable can read of it."""

ALLOWED_VARIABLES = (
    "ACCELERATE_CPU_AFFINITY",
    "ACCELERATE_DEBUG_MODE",
    "ACCELERATE_ENABLE_RICH",
    "ACCELERATE_LOG_LEVEL",
)
"""Of accelerate's, those that change no number: who looks for a fault in it still can."""
HIDDEN_VARIABLES = (
    *("ACCELERATE_*", "FSDP_*", "FP8_*", "MEGATRON_LM_*", "PARALLELISM_CONFIG_*"),
    *("PMI_*", "OMPI_*", "MV2_*", "MPI_*", "XLA_*", "FORK_LAUNCHED"),
)
"""What accelerate reads besides its arguments: our flags decide all of it, and which processes there are we have asked
the launcher. It does not see these while it is set up."""
LAUNCHER_VARIABLES = ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "WORLD_SIZE", "NODE_RANK")
"""What a launcher says of a process among several, and what a single one is hidden from accelerate."""

_SHARDS_NETWORK = (
    "sslticket trains the same network in every process; answer no to it in `accelerate config`, or unset it"
)
_CHANGES_ROUNDING = "it rounds products whatever --exact and --precision say, and no row would tell; unset it"
_CHANGES_NETWORKS = "it changes networks of timm under their names; unset it"
REFUSED_VARIABLES = {
    "ACCELERATE_USE_DEEPSPEED": _SHARDS_NETWORK,
    "ACCELERATE_USE_FSDP": _SHARDS_NETWORK,
    "ACCELERATE_USE_MEGATRON_LM": _SHARDS_NETWORK,
    "ACCELERATE_USE_PARALLELISM_CONFIG": _SHARDS_NETWORK,
    "NVIDIA_TF32_OVERRIDE": _CHANGES_ROUNDING,
    "ONEDNN_DEFAULT_FPMATH_MODE": _CHANGES_ROUNDING,
    "DNNL_DEFAULT_FPMATH_MODE": _CHANGES_ROUNDING,
    "FORK_LAST3": _CHANGES_NETWORKS,
    "TIMM_USE_NAFLEX": _CHANGES_NETWORKS,
    "TIMM_USE_NAFLEXVIT": _CHANGES_NETWORKS,
}
"""What would act against a flag of ours or under the name of something else, and why it must go."""
_HARMLESS_VALUES = {
    "NVIDIA_TF32_OVERRIDE": (),
    "ONEDNN_DEFAULT_FPMATH_MODE": ("STRICT",),
    "DNNL_DEFAULT_FPMATH_MODE": ("STRICT",),
}

RECORDED_VARIABLES = (
    *("ATEN_CPU_CAPABILITY", "DNNL_CPU_ISA_HINTS", "DNNL_MAX_CPU_ISA", "ONEDNN_CPU_ISA_HINTS", "ONEDNN_MAX_CPU_ISA"),
    *("MKL_CBWR", "MKL_DEBUG_CPU_TYPE", "MKL_DISABLE_FAST_MM", "MKL_DOMAIN_NUM_THREADS", "MKL_DYNAMIC"),
    *("MKL_ENABLE_INSTRUCTIONS", "MKL_NUM_THREADS", "OMP_DYNAMIC", "OMP_THREAD_LIMIT", "GLIBC_TUNABLES"),
    *("NPY_DISABLE_CPU_FEATURES", "NPY_ENABLE_CPU_FEATURES", "JSIMD_*"),
    *("DALI_ENABLE_CSE", "DALI_OPTIMIZE_GRAPH", "DALI_USE_EXEC2"),
    *("TIMM_FUSED_ATTN", "TIMM_USE_SCIPY_INTERP", "TORCH_LINEAR_FLATTEN_3D", "TORCH_MKLDNN_MATMUL_*"),
)
"""What changes how sums are ordered or numbers rounded, on any device: rows tell it beside the precision."""
RECORDED_ON_GPU = (
    *("CUBLAS_WORKSPACE_CONFIG", "CUBLASLT_WORKSPACE_SIZE", "DISABLE_ADDMM_CUDA_LT", "NCCL_ALGO", "NCCL_PROTO"),
    *("CUDNN_ERRATA_JSON_FILE", "PYTORCH_TUNABLEOP_*", "TORCH_BLAS_PREFER_CUBLASLT", "TORCH_CUBLASLT_*"),
    *("TORCH_CUDNN_SDPA_*", "TORCH_CUDNN_USE_HEURISTIC_MODE_B", "TORCH_CUDNN_V8_API_DISABLED"),
    *("TORCH_LINALG_PREFER_CUSOLVER", "PYTORCH_MPS_*", "PYTORCH_MIOPEN_*", "MIOPEN_*"),
)
"""The same of those that only a GPU's libraries read."""
RECORDED_IF_COMPILED = ("TORCHDYNAMO_*", "TORCHINDUCTOR_*", "TORCH_COMPILE_*", "TRITON_*")
"""The same of those that only torch.compile reads."""
_NUMERICALLY_NEUTRAL = ("*CACHE*", "*_DIR", "*DEBUG*", "*LOG*", "*THREADS*", "*TRACE*", "*VERBOSE*", "*FILENAME*")
_MAX_VALUE_LENGTH = 60  # characters of a value


def check_environment() -> None:
    """Whether nothing is set that would act against what flags and rows say.

    Raises:
        BadInput: If one is, naming the variable and the fix.
    """
    for name, words in _ALLOWED_VALUES.items():
        given = os.environ.get(name)
        if given is not None and given.lower() not in words:
            raise BadInput(f"{name} must be {_alternatives(words)}, got {_short_value(given)!r}; unset it")
    for name, why in REFUSED_VARIABLES.items():
        given = os.environ.get(name, "")
        harmless = _HARMLESS_VALUES.get(name, _FALSE)
        if given and given.lower() not in map(str.lower, harmless):
            raise BadInput(f"{name}={_short_value(given)} is set; {why}")


def cpu_only() -> bool:
    """Whether GPUs are left alone: accelerate launch was told to, as by its --cpu, or they are Apple's, never tried."""
    return sys.platform == "darwin" or os.environ.get(_CPU_VARIABLE, "").lower() in _TRUE


@contextmanager
def hide_launcher_variables(alone: bool) -> Iterator[None]:
    """While this lasts, what accelerate would act on without having been asked to is not in the environment.

    Args:
        alone: Whether this is a single process, whatever its environment says of its number.
    """
    names = [name for name in os.environ if _matches_any(name, HIDDEN_VARIABLES) and name not in ALLOWED_VARIABLES]
    names += [name for name in LAUNCHER_VARIABLES if alone and name in os.environ]
    kept = {name: os.environ.pop(name) for name in names}
    try:
        yield
    finally:
        os.environ.update(kept)


def rounding_variables(device: str) -> tuple[str, ...]:
    """What is set that changes rounding on a type of device, as "NAME=value", those of torch.compile with it."""
    known = (*RECORDED_VARIABLES, *RECORDED_IF_COMPILED, *(() if device == "cpu" else RECORDED_ON_GPU))
    found = [
        (name, value)
        for name, value in sorted(os.environ.items())
        if value
        and _matches_any(name, known)
        and not (is_compiler_variable(name) and _matches_any(name, _NUMERICALLY_NEUTRAL))
    ]
    return tuple(f"{name}={_short_value(value)}" for name, value in found if not _implied_by_threads(name, value))


def is_compiler_variable(setting: str) -> bool:
    """Whether only what torch.compile makes depends on a variable."""
    return _matches_any(setting.partition("=")[0], RECORDED_IF_COMPILED)


def _implied_by_threads(name: str, value: str) -> bool:
    """Whether the threads, which rows tell, say it: torch takes as many as MKL may, unless OpenMP's are given."""
    return name == "MKL_NUM_THREADS" and os.environ.get("OMP_NUM_THREADS", value) == value


def _alternatives(words: tuple[str, ...]) -> str:
    return "true or false" if "true" in words else f"{', '.join(words[:-1])} or {words[-1]}"


def _matches_any(name: str, patterns: tuple[str, ...]) -> bool:
    return _joined_patterns(patterns).match(name) is not None


@lru_cache
def _joined_patterns(patterns: tuple[str, ...]) -> re.Pattern[str]:
    """One expression for all: every training looks at every variable of the environment several times."""
    return re.compile("|".join(map(fnmatch.translate, patterns)))


def _short_value(value: str) -> str:
    """A value as one short word."""
    return re.sub(r"[^\w.,:+=-]", "_", value)[:_MAX_VALUE_LENGTH]


def _check_log(file: Path) -> None:
    try:
        if file.is_dir() or not file.absolute().parent.is_dir():
            raise BadInput(f"--log-file must be a file in a folder that is there, got {file}; give one such as run.log")
        os.close(os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK, 0o666))  # a pipe could block
    except OSError as error:
        raise BadInput(f"--log-file {file} cannot be written ({one_line(error)}); give another file") from error


@dataclass(frozen=True, kw_only=True)
class RuntimeConfig:
    """Settings of the machine at hand.

    Attributes:
        data_root: Folder of the dataset; None looks in $SSLTICKET_DATA and the system's places.
        threads: Threads that decode images, per process; None for all processors of the machine, divided
            among the processes on it.
        accumulate: Micro-batches in which a process's part of a batch goes through the network, to save memory; None
            for what the recipe's ghost batch asks for, or for as many as the device's memory does where that changes
            nothing.
        exact: Turn off what is fast but rounds otherwise, and a GPU takes by itself: bf16, channels-last, TF32, the
            search for cuDNN's fastest algorithms, compiling and CUDA graphs; and the trials by which a CPU chooses its
            kernels. What other flags ask for they get.
        fast: Compute on a CPU as a GPU does by itself: in bf16 where the processor has it, and compiled where a trial
            shows that it pays. A GPU does so without it.
        channels_last: Memory layout of images and weights; faster on GPUs with tensor cores. None for yes on CUDA, and
            on a CPU for what is faster in a trial at the start of a training of 200 steps or more.
        compile: Compile network, heads and slow copies with torch.compile. None for yes on CUDA, where it pays: in a
            training of 10,000 steps or more, whose steps are not launched as graphs, and whose statistics of batch norm
            are not shared by several processes.
        max_bad_images: Unreadable images that are skipped before a run gives up.
        keep_decoded: Gigabytes of decoded image files that are kept in the cache folder, for later epochs and for all
            processes and seeds of this machine. None for up to half of the memory and a quarter of the disk that are
            free, where all images fit; 0 for none. Where a number is given, the host decodes images for a GPU too.
        decoder: What decodes image files, "dali" or "torchvision", which does so on the host and rounds otherwise. None
            for DALI where it is installed, and on a CPU else for torchvision.
        probe: How often the accuracy of a nearest-neighbour probe on the frozen features is measured in a training,
            such as "10ep" or "500it", and at its end; None never does.
        tensorboard: Write TensorBoard's event files to the run's folder, as --log tensorboard does.
        log: Trackers in which trainings are seen: wandb, mlflow, trackio, comet, aim, tensorboard or "mine.py:Mine",
            each with a project if one is wanted, such as "wandb:tickets".
        quiet: Show no progress and no notes on standard error; results, warnings and errors stay.
        log_file: File to which progress and notes are appended, each line with its time.
        timeout: Minutes without a sign of life after which a process, of several, is given up and all others end.
        snapshot_every: Minutes between two snapshots of a training, from which the same command goes on after a kill;
            0 for none but at the signal of a time limit, a preemption or Ctrl-C.
    """

    data_root: Path | None = None
    threads: int | None = None
    accumulate: int | None = None
    exact: bool = False
    fast: bool = False
    channels_last: bool | None = None
    compile: bool | None = None
    max_bad_images: int = 100
    keep_decoded: float | None = None
    decoder: Literal["dali", "torchvision"] | None = None
    probe: str | None = None
    tensorboard: bool = False
    log: tuple[str, ...] = field(default=(), metadata=stored_as("tracker"))
    quiet: bool = False
    log_file: Path | None = None
    timeout: float = 5.0
    snapshot_every: float = 10.0
    tracker: InitVar[tuple[str, ...]] = ()

    def __post_init__(self, tracker: tuple[str, ...]) -> None:
        object.__setattr__(self, "log", (*self.log, *tracker))
        if self.log_file is not None:
            _check_log(self.log_file)
        if any(count is not None and count < 1 for count in (self.accumulate, self.threads)):
            raise BadInput(f"--accumulate and --threads must be at least 1, got {self.accumulate} and {self.threads}")
        if self.fast and self.exact:
            raise BadInput("--fast and --exact must not be given together: one rounds more, the other less; give one")
        if self.max_bad_images < 0:
            raise BadInput(
                f"--max-bad-images must be 0 or more, got {self.max_bad_images}; 0 stops at the first unreadable image"
            )
        if self.keep_decoded is not None and not 0 <= 1e9 * self.keep_decoded < float("inf"):
            raise BadInput(
                f"--keep-decoded must be a finite number of gigabytes, at least 0, got {self.keep_decoded:g}; give 0 "
                "to keep no decoded images, or leave it out for what is free"
            )
        if self.probe is not None and Span.parse(self.probe, "--probe").amount <= 0:
            raise BadInput(f"--probe must be a length above 0 such as 10ep, got {self.probe}")
        if not 0 < self.timeout < float("inf"):
            raise BadInput(f"--timeout must be a finite number of minutes above 0 such as 5, got {self.timeout:g}")
        if not 0 <= self.snapshot_every < float("inf"):
            raise BadInput(
                f"--snapshot-every must be a finite number of minutes, at least 0, got {self.snapshot_every:g}; give "
                "10, or 0 for no snapshots but at a signal"
            )

    @property
    def trackers(self) -> tuple[str, ...]:
        """The trackers that follow trainings, as --log names them."""
        return (*self.log, *(["tensorboard"] if self.tensorboard else []))

    @property
    def world_size(self) -> int:
        """Number of processes that train together, on all machines."""
        return launched.world_size()

    def accumulation_steps(self, batch: int, ghost: int | None, task: str, *, whole: bool, normalised: bool) -> int:
        """In how many micro-batches this process's part of a global batch goes through the network.

        Args:
            batch: Images in a global batch.
            ghost: Images of it whose batch-norm statistics are taken together; None for all.
            task: Name of the objective.
            whole: Whether the objective compares the images of a batch with each other, so that this process's images
                go through the network together.
            normalised: Whether the network has batch norm, so that micro-batches without a ghost batch would change
                what is learnt.

        Raises:
            BadInput: If the batch cannot be divided so, naming what would do.
        """
        local, given = self._local_batch(batch, ghost), self.accumulate or 1
        if whole and given > 1:
            raise BadInput(
                f"{task} compares the images of a batch, so --accumulate must be 1, got {given}; leave it out, and "
                "start more processes or give a smaller --batch-size"
            )
        if ghost is not None and not whole:
            if self.accumulate not in (None, local // ghost):
                raise BadInput(
                    f"--accumulate must be {local // ghost} for {local} images a process in ghost batches of {ghost}, "
                    f"got {given}; leave it out"
                )
            return local // ghost
        if local % given:
            raise BadInput(
                f"--accumulate must divide the {local} images of a process, got {given}; leave it out, or "
                f"give --batch-size a multiple of {self.world_size * given}"
            )
        if normalised and given > 1:
            raise BadInput(
                f"--accumulate must be 1 where batch norm sees the whole batch, got {given}; leave it out; what it "
                f"sees is the recipe's to say, such as --ghost-batch {local // given}"
            )
        return given

    def _local_batch(self, batch: int, ghost: int | None) -> int:
        """Images of a global batch that are this process's."""
        local, odd = divmod(batch, self.world_size)
        if odd:
            raise BadInput(
                f"--batch-size must be a multiple of {self.world_size}, the number of processes, got {batch}"
            )
        if ghost is not None and local % ghost:
            counts = [count for count in range(1, batch // ghost + 1) if batch // ghost % count == 0]
            raise BadInput(
                f"a batch of {batch} in ghost batches of {ghost} cannot be divided among {self.world_size} processes; "
                f"start {' or '.join(map(str, counts))} (--nproc-per-node of torchrun, --num_processes of accelerate "
                "launch)"
            )
        return local

    def micro_batch(self, batch: int, ghost: int | None, task: str, *, whole: bool, normalised: bool) -> int:
        """Images of a global batch that an objective sees at once, in this process; see `accumulation_steps`."""
        return batch // (
            self.world_size * self.accumulation_steps(batch, ghost, task, whole=whole, normalised=normalised)
        )

    @property
    def decode_threads(self) -> int:
        """Threads that decode images in this process."""
        if self.threads is not None:
            return self.threads
        return max(1, launched.usable_cores() // launched.local_world_size())
