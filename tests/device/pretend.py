"""A pretend accelerator in pure Python: its results are the CPU's, its refusals and its waits are CUDA's.

A tensor on it holds its numbers in a CPU tensor behind a wrapper. An operation that mixes it with a CPU tensor raises
as on CUDA, fused optimisers refuse unequal strides, memory that nobody has written holds NaN, and every operation that
launches kernels or makes the host wait is counted with its place in the code. The device's name is `sim`; it is torch's
PrivateUse1, of which a process can have one. It is there only while a `Pretend` is entered: before and after, the
process has no accelerator.

What it cannot show: speed, streams, real numerics, several devices, and code that runs for `device.type == "cuda"`
alone.
"""

import math
import sys
import types
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple
from unittest import mock

import torch
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing

import sslticket
from tests.device import autocasting, rules

NAME = "sim"
aten = torch.ops.aten
_LIBRARY = torch.library.Library("aten", "IMPL")  # what is registered lasts as long as this
_ROOT, _HANDOVER = str(Path(sslticket.__file__).parent), "handover.py"


class Mixed(RuntimeError):
    """An operation that CUDA refuses: operands on two devices, or unequal strides in a fused optimiser."""


class Refused(RuntimeError):
    """Something that cannot be captured in a graph: a wait of the host, or numbers that come from it."""


class Tally(NamedTuple):
    """What was counted up to a moment.

    Attributes:
        kernels: launches by operation; a library's call, such as a convolution, counts as one.
        waits: of the host, by what it waited for and where.
    """

    kernels: Counter[str]
    waits: Counter[str]

    def since(self, before: "Tally") -> "Tally":
        """What came after an earlier moment."""
        return Tally(self.kernels - before.kernels, self.waits - before.waits)


def missing() -> str | None:
    """Why there can be no pretend accelerator in this process; None where there can."""
    if torch.cuda.is_available():
        return "torch takes one accelerator a process and a real one is here; set CUDA_VISIBLE_DEVICES= to hide it"
    if not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"):
        return f"torch {torch.__version__} has no backends in Python"
    return None


@cache
def _register() -> None:
    """Make the device known to torch; it stays known as long as the process lives, and is available only at times."""
    backend_registration._setup_privateuseone_for_python_backend(NAME, _Backend(f"torch.{NAME}"))
    autocasting.register(NAME)
    # Where torch goes past Python's own dispatch, as `torch.tensor` does with a device.
    for func in (aten.empty_strided.default, aten.empty.memory_format, aten._copy_from.default):
        _LIBRARY.impl(func, partial(_run_unseen, func), "PrivateUse1")


class _Backend(types.ModuleType):
    """What `torch.get_device_module` gives for the device."""

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return Pretend.now is not None

    def device_count(self) -> int:
        return int(self.is_available())

    def current_device(self) -> int:
        return 0

    def set_device(self, device: object) -> None:
        pass

    def get_device_name(self, device: object = None) -> str:
        return "a pretend accelerator"

    def mem_get_info(self, device: object = None) -> tuple[int, int]:
        return 2**34, 2**34

    def get_device_properties(self, device: object = None) -> types.SimpleNamespace:
        return types.SimpleNamespace(name=self.get_device_name(), total_memory=2**34)

    def memory_allocated(self, device: object = None) -> int:
        return 0

    def empty_cache(self) -> None:
        pass

    def synchronize(self, device: object = None) -> None:
        if Pretend.now is not None:
            Pretend.now.wait("synchronize")

    def manual_seed(self, seed: int) -> None:
        """Nothing: what is drawn here comes from the CPU's generator, so that it is what the CPU draws."""

    def manual_seed_all(self, seed: int) -> None:
        """See `manual_seed`."""

    def get_rng_state(self, device: object = None) -> Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: Tensor, device: object = None) -> None:
        torch.set_rng_state(state)

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    def _is_in_bad_fork(self) -> bool:
        return False


class _Generator(torch.Generator):
    """Random numbers of the device are drawn on the CPU."""

    def __new__(cls, device: object = "cpu") -> "_Generator":
        return super().__new__(cls, "cpu")  # type: ignore[call-arg]


