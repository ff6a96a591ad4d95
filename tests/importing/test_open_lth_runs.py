"""Folders as open_lth leaves them become tickets of one search; shapes map names where these differ."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sslticket import models
from sslticket.errors import BadInput
from sslticket.evaluation.controls import find_dense_ticket
from sslticket.importing.importer import Origin, import_tickets
from sslticket.importing.matching import match_names
from sslticket.importing.open_lth import OpenLTHRun, Step
from sslticket.ticket import Ticket

_SETTINGS = """Dataset Hyperparameters
    * dataset_name => cifar10
    * batch_size => 128
Model Hyperparameters
    * model_name => cifar_resnet_20
    * model_init => kaiming_normal
{before}Pruning Hyperparameters
    * pruning_strategy => sparse_global
    * pruning_fraction => 0.5
Training Hyperparameters
    * optimizer_name => sgd
    * lr => 0.1
    * training_steps => 160ep"""
_BEFORE = """Pretraining Dataset Hyperparameters
    * dataset_name => cifar10
    * batch_size => 64
Pretraining Training Hyperparameters
    * optimizer_name => sgd
    * lr => 0.1
    * training_steps => 100it
"""


def their_name(name: str) -> str:
    """The name that open_lth has for a tensor of our ResNet-20."""
    name = re.sub(r"^(conv|bn)1\b", r"\1", name)
    name = re.sub(r"^layer(\d)\.(\d)", lambda each: f"blocks.{3 * int(each[1]) - 3 + int(each[2])}", name)
    return name.replace("downsample", "shortcut")


def their_state(seed: int) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    backbone = models.create_model("resnet20", channels=3, image_size=32)
    state = {their_name(name): value.clone() for name, value in backbone.state_dict().items()}
    return state | {"fc.weight": torch.randn(10, 64), "fc.bias": torch.randn(10)}


@pytest.fixture(scope="module")
def replicate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three levels that are rewound to step 100, in the folders and files of open_lth."""
    home = tmp_path_factory.mktemp("open_lth") / "lottery_ab12" / "replicate_2"
    early, later, initial = their_state(0), their_state(1), their_state(2)
    (home / "level_pretrain" / "main").mkdir(parents=True)
    torch.save(initial, home / "level_pretrain" / "main" / "model_ep0_it0.pth")
    masks = {name: torch.ones_like(value, dtype=torch.int32) for name, value in early.items() if value.dim() > 1}
    for level in range(3):
        place = home / f"level_{level}" / "main"
        place.mkdir(parents=True)
        kept = {name: value * masks[name] if name in masks else value for name, value in early.items()}
        torch.save(masks, place / "mask.pth")
        torch.save(kept, place / "model_ep0_it100.pth")
        torch.save(later, place / "model_ep160_it0.pth")
        masks = {name: mask * (torch.rand(mask.shape) < 0.5).int() for name, mask in masks.items()}
    (home / "level_0" / "main" / "hparams.log").write_text(_SETTINGS.format(before=_BEFORE))
    return home


