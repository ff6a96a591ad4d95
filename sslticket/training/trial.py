"""Which kernels a training computes with: short trials at its start choose on a CPU, and the run's folder remembers.

A network can be computed by several kernels, whose results differ by the order of sums alone, and none is the fastest
for all networks: channels-last makes ResNet-20 faster and VGG-19 slower, and whether a sparse layer gains depends on
its shape and on how much of it is pruned. So a few passes over the first images are timed with each.

A choice changes rounding. It is therefore made once, and written before the first step: whoever goes on with the
training reads it, so one that was killed ends with the bits of one that was not. Rows tell it (`kernels`).
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

import torch

from sslticket.data.loader import Batch
from sslticket.errors import BadInput, one_line
from sslticket.pruning import pruned_model, sparse_layers
from sslticket.pruning.compaction import Compaction, is_compact, stop_compaction, use_compaction
from sslticket.pruning.mask import Mask
from sslticket.storage.files import read_json, write_json
from sslticket.training.network import MaskedNetwork
from sslticket.training.numerics import compile_network

if TYPE_CHECKING:
    from accelerate import Accelerator

KERNELS_FOLDER = "kernels"
"""In the folder of a run: a file for each training, or each level of a search, whose kernels a trial has chosen."""
TRIAL_FROM_STEPS = 200
"""Steps of a training from which on a trial pays: it takes as long as about ten of them, and gains 10% or more of all,
or nothing."""
MIN_GAIN = 1.1
"""Times that other kernels must be faster than torch's own in its own layout: less may be a slip of the trial."""
COMPILE_FROM_SECONDS = 600.0
"""Seconds of a training from which on compiled code is tried under --fast: to compile takes 10 to 30 seconds, twice."""
_ROUNDS = 3
_MAX_STEM = 150  # bytes of a file's name
_Key = TypeVar("_Key", bool, int)


@dataclass(frozen=True, kw_only=True)
class Kernels:
    """By which kernels a training computes, as trials have chosen; torch's own in its own layout by default.

    Attributes:
        channels_last: Whether images and weights lie in memory in NHWC order.
        compiled: Whether network, heads and slow copies run as torch.compile makes them.
        sparse: Names of the weights whose layers compute with their kept weights alone.
        layers: Number of layers with a mask; 0 where no layer was tried.
        images_innermost: Whether these layers hand on batches whose images lie innermost, see
            `sslticket.pruning.innermost`.
        float32: Whether passes are in float32, though --fast asks for bfloat16: the casts take longer than they save.
        left_out: Number of channels that are not computed, see `sslticket.pruning.compaction`.
        channels: Number of the channels among which these are.
    """

    channels_last: bool = False
    compiled: bool = False
    sparse: tuple[str, ...] = ()
    layers: int = 0
    images_innermost: bool = False
    float32: bool = False
    left_out: int = 0
    channels: int = 0

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """What a file remembers; None where there is none.

        Raises:
            BadInput: If it is damaged.
        """
        fix = "delete it and run the same command again"
        try:
            found = read_json(path, fix=fix)
        except FileNotFoundError:
            return None
        kinds = {"channels_last": bool, "compiled": bool, "sparse": list, "layers": int}
        kinds |= (added := {"images_innermost": bool, "float32": bool, "left_out": int, "channels": int})  # since added
        if isinstance(found, dict):
            found = {name: kind() for name, kind in added.items()} | found
        fits = isinstance(found, dict) and found.keys() == kinds.keys()
        if not fits or any(type(found[name]) is not kind for name, kind in kinds.items()):
            raise BadInput(f"{path} is damaged (it names no kernels); {fix}")
        return cls(**found | {"sparse": tuple(map(str, found["sparse"]))})

    def write(self, path: Path) -> None:
        """Writes what `read` reads."""
        write_json(path, asdict(self))

    def __str__(self) -> str:
        """The kernels as rows have them, such as "channels-last; 12 of 16 layers sparse"; "" for torch's own."""
        words = ["channels-last"] * self.channels_last + ["compiled"] * self.compiled
        words += ["float32"] * self.float32 + ["images innermost"] * self.images_innermost
        if self.sparse:
            words.append(f"{len(self.sparse)} of {self.layers} layers sparse")
        if self.left_out:
            words.append(f"{self.left_out} of {self.channels} channels left out")
        return "; ".join(words)


def kernels_path(run: Path, name: str) -> Path:
    """Where a run's folder keeps the kernels of a training of this name."""
    return run / KERNELS_FOLDER / f"{file_stem(name)}.json"


