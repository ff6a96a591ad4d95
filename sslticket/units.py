"""Lengths of training as the papers write them, and the clock that turns them into samples seen and optimiser steps."""

import math
import re
from dataclasses import dataclass
from typing import Literal, cast

from sslticket.errors import BadInput

Unit = Literal["ep", "it", "samples", "%"]


@dataclass(frozen=True)
class Span:
    """A length of training: "90ep", "2500it", "3840000samples", or "15%" of the whole training."""

    amount: float
    unit: Unit

    @classmethod
    def parse(cls, text: str) -> "Span":
        """Read "90ep", "0.5ep", "2500it", "3840000samples" or "15%" (underscores allowed).

        Raises:
            BadInput: if the text is none of these.
        """
        match = re.fullmatch(r"(\d[\d_]*(?:\.\d+)?)(ep|it|samples|%)", text.strip())
        if match is None:
            raise BadInput(f"{text!r} is no length of training; write it like 90ep, 2500it or 3840000samples")
        amount, unit = float(match[1].replace("_", "")), cast(Unit, match[2])
        if unit in ("it", "samples") and amount != int(amount):
            raise BadInput(f"{text!r} is no length of training; only epochs and percentages can be fractions")
        return cls(amount, unit)

    def __str__(self) -> str:
        return f"{self.amount:.10g}{self.unit}"


@dataclass(frozen=True)
class Clock:
    """Samples seen and optimiser steps of one training.

    An epoch is as many samples as the training set holds: batches may straddle two epochs and no image is dropped.

    Attributes:
        length: the whole training; not in percent.
        batch_size: images in a global batch.
        set_size: images in the training set; with two streams, samples of both while the labelled one is seen once.
    """

    length: Span
    batch_size: int
    set_size: int

    def samples(self, span: Span) -> float:
        """Samples seen after this span."""
        if span.unit == "%":
            assert self.length.unit != "%", "the length itself cannot be a share of the length"
            return span.amount / 100 * self.samples(self.length)
        return span.amount * {"ep": self.set_size, "it": self.batch_size, "samples": 1}[span.unit]

    def steps(self, span: Span) -> int:
        """Optimiser steps: up to the end of the first step at which at least this many samples have been seen."""
        # The slack keeps 0.1ep of 1,000 images at 100 a batch from becoming two steps through rounding.
        return math.ceil(self.samples(span) / self.batch_size - 1e-6)

    @property
    def total(self) -> int:
        """Optimiser steps of the whole training."""
        return self.steps(self.length)


def duration(seconds: float) -> str:
    """A length of time to two units: "45 s", "3 min 20 s", "2 h 05 min", "4 d 12 h"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"
