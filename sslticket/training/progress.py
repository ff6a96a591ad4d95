"""Live progress on the terminal: level, step, samples a second, loss, time left."""

import sys
from types import TracebackType

from tqdm import tqdm


class Progress:
    """One bar over all the samples of a search or a matrix of evaluations; silent on all processes but the first."""

    def __init__(self, samples: int, *, done: int = 0, show: bool = True) -> None:
        # On a terminal the bar is redrawn in place; in a log file each redraw is a line, so one every half minute.
        interval = 0.2 if sys.stderr.isatty() else 30.0
        self._bar = tqdm(
            total=samples,
            initial=done,
            unit=" samples",
            unit_scale=True,
            # tqdm's own format would turn a slow rate into seconds a sample.
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, "
            "{rate_noinv_fmt}{postfix}]",
            dynamic_ncols=True,
            mininterval=interval,
            maxinterval=max(interval, 10.0),
            disable=not show,
            file=sys.stderr,
        )
        self._task, self._steps, self._probed = "", 0, ""

    def task(self, name: str, steps: int) -> None:
        """Say what is being trained and over how many steps."""
        self._task, self._steps = name, steps

    def advance(self, step: int, samples: int) -> None:
        """One step of `samples` images is done."""
        self._bar.set_description_str(f"{self._task} step {step}/{self._steps}", refresh=False)
        self._bar.update(samples)

    def loss(self, value: float) -> None:
        """The latest loss."""
        self._bar.set_postfix_str(f"loss {value:.4g}{self._probed}", refresh=False)

    def probe(self, accuracy: float) -> None:
        """The latest accuracy of the nearest-neighbour probe, a fraction."""
        self._probed = f", nearest neighbours {accuracy:.1%}"

    def note(self, text: str) -> None:
        """A line above the bar."""
        if not self._bar.disable:
            self._bar.write(text, file=sys.stderr)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
