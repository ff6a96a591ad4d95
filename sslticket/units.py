"""Lengths of training as the papers write them: epochs, iterations or samples seen."""

import math
import re
from dataclasses import dataclass
from typing import Literal, cast

from sslticket.errors import BadInput

Unit = Literal["ep", "it", "samples"]


@dataclass(frozen=True)
class Span:
    """A length of training: "90ep", "2500it" or "3840000samples".

    An epoch is as many samples as the training set holds, so batches may straddle two epochs and no image is dropped.
    """

    amount: float
    unit: Unit

    @classmethod
    def parse(cls, text: str) -> "Span":
        """Read "90ep", "0.5ep", "2500it" or "3840000samples" (underscores allowed).

        Raises:
            BadInput: if the text is none of these.
        """
        match = re.fullmatch(r"(\d[\d_]*(?:\.\d+)?)(ep|it|samples)", text.strip())
        if match is None:
            raise BadInput(f"{text!r} is no length of training; write it like 90ep, 2500it or 3840000samples")
        amount, unit = float(match[1].replace("_", "")), cast(Unit, match[2])
        if unit != "ep" and amount != int(amount):
            raise BadInput(f"{text!r}: only epochs can be fractions")
        return cls(amount, unit)

    def samples(self, *, batch_size: int, set_size: int) -> float:
        """Samples seen after this span, of a training set of `set_size` images in global batches of `batch_size`."""
        return self.amount * {"ep": set_size, "it": batch_size, "samples": 1}[self.unit]

    def steps(self, *, batch_size: int, set_size: int) -> int:
        """Optimiser steps: the first step at whose end at least this many samples have been seen."""
        # The tiny slack keeps 0.1ep of 1000 at 100 a batch from becoming two steps through rounding.
        return math.ceil(self.samples(batch_size=batch_size, set_size=set_size) / batch_size - 1e-9)

    def __str__(self) -> str:
        return f"{self.amount:g}{self.unit}" if self.unit == "ep" else f"{int(self.amount)}{self.unit}"
