"""What tickets are like, beyond what they score: each analysis makes rows from finished tickets."""

from typing import Any

from sslticket.registry import Registry

ANALYSES: Registry[Any] = Registry(
    "analysis",
    {
        "stability": "sslticket.analysis.trained_weights:Stability",
        "connectivity": "sslticket.analysis.connectivity:Connectivity",
        "magnitudes": "sslticket.analysis.trained_weights:Magnitudes",
        "overlap": "sslticket.analysis.overlap:Overlap",
        "channels": "sslticket.analysis.overlap:DeadChannels",
    },
    base="sslticket.analysis.base:Analysis",
)
"""Subclasses of `Analysis`, by the names of their commands."""
