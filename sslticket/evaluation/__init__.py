"""Fixed supervised protocols that score tickets beside random ones: the yardstick.

`sslticket.evaluation.jobs.evaluate_tasks` measures tasks: each a ticket, or a control of it, under a protocol with a
seed.
"""

from typing import Any

from sslticket.registry import Registry

_CONTROLS = "sslticket.evaluation.controls"

CONTROLS: Registry[Any] = Registry(
    "control",
    {
        "random": f"{_CONTROLS}:Random",
        "preserved": f"{_CONTROLS}:Preserved",
        "local": f"{_CONTROLS}:Local",
        "adjusted": f"{_CONTROLS}:Adjusted",
        "reset": f"{_CONTROLS}:Reset",
        "permuted": f"{_CONTROLS}:Permuted",
    },
    base=f"{_CONTROLS}:Control",
)
"""Subclasses of `Control`: networks that a ticket is compared with."""

PROTOCOLS: Registry[Any] = Registry("protocol", {}, base="sslticket.evaluation.protocols:Protocol")
"""Instances of `Protocol` from outside the package; those of the package are constants of the module `protocols`."""
