"""What the network sees of the first images under a recipe, as a picture for people to judge."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sslticket.cli import sheet
from sslticket.data.dataset import Dataset
from sslticket.data.loader import Batch
from sslticket.data.opening import loader
from sslticket.data.order import Order
from sslticket.data.views import View
from sslticket.errors import BadInput
from sslticket.escaping import terminal
from sslticket.files import written_whole
from sslticket.machine import Machine
from sslticket.randomness import derive
from sslticket.recipe import Recipe
from sslticket.search.images import Images


def show(recipe: Recipe, machine: Machine, output: Path, *, images: int, width: int) -> str:
    """Draw the first images of the batch with which the search's training starts.

    Args:
        recipe: as resolved from file and flags.
        machine: where the data lies.
        output: the PNG file to write.
        images: how many of the batch, one a row.
        width: of the picture, at most, in pixels.

    Returns:
        What was written, for a person.

    Raises:
        BadInput: if the recipe does not fit its data, or the picture cannot be drawn or named so.
    """
    if output.suffix.lower() != ".png":
        raise BadInput(f"{output} is no name for the picture; give -o one that ends in .png")
    if not 1 <= images <= recipe.fit.batch_size:
        raise BadInput(
            f"a batch of {recipe.fit.batch_size} images cannot show {images}; "
            f"give --images from 1 to {recipe.fit.batch_size}"
        )
    chosen = Images.of(recipe, machine)
    fit, objective = recipe.fit, recipe.objective
    whole = objective.whole_batch
    part = machine.part(fit.batch_size, fit.ghost_batch, objective.name, whole=whole, normalised=False)
    objective.check(part, len(chosen.views))
    plain, batch = _first(recipe, machine, chosen, images)
    dataset, classes = chosen.source.dataset, chosen.source.manifest.classes
    views = {"image": plain} | _shown(recipe, batch)
    columns = {name: _pixels(view, dataset) for name, view in views.items()}
    labels = ["label hidden" if label < 0 else terminal(classes[label]) for label in batch.label.tolist()]
    picture = sheet.draw(columns, labels, width)
    with written_whole(output) as temporary:
        picture.save(temporary, "PNG", optimize=True)
    seen = f"{dataset.name}, the first {images} images of a batch of {recipe.fit.batch_size:,}"
    return f"{output}\n{seen}; {_described(chosen.views)}"


def _first(recipe: Recipe, machine: Machine, images: Images, count: int) -> tuple[Tensor, Batch]:
    """The evaluation view of the first images of step 0, and these images as the training gets them."""
    size = recipe.fit.batch_size
    # The share of one process of many holds the first images of the whole batch, and the rest need not be decoded.
    world = next(world for world in range(size // count, 0, -1) if size % world == 0)
    seeds, plain = recipe.seeds, images.source.dataset.eval.resized(recipe.data.image_size)
    batches = loader(
        images.source,
        (*images.views, plain),
        Order(len(images.source.manifest), size, derive(seeds.order, 0), 0, world, images.labelled),
        augment_seed=derive(seeds.augment, 0),
        device=torch.device("cpu"),
        threads=machine.decoders,
        max_bad_images=machine.max_bad_images,
    )
    (whole,) = batches.train(0, 1)
    *views, last = (view[:count] for view in whole.views)
    return last, Batch(tuple(views), whole.label[:count], whole.row[:count])


def _shown(recipe: Recipe, batch: Batch) -> dict[str, Tensor]:
    """What the objective looks at; what it draws itself, it draws from the training's seed of step 0."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive(derive(recipe.seeds.augment, 0), "torch", 0, 0))
        return recipe.objective.shown(batch)


def _pixels(view: Tensor, dataset: Dataset) -> np.ndarray:
    """Normalised (B, C, H, W) -> bytes (B, H, W, C)."""
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (dataset.mean, dataset.std))
    pixels = (255 * (view * std + mean)).round().clamp(0, 255).to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).numpy()


def _described(views: tuple[View, ...]) -> str:
    """The views in words, equal neighbours once."""
    told: list[tuple[str, list[int]]] = []
    for number, view in enumerate(views, 1):
        words = _in_words(view)
        if told and told[-1][0] == words:
            told[-1][1].append(number)
        else:
            told.append((words, [number]))
    return "; ".join(
        f"view{'s' if len(which) > 1 else ''} {'-'.join(map(str, sorted({which[0], which[-1]})))}: {words}"
        for words, which in told
    )


def _in_words(view: View) -> str:
    crop = {
        "resized": f"crop of {view.scale[0]:.3g} to {view.scale[1]:.3g} of the area",
        "pad": f"crop after padding by {view.pad}",
        "center": "centre",
    }[view.crop]
    effects = [f"{type(effect).__name__} {effect.chance:.0%}" for effect in view.effects]
    return ", ".join([f"{view.size} px", crop, *["mirrored 50%"] * view.flip, *effects])