def file_stem(name: str) -> str:
    """The name of a training's files; a hash of it where a file's name would be too long."""
    encoded = name.encode("utf-8", "surrogateescape")
    return name if len(encoded) <= _MAX_STEM else hashlib.sha256(encoded).hexdigest()[:32]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What is tried for a training.

    Attributes:
        build: Draws its network; the ones that are tried are thrown away.
        mask: Its mask, by which layers are tried; None where none are.
        batch: The images that go through it at once.
        layouts: The layouts of memory, whether channels-last, the usual one first.
        compile_for: Steps of the training if compiled code is to be tried where that would pay, else 0.
        compaction: The channels that may be left out; None where none may.
    """

    build: Callable[[], MaskedNetwork]
    mask: Mask | None
    batch: Batch
    layouts: tuple[bool, ...]
    compile_for: int
    compaction: Compaction | None = None

    def choose(self, accelerator: "Accelerator") -> tuple[Kernels, str]:
        """Times a network's passes, forward and back, in each layout with the sparse layers that gain in it.

        Args:
            accelerator: The accelerator of this process. All processes call this, since an objective may gather from
                them; what the first one finds counts.

        Returns:
            The fastest kernels, and a line on compiled code that failed, or "".
        """
        from sslticket.training.loop import preserve_rng_state  # with accelerate, which a dry run does without

        with preserve_rng_state(accelerator.device):
            passes = {}
            for last in self.layouts:
                try:
                    passes[last] = _Pass(self, accelerator, channels_last=last)
                    if last != self.layouts[0]:
                        passes[last]()
                except RuntimeError:  # of `view`, which networks of users call on what must lie as they expect
                    if last == self.layouts[0]:
                        raise
                    passes.pop(last, None)
            times, note = {} if len(passes) == 1 and not self.compile_for else _seconds_of(passes), ""
            best = self.layouts[0]
            for other in [*passes][1:]:
                best = other if times[best] >= MIN_GAIN * times[other] else best
            found = self._innermost(accelerator, passes[best])
            if self.compaction is not None:
                less = self._innermost(accelerator, _Pass(self, accelerator, channels_last=best, compact=True))
                seconds = _seconds_of({False: found, True: less})
                found = less if seconds[False] >= MIN_GAIN * seconds[True] else found
            chosen = found.kernels
            if self.compile_for and self.compile_for * times[best] >= COMPILE_FROM_SECONDS:
                try:
                    compiled = _Pass(self, accelerator, channels_last=best, compiled=True)
                    if times[best] >= MIN_GAIN * _seconds_of({True: compiled})[True]:
                        chosen = compiled.kernels
                except Exception as error:  # whatever a machine without a compiler raises
                    note = f"nothing is compiled, since torch.compile fails here: {one_line(error)}"
        return chosen, note

    def _innermost(self, accelerator: "Accelerator", found: "_Pass") -> "_Pass":
        """The same with images innermost, if that is faster: with its sparse layers, or with all that can be."""
        kernels, mask = found.kernels, self.mask
        if mask is None or not kernels.sparse or not all(view.ndim == 4 for view in self.batch.views):
            return found
        passes = {0: found}
        for names in dict.fromkeys([kernels.sparse, found.candidates]):
            passes[len(passes)] = _Pass(
                self,
                accelerator,
                channels_last=kernels.channels_last,
                compact=kernels.left_out > 0,
                innermost=names,
            )
        times = _seconds_of(passes)
        best = min(times, key=times.__getitem__)
        return passes[best] if times[0] >= MIN_GAIN * times[best] else found

    def choose_precision(self, accelerator: "Accelerator", chosen: Kernels) -> Kernels:
        """The fastest kernels in float32 if a pass with them is faster than one in the accelerator's own precision.

        Args:
            accelerator: The accelerator of this process, as for `choose`.
            chosen: What `choose` has found.
        """
        from sslticket.training.loop import preserve_rng_state

        with float32_passes(accelerator):
            whole, _ = replace(self, compile_for=0).choose(accelerator)
        seconds = []
        with preserve_rng_state(accelerator.device):
            for kernels, context in ((chosen, nullcontext()), (whole, float32_passes(accelerator))):
                with context:
                    names = kernels.sparse if kernels.images_innermost else ()
                    one = _Pass(
                        self,
                        accelerator,
                        channels_last=kernels.channels_last,
                        compiled=kernels.compiled,
                        compact=kernels.left_out > 0,
                        innermost=names,
                    )
                    seconds.append(_seconds_of({False: one})[False])
        return replace(whole, float32=True) if seconds[1] < seconds[0] else chosen


class _Pass:
    """One pass of a network over a batch, forward and back, as a step of training has it.

    Attributes:
        kernels: By which kernels it computes.
        candidates: Names of the weights whose layers may be sparse.
    """

    def __init__(
        self,
        trial: Trial,
        accelerator: "Accelerator",
        *,
        channels_last: bool,
        compiled: bool = False,
        compact: bool = False,
        innermost: Sequence[str] = (),
    ) -> None:
        layout = torch.channels_last if channels_last else torch.contiguous_format
        network = trial.build().to(memory_format=layout).train()
        views = tuple(view.contiguous(memory_format=layout) for view in trial.batch.views)
        self._network, self._batch, self._accelerator = network, trial.batch._replace(views=views), accelerator
        self.kernels = Kernels(channels_last=channels_last, compiled=compiled)
        self.candidates: tuple[str, ...] = ()
        if compiled:
            compile_network(network)
        elif (mask := trial.mask) is not None:
            backbone = network.backbone
            pruned_model.set_mask_everywhere(network, mask)
            if compact and (plan := trial.compaction) is not None:
                for each in pruned_model.backbone_and_copies(network):
                    use_compaction(each, plan)
                self.kernels = replace(self.kernels, left_out=plan.left_out, channels=plan.channels)
            self.candidates = tuple(sparse_layers.sparse_candidates(backbone, mask))
            names = tuple(innermost) or tuple(
                sparse_layers.faster_sparse_layers(backbone, mask, views[0], autocast=accelerator.autocast)
            )
            chosen = replace(self.kernels, sparse=names, layers=len(mask), images_innermost=bool(innermost))
            sparse_layers.use_sparse_layers(backbone, mask, names, images_innermost=chosen.images_innermost)
            self.kernels = chosen

    def __call__(self) -> None:
        with self._accelerator.autocast():
            terms = self._network(self._batch, 0.0)
        loss = torch.stack(list(terms.values())).sum()
        if loss.requires_grad:  # an objective may have none on a few images
            self._accelerator.backward(loss)
        self._network.zero_grad()


def _seconds_of(passes: Mapping[_Key, _Pass]) -> dict[_Key, float]:
    """The seconds of each, the least of a few rounds in turn: what else runs on the machine only adds to them."""
    for each in passes.values():
        each()
    seconds: dict[_Key, list[float]] = {name: [] for name in passes}
    for _ in range(_ROUNDS):
        for name, each in passes.items():
            began = _clock()
            each()
            seconds[name].append(_clock() - began)
    return {name: min(found) for name, found in seconds.items()}


def _clock() -> float:
    """Processor time where one thread computes, of which other programs take nothing away."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