@pytest.fixture(scope="module")
def run(replicate: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its tickets."""
    out = tmp_path_factory.mktemp("runs") / "theirs"
    assert [path.name for path, _ in import_tickets(replicate, out, Origin())] == [
        *(f"level-{level:02d}.safetensors" for level in range(3)),
        "initial.safetensors",
    ]
    return out


def test_levels_are_masks_and_early_weights_of_open_lth(replicate: Path, run: Path) -> None:
    mask = torch.load(replicate / "level_2" / "main" / "mask.pth", weights_only=True)
    early = torch.load(replicate / "level_0" / "main" / "model_ep0_it100.pth", weights_only=True)
    ticket = Ticket.load(run / "tickets" / "level-02.safetensors")
    for name, value in ticket.weights.items():
        theirs = early[their_name(name)]
        if name in ticket.mask:
            assert torch.equal(ticket.mask[name], mask[their_name(name)] != 0)
            theirs = theirs * ticket.mask[name]
        assert torch.equal(value, theirs)
    assert torch.equal(ticket.head["weight"], early["fc.weight"] * mask["fc.weight"])
    assert (ticket.level, ticket.record.model) == (2, "resnet20")


def test_what_open_lth_tells_is_in_the_ticket_and_the_rest_is_unknown(run: Path) -> None:
    ticket = Ticket.load(run / "tickets" / "level-01.safetensors")
    came = ticket.provenance
    assert (came["dataset"], came["objective"], came["weights"]) == ("cifar10", "supervised", "early")
    assert came["rewind_samples"] == 100 * 64
    assert came["imported"]["unknown"] == ["seed", "images"]
    assert came["imported"]["replicate"] == 2
    assert ticket.recipe["search"] == {"is": "open_lth", "pruning_strategy": "sparse_global", "pruning_fraction": 0.5}
    assert (ticket.recipe["fit"]["lr"], ticket.recipe["fit"]["pretrain_training_steps"]) == (0.1, "100it")
    assert ticket.record.search_name == "open_lth"


def test_dense_and_initial_tickets_serve_controls_as_those_of_a_search_do(replicate: Path, run: Path) -> None:
    assert find_dense_ticket(run / "tickets" / "level-02.safetensors").name == "level-00.safetensors"
    initial = torch.load(replicate / "level_pretrain" / "main" / "model_ep0_it0.pth", weights_only=True)
    ticket = Ticket.load(run / "initial.safetensors")
    assert (ticket.provenance["weights"], ticket.provenance["rewind_samples"]) == ("initial", 0)
    assert ticket.recipe == Ticket.load(run / "tickets" / "level-02.safetensors").recipe
    assert torch.equal(ticket.weights["conv1.weight"], initial["conv.weight"])


@pytest.mark.parametrize("place", ["level_1", "level_1/main", "."])
def test_a_level_of_its_own_is_the_same_ticket(place: str, replicate: Path, run: Path, tmp_path: Path) -> None:
    level = 1 if place == "." else None
    (path, ticket), *others = import_tickets(replicate / place, tmp_path / "one.safetensors", Origin(level=level))
    assert not others
    assert ticket.hash == Ticket.load(path).hash == Ticket.load(run / "tickets" / "level-01.safetensors").hash


@pytest.mark.parametrize(
    ("settings", "step", "samples"),
    [
        ({"batch_size": 128, "dataset_name": "cifar10"}, Step(0, 7), 896),
        ({"batch_size": 128, "dataset_name": "cifar10"}, Step(2, 7), 2 * 50_000 + 896),
        ({"batch_size": 128, "dataset_name": "cifar10", "subsample_fraction": 0.5}, Step(2, 7), None),
        ({"batch_size": 128, "dataset_name": "else"}, Step(2, 7), None),
        ({"batch_size": 128, "pretrain_batch_size": 32, "pretrain_dataset_name": "mnist"}, Step(0, 7), 224),
        ({}, Step(0, 0), 0),
        ({}, Step(0, 7), None),
    ],
)
def test_images_seen_at_a_step_are_counted_or_unknown(
    settings: dict[str, str | int | float], step: Step, samples: int | None
) -> None:
    assert OpenLTHRun(levels=(), settings=settings).samples_at(step) == samples


def test_folders_that_are_none_or_several_are_refused(replicate: Path, tmp_path: Path) -> None:
    for source, origin, words in (
        (tmp_path, Origin(), "is no folder of open_lth"),
        (replicate, Origin(level=7), "has no level 7, its levels are 0, 1, 2"),
        (replicate, Origin(early=replicate), "--early is for files without W_k"),
        (replicate, Origin(model="resnet50"), "is of another network than resnet50"),
    ):
        with pytest.raises(BadInput, match=words):
            list(import_tickets(source, tmp_path / "out", origin))
    with pytest.raises(BadInput, match=r"holds 3 tickets, and .* is one file"):
        list(import_tickets(replicate, tmp_path / "a.safetensors", Origin()))
    (tmp_path / "replicate_1").mkdir()
    (tmp_path / "replicate_3").mkdir()
    with pytest.raises(BadInput, match="holds 2 replicates; give one of them"):
        list(import_tickets(tmp_path, tmp_path / "out", Origin()))
    assert not (tmp_path / "out").exists()


def layers(*names: str, side: int = 4) -> dict[str, Tensor]:
    return {f"{name}.weight": torch.zeros(side, side) for name in names}


def test_shapes_decide_only_where_they_leave_one_way() -> None:
    ours = {"a.weight": torch.zeros(4, 8), "b.weight": torch.zeros(8, 8), "c.weight": torch.zeros(8, 2)}
    theirs = {"z.weight": torch.zeros(8, 2), "x.weight": torch.zeros(4, 8), "y.weight": torch.zeros(8, 8)}
    found = match_names(theirs, ours, place="it", model="net")
    assert (found.by, found.names["a.weight"], found.names["c.weight"]) == ("shape", "x.weight", "z.weight")
    ordered = match_names(layers("one", "two"), layers("1", "2"), place="it", model="net")
    assert ordered.names == {"1.weight": "one.weight", "2.weight": "two.weight"}
    for theirs, ours in (
        # One by name, two by shape: the order contradicts the names.
        (layers("block.query", "block.key"), layers("attention.key", "attention.query")),
        # Two alike in another order.
        ({**layers("x", side=2), **layers("y", "z")}, {**layers("a", "b"), **layers("c", side=2)}),
    ):
        with pytest.raises(BadInput, match=r"ambiguous.*give a --model file.py:function"):
            match_names(theirs, ours, place="it", model="net")
    with pytest.raises(BadInput, match=r"it is of another network than net: b.weight is \(3, 3\) there, b.weight"):
        match_names(layers("b", side=3), layers("b", "c", side=4), place="it", model="net")


_REAL = """
import copy, sys, json, torch
from importlib import import_module
from pathlib import Path
import numpy as np
sys.path.insert(0, sys.argv[1])
out, images, labels = sys.argv[2], *torch.load(sys.argv[3], weights_only=True)
images, labels = images.numpy(), labels.numpy()
sys.argv = ["open_lth.py"]
torch.set_num_threads(1)
cifar10 = import_module("datasets.cifar10")
cifar10.Dataset.get_train_set = staticmethod(lambda use: cifar10.Dataset(images, labels, []))
cifar10.Dataset.get_test_set = staticmethod(lambda: cifar10.Dataset(images, labels))
cifar10.Dataset.num_train_examples = staticmethod(lambda: len(labels))

class Here(import_module("platforms.local").Platform):
    root = property(lambda self: out)

setattr(import_module("platforms.platform"), "_PLATFORM", Here())
defaults = import_module("models.cifar_resnet").Model.default_hparams()
defaults.model_hparams.model_name = "cifar_resnet_20"
training = defaults.training_hparams
training.training_steps, training.milestone_steps, training.lr = "6it", "5it", 0.05
data = import_module("foundations.hparams").DatasetHparams("cifar10", 20)
pruning = import_module("pruning.sparse_global").PruningHparams("sparse_global", pruning_fraction=0.5)
before = copy.copy(training)
before.training_steps = "2it"
desc = import_module("lottery.desc").LotteryDesc(defaults.model_hparams, data, training, pruning, data, before)
import_module("lottery.runner").LotteryRunner(1, 1, desc, verbose=False).run()
place = desc.run_path(1, 1)
registry, mask = import_module("models.registry"), import_module("pruning.mask").Mask.load(place)
model = registry.load(place, desc.train_start_step, desc.model_hparams, 10)
model = import_module("pruning.pruned_model").PrunedModel(model, mask).eval()
loader = import_module("datasets.registry").get(data, train=False)
shown = [batch for batch, _ in loader]
with torch.no_grad():
    torch.save((torch.cat(shown), torch.cat([model(batch) for batch in shown])), Path(out) / "computed.pt")
print(desc.run_path(1, 1))
"""


@pytest.mark.skipif("OPEN_LTH" not in os.environ, reason="set OPEN_LTH to a clone of open_lth that runs on this torch")
def test_a_run_of_open_lth_itself_computes_what_it_did_there(few_cifar: Path, tmp_path: Path) -> None:

    (tmp_path / "cifar10").symlink_to(few_cifar)
    from numpy import asarray
    from PIL import Image

    files = sorted((few_cifar / "train").glob("*/*.jpg")) if (few_cifar / "train").is_dir() else []
    files = files or sorted(few_cifar.glob("**/train/*/*.jpg"))
    names = sorted({path.parent.name for path in files})
    images = torch.stack([torch.tensor(asarray(Image.open(path).convert("RGB"))) for path in files])
    torch.save((images, torch.tensor([names.index(path.parent.name) for path in files])), tmp_path / "images.pt")
    words = [sys.executable, "-c", _REAL, os.environ["OPEN_LTH"], str(tmp_path / "runs"), str(tmp_path / "images.pt")]
    place = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()[-1]
    ((_, ticket),) = import_tickets(Path(place), tmp_path / "ticket.safetensors", Origin())
    shown, theirs = torch.load(tmp_path / "runs" / "computed.pt", weights_only=True)
    backbone = ticket.apply(models.create_model("resnet20", channels=3, image_size=32)).eval()
    head = nn.Linear(64, 10)
    head.load_state_dict(ticket.head)
    with torch.no_grad():
        ours = head(backbone(shown))
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert torch.equal(ours.argmax(1), theirs.argmax(1))
    assert ticket.provenance["rewind_samples"] == 40