class PretendTensor(Tensor):
    """A tensor on the device.

    Attributes:
        raw: its numbers.
        of_host: it is a number of the host, which CUDA would not have put on the device.
    """

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    raw: Tensor
    of_host: bool

    @staticmethod
    def __new__(cls: type, raw: Tensor) -> "PretendTensor":
        made: PretendTensor = torch.Tensor._make_wrapper_subclass(
            cls,
            raw.shape,
            strides=raw.stride(),
            storage_offset=raw.storage_offset(),
            dtype=raw.dtype,
            layout=raw.layout,
            device=torch.device(NAME, 0),
        )
        made.raw, made.of_host = raw, False
        return made

    def __repr__(self, *, tensor_contents: object = None) -> str:
        return f"{NAME}({self.raw!r})"

    def tolist(self) -> Any:
        return self.to("cpu").tolist()

    def numpy(self, *, force: bool = False) -> Any:
        raise TypeError(f"can't convert {NAME} device type tensor to numpy. Use Tensor.cpu() first.")

    def __deepcopy__(self, memo: object) -> Tensor:
        copied = PretendTensor(self.raw.clone())
        return torch.nn.Parameter(copied, self.requires_grad) if isinstance(self, torch.nn.Parameter) else copied

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def raw(tensor: Tensor | None) -> Tensor:
    """A tensor's numbers, without waiting for them."""
    assert tensor is not None
    return tensor.raw if isinstance(tensor, PretendTensor) else tensor


class Pretend(TorchDispatchMode):
    """The device is there inside its block, and what happens on it is counted.

    Attributes:
        now: the one that is entered.
        tally: what was counted so far.
        mixed: what was refused, also where somebody caught the error.
        capturing: the graph that is being captured.
    """

    now: ClassVar["Pretend | None"] = None

    def __init__(self) -> None:
        super().__init__()
        self.tally, self.mixed = Tally(Counter(), Counter()), list[str]()
        self.capturing: Graph | None = None
        self._held = ExitStack()

    def mark(self) -> Tally:
        """The counts of this moment."""
        return Tally(*(counted.copy() for counted in self.tally))

    def launch(self, func: Any, launches: int = 1) -> None:
        """Count kernels."""
        self.tally.kernels[str(func)] += launches

    def wait(self, what: str) -> None:
        """Count a wait of the host.

        Raises:
            Refused: in a capture.
        """
        if self.capturing is not None:
            raise Refused(f"{what} at {place()} makes the host wait, which cannot be captured")
        self.tally.waits[f"{what} at {place()}"] += 1

    def refuse(self, what: str) -> Mixed:
        """The error of an operation that CUDA refuses."""
        self.mixed.append(f"{what} at {place()}")
        return Mixed(self.mixed[-1])

    def carried(self, source: Tensor, *, down: bool, asynchronous: bool) -> None:
        """Count a copy between host and device, which is a wait unless it is asynchronous and from pinned memory.

        Raises:
            Refused: in a capture.
        """
        if self.capturing is not None:
            raise Refused(f"a copy between host and device at {place()} cannot be captured")
        if not (asynchronous and (down or source.is_pinned() or _handed_over())):
            self.wait("a copy to the host" if down else "a copy from pageable memory")

    def __enter__(self) -> "Pretend":
        assert Pretend.now is None, "there is one device"
        _register()
        Pretend.now = self
        pinned: dict[int, Tensor] = {}  # kept alive, so that no other tensor has its memory

        def pin_memory(tensor: Tensor, device: object = None) -> Tensor:
            copy = tensor.clone()
            pinned[copy.untyped_storage().data_ptr()] = copy
            return copy

        # Autograd has a thread for each device that there was when it ran first, and asks for this one's.
        self._held.enter_context(torch.autograd.set_multithreading_enabled(False))
        self._held.enter_context(mock.patch.object(torch, "Generator", _Generator))
        self._held.enter_context(mock.patch.object(Tensor, "pin_memory", pin_memory))
        self._held.enter_context(
            mock.patch.object(Tensor, "is_pinned", lambda tensor: tensor.untyped_storage().data_ptr() in pinned)
        )
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._held.close()
        Pretend.now = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Recorded(NamedTuple):
    """One operation of a captured graph, and the memory that its results are in."""

    func: Any
    args: Any
    kwargs: dict[str, Any]
    out: Any


