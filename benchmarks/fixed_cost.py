"""What a scored training costs beside its steps: a training of one step, less the same step and scores in bare torch.

A campaign scores thousands of short trainings, each of which builds, prepares, trains, measures and frees a network.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from compare import Line, Work, alone, in_turn
from images import Images
from torch import nn

from sslticket import models
from sslticket.config.runtime import RuntimeConfig
from sslticket.evaluation.protocols import DIGITS_DEMO
from sslticket.evaluation.trainer import EvalRun, Evaluator, Splits, evaluation_seeds
from sslticket.training.engine import Engine
from sslticket.training.progress import Progress

_ROUNDS, _TRAININGS = 7, 5
_AT_MOST = 0.05  # seconds


def lines(images: Images) -> list[Line]:
    """Conv-3 on digits; the figure is ours less the bare one's in the same round."""
    turns = in_turn({"ours": _ours, "bare": _bare}, _ROUNDS)
    beside = [
        replace(turn, seconds=turn.seconds - bare.seconds)
        for turn, bare in zip(turns["ours"], turns["bare"], strict=True)
    ]
    note = "beyond the same step and scores in bare torch"
    return [alone({"ours": beside}, "fixed cost of a scored training", target=_AT_MOST, per=_TRAININGS, note=note)]


def _ours() -> Work:
    protocol = replace(DIGITS_DEMO, name="one-step", training=replace(DIGITS_DEMO.training, length="1it", drops=()))
    engine, splits = Engine.create(RuntimeConfig(threads=1), "fp32"), Splits.open(protocol, None)
    run = EvalRun(
        protocol=protocol,
        model="conv3",
        channels=1,
        splits=splits,
        seeds=evaluation_seeds(0),
        run=Path(tempfile.mkdtemp(prefix="sslticket-bench-")),
        name="one-step",
    )

    def work() -> None:
        with Progress(10**9, show=False) as progress:
            evaluator = Evaluator(engine, progress)
            for _ in range(_TRAININGS):
                evaluator.train_and_measure(run.build_net(), run)

    return work


def _bare() -> Work:
    splits = Splits.open(DIGITS_DEMO, None)
    (images, labels), (held_out, truth) = (
        (
            torch.tensor(np.asarray(source.images)[source.manifest.array_indices])
            .permute(0, 3, 1, 2)
            .float()
            .div_(255),
            torch.tensor(source.manifest.labels),
        )
        for source in (splits.training, splits.evaluation)
    )

    def work() -> None:
        for _ in range(_TRAININGS):
            backbone = models.create_model("conv3", channels=1, image_size=8)
            features = models.num_features(backbone, channels=1, image_size=8)
            net = nn.Sequential(backbone, nn.Linear(features, 10))
            optimizer = torch.optim.Adam(net.parameters(), lr=3e-3, fused=True)
            F.cross_entropy(net(images[:128]), labels[:128]).backward()
            optimizer.step()
            net.eval()
            with torch.no_grad():
                torch.cat([net(chunk) for chunk in held_out.split(128)]).argmax(1).eq(truth).float().mean().item()

    return work
