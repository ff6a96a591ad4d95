"""Lottery tickets from limited or no supervision: the names that recipes and notebooks use.

`__init__.pyi` lists them. Each is imported when it is first asked for, so that `import sslticket` costs nothing and
`sslticket --help` needs no torch.
"""

import sys
from contextlib import nullcontext
from typing import Any

import lazy_loader

from sslticket.processes.signals import quiet_exit_during_imports

_FORMER_NAMES = {"Fit": "TrainConfig"}
"""Names of earlier versions, by which recipes of that time import what has another name now."""

_import_attribute, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    if name not in (*__all__, *_FORMER_NAMES):
        raise AttributeError(f"module 'sslticket' has no attribute {name!r}")
    with quiet_exit_during_imports() if _in_script() else nullcontext():
        return _import_attribute(_FORMER_NAMES.get(name, name))


def _in_script() -> bool:
    """Whether a script imports from here: a recipe is a command from its first line on."""
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("importlib"):
        frame = frame.f_back
    return bool(frame.f_globals.get("__name__") == "__main__")