class Graph:
    """Work that is written down once and done again by one launch, as a CUDA graph.

    What runs on the device inside `capture` is written down, with the very tensors that it read and wrote, and not
    done. `replay` does it on these: whoever wants other inputs copies them into the old ones. Numbers of the host stay
    as they were at the capture. Python code is not run again, so what it counts or decides stays too.
    """

    def __init__(self) -> None:
        self._steps: list[_Recorded] = []
        self._before: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}

    @contextmanager
    def capture(self) -> Iterator[None]:
        """Write down what runs inside.

        Raises:
            Refused: if the host would wait, or copies something to the device or from it.
        """
        accelerator = Pretend.now
        assert accelerator is not None, "a capture needs the device"
        assert accelerator.capturing is None, "one graph is captured at a time"
        accelerator.capturing, self._steps, drawn = self, [], torch.get_rng_state()
        try:
            yield
        finally:
            accelerator.capturing = None
            # To know what it would do it was done.
            for storage, before in self._before.values():
                storage.copy_(before)
            self._before.clear()
            torch.set_rng_state(drawn)

    def replay(self) -> None:
        """Do it all again: one launch."""
        assert Pretend.now is not None, "a graph is gone with its device"
        assert self._steps, "nothing was captured"
        Pretend.now.launch("replay")
        for step in self._steps:
            again = step.func(*step.args, **step.kwargs)
            for old, new in zip(_tensors(step.out), _tensors(again), strict=True):
                if old is not new:
                    old.copy_(new)

    def keep(self, tensors: list[Tensor]) -> None:
        """Remember memory as it is before something is written to it."""
        for storage in (tensor.untyped_storage() for tensor in tensors):
            self._before.setdefault(storage.data_ptr(), (storage, storage.clone()))

    def note(self, func: Any, args: Any, kwargs: dict[str, Any], out: Any) -> None:
        """Write an operation down."""
        if any(isinstance(each, torch._C.Generator) for each in (*args, *kwargs.values())):
            raise Refused(f"{func} at {place()} draws from a generator that a graph does not know")
        self._steps.append(_Recorded(func, args, kwargs, out))


def place() -> str:
    """The innermost line of the package that is running, and the library's that it called."""
    frame, library = sys._getframe(1), ""
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(_ROOT):
            return f"{file.removeprefix(_ROOT)[1:]}:{frame.f_lineno}{library}"
        if not library and "site-packages" in file and "site-packages/torch/" not in file:
            library = f" in {file.partition('site-packages/')[2]}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return f"an unknown place{library}"


