"""A tracker of one's own: the loss and the metrics of each training in a CSV file of the run's folder.

Run       python recipes/supervised_digits.py --log examples/csv_tracker.py:CSVTracker
"""

import csv
from collections.abc import Mapping
from pathlib import Path

from sslticket.training.progress import ProgressUpdate, Tracker


class CSVTracker(Tracker):
    """Writes RUN/curves/NAME.csv with the columns samples, quantity and value."""

    def __init__(self, run: Path, name: str) -> None:
        super().__init__(run, name)
        (run / "curves").mkdir(exist_ok=True)
        self._file = (run / "curves" / f"{name}.csv").open("w", encoding="utf-8", newline="")
        self._writer = csv.writer(self._file)
        self._writer.writerow(["samples", "quantity", "value"])

    def log_progress(self, update: ProgressUpdate) -> None:
        """Write loss and learning rate."""
        self._writer.writerows([[update.samples, "loss", update.loss], [update.samples, "lr", update.lr]])

    def log_metrics(self, samples: int, values: Mapping[str, float]) -> None:
        """Write each metric."""
        self._writer.writerows([samples, quantity, value] for quantity, value in values.items())

    def close(self) -> None:
        """Close the file."""
        self._file.close()
