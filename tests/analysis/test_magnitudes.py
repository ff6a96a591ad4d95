"""Weights by their magnitudes, and those that are zero by nature."""

import math
import shutil
from pathlib import Path

import pytest
import torch

from sslticket.analysis.trained_weights import Magnitudes
from sslticket.config.runtime import RuntimeConfig
from sslticket.config.training import SGD, TrainConfig
from sslticket.evaluation.protocols import Protocol
from sslticket.evaluation.tasks import Levels, find_ticket_files
from sslticket.pruning.prunable import LOG_BIN_WIDTH, MACHINE_PRECISION, count_above_precision, magnitude_histogram
from sslticket.training.engine import Engine
from tests.runs import search

SHORT = Protocol(
    name="short", dataset="digits", training=TrainConfig(length="6it", batch_size=64, optimizer=SGD(lr=0.1))
)


def test_weights_are_counted_by_the_logarithm_of_their_magnitude() -> None:
    eps = MACHINE_PRECISION
    found = magnitude_histogram([torch.tensor([0.0, eps, -eps]), torch.tensor([[eps * 1.01, -eps * 1.9, 0.0]])])
    assert found["zeros"] == 2
    assert found["counts"] == [2, 1, 0, 1], "up to machine precision, just above it, and log10(1.9) = 0.279 above it"
    assert found["bins"] == pytest.approx([math.log10(eps) + LOG_BIN_WIDTH * n for n in (-1, 0, 1, 2, 3)], abs=1e-5)
    assert count_above_precision(torch.tensor([0.0, eps, -eps, eps * 1.01, -1.0])) == 2
    assert magnitude_histogram([torch.zeros(3)]) == {"bins": [], "counts": [], "zeros": 3}


def test_every_weight_is_in_the_histogram_and_those_above_machine_precision_are_natural(tmp_path: Path) -> None:
    run = search(tmp_path).run_dir.path
    rows = list(
        Magnitudes().rows(find_ticket_files([run], Levels((0, 2))), SHORT, [0], Engine.create(RuntimeConfig(), "fp32"))
    )
    for row, kept in zip(rows, (13_968, 3492), strict=True):
        assert (sum(row["counts"]) + row["zeros"], row["zeros"]) == (13_968, 13_968 - kept)
        assert len(row["bins"]) == len(row["counts"]) + 1
        edge = math.log10(MACHINE_PRECISION)
        natural = sum(n for low, n in zip(row["bins"], row["counts"], strict=False) if low > edge - LOG_BIN_WIDTH / 2)
        assert row["natural_density"] == natural / 13_968 <= kept / 13_968
        assert sum(count for count, _ in row["layers"].values()) == natural
        assert sum(total for _, total in row["layers"].values()) == 13_968
    shutil.rmtree(run / "endpoints")
