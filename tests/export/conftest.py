import json
from pathlib import Path

import pytest
import torch

from sslticket import models
from sslticket.config.runtime import RuntimeConfig
from sslticket.config.training import SGD, TrainConfig
from sslticket.evaluation import tasks
from sslticket.evaluation.jobs import evaluate_tasks
from sslticket.evaluation.protocols import Protocol
from sslticket.objectives.rotnet import RotNet
from sslticket.pruning import pruned_model
from sslticket.pruning.mask import Mask
from sslticket.pruning.prunable import prunable_weights
from sslticket.storage.files import write_row
from sslticket.ticket import Ticket
from sslticket.training.engine import Engine
from tests.runs import recipe, search

SHORT = Protocol(
    name="short", dataset="digits", training=TrainConfig(length="6it", batch_size=32, optimizer=SGD(lr=0.1))
)
COMMAND = "/home/me/recipes/mine.py --data-root /secret/digits --out=../there --subset 0.5"


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search on digits with two measurements of its first and its last ticket."""
    folder = search(tmp_path_factory.mktemp("runs"), recipe(RotNet())).run_dir.path
    matrix = tasks.make_tasks(tasks.find_ticket_files([folder], tasks.Levels((0, 3))), ["random"], [SHORT], [0, 1])
    assert len(list(evaluate_tasks(matrix, Engine.create(RuntimeConfig(), "fp32")))) == 8
    row = folder / "rows" / "search.level-03.jsonl"
    write_row(row, json.loads(row.read_text()) | {"command": COMMAND})
    return folder


@pytest.fixture
def file(run: Path) -> Path:
    """Its last ticket."""
    return run / "tickets" / "level-03.safetensors"


def made(model: str, dataset: str, *, channels: int = 3, image_size: int = 32) -> Ticket:
    """A ticket of a model, of a fifth of its weights, that no search has found but looks as if one had."""
    torch.manual_seed(0)
    backbone = models.create_model(model, channels=channels, image_size=image_size)
    state, names = pruned_model.read_state(backbone), prunable_weights(backbone)
    whole = Mask.ones_like(state, names)
    mask = Mask.top({name: torch.rand_like(state[name]) for name in names}, keep=whole.total // 5, within=whole)
    data = {"dataset": dataset, "subset": 0.1, "subset_by": "samples", "image_size": image_size, "augment": None}
    came = {"dataset": dataset, "images": 5000, "classes": 10, "data_hash": "ab12", "objective": "rotnet", "seed": 0}
    came |= {"rewind_samples": 64, "search_samples": 320, "versions": {"torch": "2"}, "commit": ""}
    return Ticket.from_dense_weights(mask, state, level=3, recipe={"model": model, "data": data}, provenance=came)
