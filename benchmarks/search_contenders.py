"""The searches that `search_cost` times: `search_contenders.py ours|open_lth|TurboPrune ROOT [FLAG ...]`.

Prints its time of the processor, and top-1 of the last training on the evaluation images. An early bird's trainings are
cut short; there it is top-1 of the last training's ticket when that is trained to its end, which is not timed.

open_lth and TurboPrune are imported from the clones that OPEN_LTH and TURBOPRUNE name. They are given CIFAR-10's arrays
as we decode them, in place of what they would download; everything else, from batches to checkpoints, is their own
code. TurboPrune names CUDA devices and logs to the network: where there is no card its device is replaced by the CPU,
and its loggers by ones that do nothing.
"""

import contextlib
import copy
import json
import math
import os
import resource
import sys
import time
import types
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

BATCH, STEPS, LEVELS, REWIND, RATE, LR, DECAY, DROP = 64, 300, 3, 50, 0.2, 0.05, 1e-4, 200
WIDTHS = (4, 8, 16)


def main(words: list[str]) -> int:
    """Search as the first word says; returns the exit code."""
    name, root, *flags = words
    with contextlib.redirect_stdout(sys.stderr):
        found = {"ours": ours, "open_lth": open_lth, "TurboPrune": turboprune}[name](Path(root), flags)
    print(json.dumps(found))
    return 0


def found_after(top: float) -> dict[str, float]:
    """What a search prints: the processor's time of this process and its children up to now, and its accuracy."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"seconds": time.process_time() + children.ru_utime + children.ru_stime, "top1": top}


def resnet8_narrow(channels: int, image_size: int) -> Any:
    """The backbone of ours and of TurboPrune's; open_lth has the same as cifar_resnet_8_4."""
    from sslticket.models.paper_networks import BasicBlock, ResNet

    return ResNet(channels, BasicBlock, (1, 1, 1), WIDTHS, small_images=True)


def ours(root: Path, flags: list[str]) -> dict[str, float]:
    """The recipe as a script, which the command line's own parser is given."""
    from sslticket import IMP, SGD, Data, Recipe, Supervised, TrainConfig, View, run
    from sslticket.cli import commands

    recipe = Recipe(
        model=f"{Path(__file__).resolve()}:resnet8_narrow",
        data=Data(dataset="cifar10", augment=View(size=32, crop="pad", pad=4, flip=True)),
        objective=Supervised(),
        training=TrainConfig(
            length=f"{STEPS}it", batch_size=BATCH, optimizer=SGD(lr=LR, weight_decay=DECAY), drops=(f"{DROP}it",)
        ),
        search=IMP(levels=LEVELS, rate=RATE, rewind=f"{REWIND}it"),
    )
    sys.argv = ["recipe.py", "--data-root", str(root), "--out", "runs", "--threads", "1", *flags]
    with contextlib.suppress(SystemExit):  # a search that fails leaves no row of its last level
        run(recipe)
    found = found_after(math.nan)
    if "--early-bird" in flags:
        (folder,) = Path("runs").iterdir()
        sys.argv = ["sslticket", "evaluate", str(folder), "--protocol", "own@k", "--levels", str(LEVELS - 1)]
        sys.argv += ["--seeds", "0", "--data-root", str(root), "--threads", "1"]
        with contextlib.suppress(SystemExit):
            commands.main()
    rows = [json.loads(path.read_text()) for path in Path("runs").glob("*/rows/*.jsonl")]
    if "--early-bird" in flags:
        return found | {"top1": next(row["top1"] for row in rows if row["kind"] == "score")}
    return found | {"top1": next(row["metrics"]["top1"] for row in rows if row["level"] == LEVELS)}


def _arrays(root: Path, split: str) -> tuple[Any, Any]:
    import numpy as np

    from sslticket.data.source import open_split

    source = open_split("cifar10", "train" if split == "train" else "eval", root)
    assert source.images is not None
    return np.array(source.images), np.asarray(source.manifest.labels)


def open_lth(root: Path, flags: list[str]) -> dict[str, float]:
    """Its LotteryRunner, with levels 0, 1 and 2."""
    import torch

    torch.set_num_threads(1)
    sys.path.insert(0, os.environ["OPEN_LTH"])
    sys.argv = ["open_lth.py"]
    from torchvision import transforms

    cifar10 = import_module("datasets.cifar10")

    class Here(import_module("platforms.local").Platform):  # type: ignore[misc]
        root = property(lambda self: "open_lth")

    augment = [transforms.RandomHorizontalFlip(), transforms.RandomCrop(32, 4)]
    cifar10.Dataset.get_train_set = staticmethod(lambda use: cifar10.Dataset(*_arrays(root, "train"), augment))
    cifar10.Dataset.get_test_set = staticmethod(lambda: cifar10.Dataset(*_arrays(root, "test")))
    setattr(import_module("platforms.platform"), "_PLATFORM", Here())  # noqa: B010  # whose type nobody knows
    defaults = import_module("models.cifar_resnet").Model.default_hparams()
    model, training = defaults.model_hparams, defaults.training_hparams
    model.model_name = f"cifar_resnet_8_{WIDTHS[0]}"
    training.lr, training.weight_decay = LR, DECAY
    training.training_steps, training.milestone_steps = f"{STEPS}it", f"{DROP}it"
    training.data_order_seed = 1
    images = import_module("foundations.hparams").DatasetHparams("cifar10", BATCH)
    pruning = import_module("pruning.sparse_global").PruningHparams("sparse_global", pruning_fraction=RATE)
    rewinding = copy.copy(training)
    rewinding.training_steps = f"{REWIND}it"
    lottery = import_module("lottery.desc").LotteryDesc(model, images, training, pruning, images, rewinding)
    import_module("lottery.runner").LotteryRunner(1, LEVELS - 1, lottery, verbose=False).run()
    log = Path(lottery.run_path(1, LEVELS - 1)) / "logger"
    accuracies = [line.split(",") for line in log.read_text().splitlines() if line.startswith("test_accuracy")]
    return found_after(float(accuracies[-1][-1]))