def _handed_over() -> bool:
    """Whether the loaders' own function copies, which pins memory where a CUDA device wants it."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename.endswith(_HANDOVER):
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Any operation, on the device or beside it."""
    accelerator = Pretend.now
    assert accelerator is not None, f"{func} on the device that is gone"
    if func is aten._copy_from.default:
        func, args = aten.copy_.default, (args[1], args[0], *args[2:])
    tensors = _tensors((args, kwargs))
    ours = [tensor for tensor in tensors if isinstance(tensor, PretendTensor)]
    target = kwargs.get("device")
    wanted = bool(ours) if target is None else torch.device(target).type == NAME
    if not ours and not wanted:
        return func(*args, **kwargs)
    facts = rules.facts_of(func)
    if func in rules.COPIES:
        _carry(accelerator, func, args, kwargs, wanted)
    else:
        if len(ours) < len(tensors) or facts.name.startswith("_fused"):
            _check(accelerator, func, args, ours, [each for each in tensors if not isinstance(each, PretendTensor)])
        if rules.waits(func, args, kwargs):
            accelerator.wait(str(func))
        if not facts.free:
            accelerator.launch(func, rules.launches(func, args) if facts.lists else 1)

    def numbers(tensor: Tensor) -> Tensor:
        if isinstance(tensor, PretendTensor):
            return tensor.raw
        # A number of the host is baked into a graph, whatever becomes of it.
        return tensor.clone() if accelerator.capturing else tensor

    own = {name: value for name, value in kwargs.items() if name not in ("pin_memory", "non_blocking")}
    if target is not None:
        own["device"] = torch.device("cpu")
    args_raw, kwargs_raw = _mapped(numbers, (args[:2] if func is aten.copy_.default else args, own))
    if accelerator.capturing is not None:
        accelerator.capturing.keep(_tensors([each for number, each in enumerate(args_raw) if number in facts.written]))
    out = func(*args_raw, **kwargs_raw)
    if func is aten._to_copy.default and any(out is tensor.raw for tensor in ours):
        out = out.clone()
    if func in rules.ANSWERS or not wanted:
        return out
    if func in rules.EMPTY and out.is_floating_point():
        out.fill_(math.nan)
    if accelerator.capturing is not None and not facts.view:
        accelerator.capturing.note(func, args_raw, kwargs_raw, out)
    if func is aten.copy_.default:
        return args[0]
    known = {id(tensor.raw): tensor for tensor in ours}
    wrapped = _mapped(lambda tensor: known.get(id(tensor)) if id(tensor) in known else PretendTensor(tensor), out)
    if func is aten.scalar_tensor.default:
        wrapped.of_host = True
    if not facts.aliases or torch.Tag.inplace_view in func.tags or not ours:
        return wrapped
    return return_and_correct_aliasing(func, args, kwargs, wrapped)


def _run_unseen(func: Any, *args: Any, **kwargs: Any) -> Any:
    return _run(func, args, kwargs)


def _mapped(change: Callable[[Tensor], Any], tree: Any) -> Any:
    """What `change` makes of every tensor in the arguments or the results of an operation."""
    if isinstance(tree, Tensor):
        return change(tree)
    if isinstance(tree, (list, tuple)):
        return type(tree)([_mapped(change, each) for each in tree])
    return {name: _mapped(change, each) for name, each in tree.items()} if isinstance(tree, dict) else tree


def _tensors(tree: Any) -> list[Tensor]:
    found: list[Tensor] = []
    _mapped(found.append, tree)
    return found


def _carry(accelerator: Pretend, func: Any, args: Any, kwargs: dict[str, Any], wanted: bool) -> None:
    """Count a copy: within the device it is a kernel."""
    there = wanted if func is aten._to_copy.default else isinstance(args[0], PretendTensor)
    source = args[0] if func is aten._to_copy.default else args[1]
    later = kwargs.get("non_blocking", args[2] if len(args) > 2 else False)
    if there == isinstance(source, PretendTensor):
        accelerator.launch(func)
    else:
        accelerator.carried(source, down=not there, asynchronous=later)


def _check(accelerator: Pretend, func: Any, args: Any, ours: list[Any], others: list[Tensor]) -> None:
    """Refuse what CUDA refuses.

    Raises:
        Mixed: telling the operands.
    """
    name, facts = func.overloadpacket.__name__, rules.facts_of(func)
    written = {id(given) for number, given in enumerate(args) if number in facts.written}
    indices = {id(index) for index in args[1] or ()} if name in ("index", "index_put", "index_put_") else set()
    takes = torch.Tag.pointwise in func.tags or name.startswith(("_foreach", "_fused", "fill", "index_put", "where"))
    for other in others if ours else ():
        if id(other) in indices:
            accelerator.carried(other, down=False, asynchronous=False)
        elif other.dim() or id(other) in written or not takes:
            shapes = [tuple(tensor.shape) for tensor in ours[:3]]
            raise accelerator.refuse(f"{func} of {tuple(other.shape)} on the CPU with {shapes} on the device")
    if name.startswith("_fused"):
        lists = [given for given in args if isinstance(given, (list, tuple)) and len(given) == len(args[0])]
        for column in zip(*(each for each in lists if each and each[0].shape == args[0][0].shape), strict=True):
            if len({rules.strides(tensor) for tensor in column}) > 1:
                told = [tensor.stride() for tensor in column]
                raise accelerator.refuse(f"{func} of {tuple(column[0].shape)} with strides {told}")