@contextmanager
def float32_passes(accelerator: "Accelerator") -> Iterator[None]:
    """Has networks that are prepared, measured or tried until the block ends compute in float32."""
    before, accelerator.native_amp = accelerator.native_amp, False
    try:
        yield
    finally:
        accelerator.native_amp = before


@contextmanager
def computing_with(kernels: Kernels, network: MaskedNetwork) -> Iterator[None]:
    """Has a network and its copies compute with these layers sparse and these channels left out, until the block ends.

    Args:
        kernels: What trials have chosen.
        network: The network with its mask, which stays the same meanwhile, but for `changing_mask`.
    """
    if not (kernels.sparse or kernels.left_out):
        yield
        return
    _use(kernels, network)
    try:
        yield
    finally:
        _stop(network)


@contextmanager
def changing_mask(kernels: Kernels, network: MaskedNetwork) -> Iterator[None]:
    """Inside `computing_with`: has a network compute with torch's own kernels until the block ends, and may change it.

    The layers that come back are those of the mask as it then is, so they depend on nothing that was there before.
    """
    if not (kernels.sparse or kernels.left_out):
        yield
        return
    _stop(network)
    try:
        yield
    finally:
        _use(kernels, network)


def _use(kernels: Kernels, network: MaskedNetwork) -> None:
    mask = pruned_model.current_mask(network.backbone)
    plan = Compaction.plan(network.backbone, mask) if kernels.left_out else None
    for backbone in pruned_model.backbone_and_copies(network):
        if plan is not None:
            use_compaction(backbone, plan)
        sparse_layers.use_sparse_layers(backbone, mask, kernels.sparse, images_innermost=kernels.images_innermost)


def _stop(network: MaskedNetwork) -> None:
    sparse_layers.stop_sparse_layers(network)  # in copies that an objective has made meanwhile too
    stop_compaction(network)


@contextmanager
def dense_layers(network: MaskedNetwork) -> Iterator[None]:
    """Has a network compute with torch's own kernels, as scores with second derivatives ask, until the block ends."""
    backbones = [
        (each, is_compact(each), sparse_layers.sparse_layers(each), sparse_layers.hands_on_innermost(each))
        for each in pruned_model.backbone_and_copies(network)
    ]
    for backbone, *_ in backbones:
        sparse_layers.stop_sparse_layers(backbone)
        stop_compaction(backbone)
    try:
        yield
    finally:
        for backbone, compact, names, innermost in backbones:
            if names or compact:
                mask = pruned_model.current_mask(network.backbone)  # which is there again
                if compact and (plan := Compaction.plan(backbone, mask)) is not None:
                    use_compaction(backbone, plan)
                sparse_layers.use_sparse_layers(backbone, mask, names, images_innermost=innermost)