def turboprune(root: Path, flags: list[str]) -> dict[str, float]:
    """Its harness, level by level as its run_experiment.py does it."""
    import pandas
    import torch
    import torchvision

    torch.set_num_threads(1)
    sys.path.insert(0, os.environ["TURBOPRUNE"])
    _stand_in("wandb", log=lambda *given, **named: None)
    _stand_in("fastargs", get_current_config=lambda: None)
    _stand_in("webdataset")
    _stand_in("prettytable", PrettyTable=_Table)
    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    load = torch.load
    torch.load = lambda *given, **named: load(*given, **{**named, "map_location": device})

    def narrow(weights: None = None) -> torch.nn.Module:
        return torch.nn.Sequential(resnet8_narrow(3, 32), torch.nn.Linear(WIDTHS[-1], 10))

    torchvision.models.narrow = narrow
    data = Path("data/cifar10")
    data.mkdir(parents=True)
    for split, count in (("train", STEPS * BATCH), ("test", None)):
        pixels, labels = _arrays(root, split)
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))[:count]
        saved = {"images": torch.tensor(pixels)[order], "labels": torch.tensor(labels)[order], "classes": []}
        torch.save(saved, data / f"CIFAR10_{split}.pt")

    harnesses = import_module("harness_definitions.standard_pruning_harness")
    tools, pruning = import_module("utils.harness_utils"), import_module("utils.pruning_utils")

    class Here(harnesses.PruningHarness):  # type: ignore[misc,name-defined]
        def __init__(self, cfg: Any, expt_dir: tuple[str, str], model: Any = None) -> None:
            self.gpu_id, self.dataset_name, self.use_compile, self.num_classes = 0, "cifar10", False, 10
            self.this_device, (self.prefix, self.expt_dir) = device, expt_dir
            harnesses.BaseHarness.__init__(self, cfg=cfg, device=device.partition(":")[0], model=model)

    settings = import_module("omegaconf").OmegaConf.create(
        {
            "dataset_params": {"dataset_name": "CIFAR10", "data_root_dir": "data", "total_batch_size": BATCH},
            "model_params": {"model_name": "narrow", "mask_layer_type": "ConvMask", "use_compile": False},
            "experiment_params": {
                "seed": 0,
                "base_dir": "experiments",
                "epochs_per_level": 1,
                "training_precision": "float32",
                "distributed": False,
            },
            "optimizer_params": {
                "lr": LR,
                "momentum": 0.9,
                "weight_decay": DECAY,
                "scheduler_type": "TriangularSchedule",
                "warmup_fraction": 0.2,
            },
            "pruning_params": {
                "prune_method": "mag",
                "prune_rate": RATE,
                "target_sparsity": 1 - (1 - RATE) ** (LEVELS - 1) + 1e-6,
                "training_type": "imp",
            },
        }
    )
    packaged = tools.gen_expt_dir(settings)
    harness = Here(settings, packaged)
    model = harness.model
    top = 0.0
    for level, density in enumerate(tools.generate_densities(settings, model.get_overall_sparsity())[:LEVELS]):
        if level:
            model.load_model(f"{packaged[1]}/checkpoints/model_level_{level - 1}.pt")
            pruning.prune_the_model(cfg=settings, harness=harness, target_density=density)
            model.reset_weights(cfg=settings, expt_dir=packaged[1])
        harness = Here(settings, packaged, model)
        harness.train_one_level(epochs_per_level=1, level=level)
        tools.save_model(model, f"{packaged[1]}/checkpoints/model_level_{level}.pt", distributed=False)
        told = pandas.read_csv(f"{packaged[1]}/metrics/level_wise_metrics/level_{level}_metrics.csv")
        top = float(told["test_acc"].iloc[-1]) / 100
    return found_after(top)


class _Table:
    """Takes rows and shows nothing."""

    def __init__(self) -> None:
        self.align: dict[str, str] = {}

    def add_row(self, row: list[str]) -> None:
        """Nothing."""

    def __iter__(self) -> Iterator[str]:
        return iter(())


def _stand_in(name: str, **members: Any) -> None:
    """A module that does nothing, where the real one is not installed or would use the network."""
    if name == "wandb" or find_spec(name) is None:
        module = types.ModuleType(name)
        for key, member in members.items():
            setattr(module, key, member)
        sys.modules[name] = module


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
