"""Every recipe, run for two steps on a few photographs, leaves a ticket that can be loaded and is as sparse as asked.

Small here: images, batches, heads and queues that are thousands wide, and networks of many millions of weights, each of
which at most one recipe runs. As in the file: objective, views, optimiser, subsets and search.
"""

import dataclasses
import shutil
import tarfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
import torch

from sslticket.cli import recipe_commands as command
from sslticket.ticket import Ticket
from tests.recipes import RECIPES, load

CLASSES, EACH = 4, 5
LARGE = {
    "inception_v3": "stabilizing_inception_oneshot",
    "resnet18_cifar": "shuffled_resnet18_cifar10",
    "resnet50": "s4l_resnet50",
    "vgg19": "transfer_vgg19_cifar10_adam",
}
STAND_IN = "resnet20"  # has a hundredth of their weights
# Of their kind, with blocks that can be left out.
OF_THEIR_KIND = {f"vit_{size}_patch16_224": "test_vit" for size in ("small", "base", "large")}
OF_THEIR_KIND["convnext_tiny"] = "test_convnext"
HUGE = ("alexnet",)  # coding its 57 million weights takes longer than all the others together
# They differ from others in their length and in how much of the images they take, which is not so here.
LIKE_OTHERS = [
    f"{objective}_resnet50_{by}10" for objective in ("rotnet", "exemplar", "simclr") for by in ("samples", "classes")
]
PIXELS = {"inception_v3": 75}  # the least that it takes
# Widths that cost memory; and one small crop, where images as small as these would have none.
SMALL = {"hidden": 32, "dim": 16, "outputs": 16, "predictor": 16, "prototypes": 8, "queue": 16, "local_crops": 1}


@pytest.fixture(scope="module")
def folders(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """20 photographs in 4 class folders; they stand in for any data set but digits, small or large, colour or gray."""
    root = tmp_path_factory.mktemp("photographs")
    with tarfile.open(test_data / "imagenet-1000.tar") as archive:
        files = (member for member in archive if member.isfile())
        for number, member in enumerate(islice(files, CLASSES * EACH)):
            member.name = f"train/class{number % CLASSES}/{number}.JPEG"
            archive.extract(member, root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSLTICKET_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield root


def two_steps(name: str, model: str, folders: Path, out: Path) -> None:
    recipe = load(name)
    search = recipe.to_dict()["search"]
    least = "--levels 1" if "levels" in search else "--densities 0.5" if "densities" in search else "--rounds 1"
    words = f"--length 2it {least} --batch-size 4 --threads 1 --model {model}".split()
    words += ["--out", str(out), "--data-root", str(folders)]
    if recipe.init != "random":  # trained weights are of the whole network; tests/search has searches from such
        words += ["--init", "random"]
    for field in dataclasses.fields(recipe.objective):  # type: ignore[arg-type]
        if field.name in SMALL:
            words += [f"--{field.name.replace('_', '-')}", str(SMALL[field.name])]
    if recipe.data.dataset != "digits":  # it is not made of the folders
        words += ["--part", "20 photographs"]
    if recipe.data.dataset in ("imagenet", "places365"):
        words += ["--image-size", str(PIXELS.get(model, 32))]
    if recipe.data.subset < 1:
        words += ["--subset", "0.5"]  # 1% of five images is none
    if recipe.data.labels < 1:
        words += ["--labels", "0.5"]
    command.run_with_flags(recipe, words)
    (file,) = out.glob("*/tickets/*1.safetensors")
    ticket, dense = Ticket.load(file), Ticket.load(next(out.glob("*/tickets/*0.safetensors")))
    assert ticket.level == 1
    pruned = sum(int((~layer).sum()) for layer in ticket.mask.values())
    if rate := search.get("rate"):
        rates = {name: rate if layer.dim() > 2 else search["linear_rate"] or rate for name, layer in dense.mask.items()}
        expected = sum(rates[name] * layer.numel() for name, layer in dense.mask.items())
        assert pruned == pytest.approx(expected, abs=len(dense.mask))
    else:
        assert 0 < pruned < dense.mask.total
    assert all(torch.isfinite(weights).all() for weights in ticket.weights.values())
    if recipe.data.dataset != "digits":
        found = {"samples": CLASSES * 3, "classes": CLASSES // 2 * EACH}[recipe.data.subset_by]
        assert ticket.provenance["images"] == (found if recipe.data.subset < 1 else CLASSES * EACH)
    shutil.rmtree(out)


@pytest.mark.data
@pytest.mark.parametrize("name", [name for name in RECIPES if name not in LIKE_OTHERS])
def test_two_steps_of_a_recipe_leave_a_ticket(name: str, folders: Path, tmp_path: Path) -> None:
    model = load(name).model
    stand_in = OF_THEIR_KIND.get(model, STAND_IN if model in (*LARGE, *HUGE) else model)
    two_steps(name, stand_in, folders, tmp_path)


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("model", LARGE)
def test_two_steps_of_a_large_network_leave_a_ticket(model: str, folders: Path, tmp_path: Path) -> None:
    assert load(LARGE[model]).model == model
    two_steps(LARGE[model], model, folders, tmp_path)
