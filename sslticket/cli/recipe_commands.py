"""The commands that take a recipe: run its search, and show its views as a contact sheet."""

import argparse
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from sslticket import processes
from sslticket.cli.exit_status import run_and_exit
from sslticket.cli.ticket_commands import add_planning_flags, check_planning_flags
from sslticket.config import flags
from sslticket.config.recipe import Recipe
from sslticket.config.runtime import RuntimeConfig
from sslticket.data.augment import View
from sslticket.data.datasets.base import Dataset
from sslticket.data.datasets.catalogue import find_folder_path
from sslticket.data.loader import Batch, Sampler
from sslticket.data.source import make_loader
from sslticket.errors import BadInput, unknown_name
from sslticket.escaping import escape_lines, escape_terminal, shell_quote
from sslticket.evaluation.protocols import find_protocol, propose_protocol
from sslticket.models import RANDOM_INIT
from sslticket.objectives.base import objective_of
from sslticket.results.run_dir import read_json_or_empty
from sslticket.results.throughput import (
    Speed,
    Throughput,
    device_name,
    find_device,
    process_seconds,
    remember_speed,
    speed_of_rows,
)
from sslticket.search.plan import TrainingImages
from sslticket.seeds import derive_seed
from sslticket.storage.files import atomic_write
from sslticket.training.display import tell

if TYPE_CHECKING:
    from sslticket.search.plan import SearchPlan


def run(recipe: Recipe | Mapping[str, Recipe]) -> None:
    """Run a recipe file as a command: read the flags, check everything, search, and leave the process.

    Args:
        recipe: The recipe of the file, or several by name; the first word of the command then names one of them.
    """
    main = sys.modules["__main__"]
    prog, words = Path(sys.argv[0]).name, sys.argv[1:]
    run_and_exit(lambda: run_named(recipe, words, prog, main.__doc__), "another folder with --out")


def run_named(
    recipes: Recipe | Mapping[str, Recipe], words: Sequence[str], prog: str, description: str | None = None
) -> None:
    """Run the one recipe, or the one of several that the first word names.

    Raises:
        BadInput: If the first word names none of several recipes.
    """
    if isinstance(recipes, Recipe):
        run_with_flags(recipes, words, prog, description)
        return
    chooser = flags.Parser(prog=prog, description=description)
    chooser.add_argument("recipe", metavar="RECIPE", help=f"one of: {', '.join(recipes)}")
    chooser.add_argument("flags", nargs=argparse.REMAINDER, metavar="...", help="its flags; RECIPE --help lists them")
    given = chooser.parse_args(words)
    if given.recipe not in recipes:
        raise unknown_name("recipe", given.recipe, recipes)
    run_with_flags(recipes[given.recipe], given.flags, f"{prog} {given.recipe}", description)


def run_with_flags(
    recipe: Recipe, words: Sequence[str], prog: str | None = None, description: str | None = None
) -> None:
    """Run the search of a recipe with the flags that were given."""
    recipe = flags.choose_parts(recipe, words)
    given = vars(_recipe_parser(recipe, prog, description).parse_args(words))
    given |= find_folder(given.get("dataset", recipe.data.dataset), given.get("data_root"))
    batch_given = "batch_size" in given
    if given["trial"]:
        flags.fill_in_trial(recipe, given)
    notice = lr_scaling_note(recipe, given)
    recipe, runtime = flags.resolve_recipe(recipe, given), flags.override_fields(RuntimeConfig(), given)
    from sslticket.search.plan import plan_search  # after --help, which needs neither networks nor data

    check_planning_flags(given)
    rewound, dry_run = "rewind" in given or "search.rewind" in given, bool(given["dry_run"])
    trial = "length" in given and not rewound
    how = {"trial": trial, "rewind_given": rewound, "batch_given": batch_given, "dry_run": dry_run}
    planned = plan_search(recipe, runtime, given["out"], **how)
    first = processes.rank() == 0
    for note in filter(None, (notice, *planned.notes, planned.notice)):
        if first:
            tell(f"note: {note}", runtime)
    levels = range(planned.levels + 1)
    if dry_run:
        probed = None
        if given["probe_speed"]:
            from sslticket.search.run_search import probe_search  # imports accelerate, which a dry run does not need

            probed = probe_search(planned, runtime)
        if first:
            print(escape_lines(planned.describe(planned.estimate(_throughput(given, probed)))))
        return
    from sslticket.search.run_search import run_search as search

    began, there = process_seconds(), [level for level in levels if planned.run_dir.ticket_path(level).exists()]
    if first and len(there) < len(levels):
        some = f"; {len(there)} of {len(levels)} tickets are there" if there else ""
        tell(f"{planned.estimate(_throughput(given)).summary()}{some}", runtime)
    bad = search(planned, runtime)
    if not first:
        return
    _remember_search(planned, there, began)
    for path, reason in sorted(bad.items())[:10]:
        print(escape_terminal(f"skipped {path}: {reason}"))
    print(f"{len(bad):,} images could not be read" if bad else "every image could be read")
    print(f"tickets of levels 0 to {planned.levels}: {planned.run_dir.path / 'tickets'}")
    if protocol := propose_protocol(planned.recipe.to_dict(), trial=given["trial"]):
        part = f" --part {shell_quote(recipe.data.part)}" if recipe.data.part else ""
        root = f" --data-root {shell_quote(str(runtime.data_root))}" if runtime.data_root else ""
        run, name = shell_quote(str(planned.run_dir.path)), shell_quote(protocol.spelling)
        # A list says in no setting that it is one of classes, whose layer fits no protocol of all classes.
        head = " --head new" if recipe.data.subset_list and planned.images.some_classes else ""
        print(f"next: sslticket evaluate {run} --protocol {name}{part}{root}{head} --controls random")


def find_folder(dataset: str, data_root: Path | None) -> dict[str, Any]:
    """What "--dataset folder:PATH" means by the names of flags: the folder's name, and where it lies; else nothing.

    Args:
        dataset: The data set as it was given.
        data_root: Folder that was given to look in; None for the usual places.
    """
    name, root = find_folder_path(dataset, data_root)
    return {} if name == dataset else {"dataset": name, "data_root": root}


def lr_scaling_note(recipe: Recipe, given: Mapping[str, object]) -> str:
    """One line about the learning rate where a batch size is given without one; "" where nothing changes."""
    batch, old = given.get("batch_size"), recipe.training
    if "lr" in given or not isinstance(batch, int) or batch in (old.batch_size, 0):
        return ""
    new = old.scaled_to_batch(batch).optimizer
    if new.lr == old.optimizer.lr:
        return f"{type(new).__name__}'s lr {new.lr} stays with --batch-size {batch} (give --lr to choose)"
    return f"lr {old.optimizer.lr} scaled to {new.lr} for --batch-size {batch} (give --lr to choose)"


def _throughput(given: Mapping[str, Any], probed: Speed | None = None) -> Throughput:
    """What is known of the speed of this device, or of the one that --on names: rows in --out first."""
    device = find_device(given["on"]) if given.get("on") else device_name()
    runs = sorted(given["out"].iterdir()) if given["out"].is_dir() else []
    return Throughput.known(device, lambda name: find_protocol(name).input_size, runs=runs, probed=probed)


def _remember_search(planned: "SearchPlan", there: Sequence[int], began: float) -> None:
    """Keeps the speed of a search that has ended for later plans."""
    files = [planned.run_dir.row_path(level) for level in range(planned.levels + 1) if level not in there]
    rows = [row for file in files if (row := read_json_or_empty(file))]
    speed = speed_of_rows(
        rows, planned.work.workload, trainings=len(rows), command_seconds=began, total_seconds=process_seconds()
    )
    if speed is not None:
        remember_speed(speed)


def add_recipe_flags(parser: flags.Parser, recipe: Recipe) -> None:
    """The flags of what a recipe decides, and of the runtime."""
    flags.add_flags(parser, recipe)
    flags.add_flags(parser, RuntimeConfig())


def _recipe_parser(recipe: Recipe, prog: str | None = None, description: str | None = None) -> flags.Parser:
    parser = flags.Parser(prog=prog, description=description)
    parser.add_argument("--out", type=Path, default=Path("runs"), metavar="PATH", help="folder of all runs [runs]")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved recipe and its steps; train nothing")
    parser.add_argument(
        "--trial",
        action="store_true",
        help=f"try the whole way first: one level, trainings of {flags.TRIAL_LENGTH} with {flags.TRIAL_BATCH} images a "
        "batch, and the learning rate for it; what is given beside it counts",
    )
    add_planning_flags(parser)
    add_recipe_flags(parser, recipe)
    return parser


_FONT_SIZE, _GAP = 14, 8  # pixels
_LEGIBLE_SIDE = 96  # pixels: the side from which a picture can be judged by eye
_LABEL_WIDTH = 16  # of a row's label in one line


def draw_contact_sheet(columns: Mapping[str, np.ndarray], labels: Sequence[str], width: int) -> Image.Image:
    """Draw one row an image and one column a kind of picture, all on one scale.

    Small pictures are enlarged by a whole number, pixel by pixel; large ones are shrunk if the sheet would else be too
    wide.

    Args:
        columns: Pictures by heading, (N, H, W, C) uint8 with 1 or 3 channels; sizes may differ between columns.
        labels: The label of each of the N rows.
        width: Greatest width of the sheet, in pixels; headings are never cut.

    Returns:
        The sheet, RGB on white.
    """
    font = ImageFont.load_default(_FONT_SIZE)
    names = ["\n".join(textwrap.wrap(label, _LABEL_WIDTH)) for label in labels]
    measure = ImageDraw.Draw(Image.new("L", (1, 1)))
    first = round(max(measure.multiline_textbbox((0, 0), name, font)[2] for name in names)) + 2 * _GAP
    sides = {name: pictures.shape[2] for name, pictures in columns.items()}

    def widths(scale: float) -> list[int]:
        return [max(_scaled_side(side, scale), round(font.getlength(name))) + _GAP for name, side in sides.items()]

    largest = max(max(pictures.shape[1:3]) for pictures in columns.values())
    scale = next((scale for scale in _candidate_scales(largest) if first + sum(widths(scale)) <= width), 0.05)
    heading, row = _FONT_SIZE + 2 * _GAP, max(_scaled_side(largest, scale), 2 * _FONT_SIZE) + _GAP
    image = Image.new("RGB", (first + sum(widths(scale)), heading + row * len(labels)), "white")
    text = ImageDraw.Draw(image)
    for number, name in enumerate(names):
        text.multiline_text((_GAP, heading + row * number), name, "black", font)
    left = first
    for (name, pictures), wide in zip(columns.items(), widths(scale), strict=True):
        text.text((left, _GAP), name, "black", font)
        for number, pixels in enumerate(pictures):
            image.paste(_resized_picture(pixels, scale), (left, heading + row * number))
        left += wide
    return image


def _candidate_scales(largest: int) -> Iterator[float]:
    """From the scale at which the largest picture can be judged down, whole numbers first, then hundredths."""
    yield from range(max(1, -(-_LEGIBLE_SIDE // largest)), 0, -1)
    yield from (percent / 100 for percent in range(99, 5, -1))


def _scaled_side(side: int, scale: float) -> int:
    return max(1, round(side * scale))


def _resized_picture(pixels: np.ndarray, scale: float) -> Image.Image:
    """One picture, (H, W, C) bytes."""
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    size = _scaled_side(picture.width, scale), _scaled_side(picture.height, scale)
    return picture.resize(size, Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS)


def show_views(recipe: Recipe, runtime: RuntimeConfig, output: Path, *, images: int, width: int) -> str:
    """Draw the first images of the batch with which the search's training starts.

    Args:
        recipe: The recipe, with its flags in it.
        runtime: Where the data lies.
        output: The PNG file to write.
        images: How many images of the batch are shown, one a row.
        width: Greatest width of the picture, in pixels.

    Returns:
        What was written, for a person.

    Raises:
        BadInput: If the recipe does not fit its data, or the picture cannot be drawn or named so.
    """
    if output.suffix.lower() != ".png":
        raise BadInput(f"-o must be a name that ends in .png, got {output}; give -o views.png")
    if not 1 <= images <= recipe.training.batch_size:
        raise BadInput(
            f"--images must be from 1 to {recipe.training.batch_size}, the images of a batch, got "
            f"{images}; give --images 6"
        )
    chosen = TrainingImages.open(recipe, runtime)
    fit, objective = recipe.training, objective_of(recipe)
    whole = objective.needs_whole_batch
    part = runtime.micro_batch(fit.batch_size, fit.ghost_batch, objective.name, whole=whole, normalised=False)
    objective.check(part, len(chosen.views))
    plain, batch = _first_images(recipe, runtime, chosen, images)
    dataset, classes = chosen.source.dataset, chosen.source.manifest.classes
    views = {"image": plain} | _objective_views(recipe, batch)
    columns = {name: _to_pixels(view, dataset) for name, view in views.items()}
    labels = ["label hidden" if label < 0 else escape_terminal(classes[label]) for label in batch.labels.tolist()]
    picture = draw_contact_sheet(columns, labels, width)
    with atomic_write(output) as temporary:
        picture.save(temporary, "PNG", optimize=True)
    seen = f"{dataset.name}, the first {images} images of a batch of {recipe.training.batch_size:,}"
    start = "" if recipe.init == RANDOM_INIT else f"; the search starts from {recipe.init}"
    return f"{output}\n{seen}; {_describe_views(chosen.views)}{start}"


def _first_images(recipe: Recipe, runtime: RuntimeConfig, images: TrainingImages, count: int) -> tuple[Tensor, Batch]:
    """The evaluation view of the first images of step 0, and these images as the training gets them."""
    size = recipe.training.batch_size
    # The share of one process of many holds the first images of the whole batch, and the rest need not be decoded.
    world = next(world for world in range(size // count, 0, -1) if size % world == 0)
    seeds, plain = recipe.seeds, images.source.dataset.eval_view.at_size(recipe.data.image_size)
    batches = make_loader(
        images.source,
        (*images.views, plain),
        Sampler(len(images.source.manifest), size, derive_seed(seeds.order, 0), 0, world, images.labelled),
        augment_seed=derive_seed(seeds.augment, 0),
        device=torch.device("cpu"),
        threads=runtime.decode_threads,
        max_bad_images=runtime.max_bad_images,
        keep_decoded=0,  # of one batch, nothing is seen twice
        decoder=runtime.decoder,
    )
    (whole,) = batches.train(0, 1)
    *views, last = (view[:count] for view in whole.views)
    return last, Batch(tuple(views), whole.labels[:count], whole.indices[:count])


def _objective_views(recipe: Recipe, batch: Batch) -> dict[str, Tensor]:
    """The images that the objective sees; its own random draws are those of step 0 of the training."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(derive_seed(recipe.seeds.augment, 0), "torch", 0, 0))
        return objective_of(recipe).preview(batch)


def _to_pixels(view: Tensor, dataset: Dataset) -> np.ndarray:
    """Normalised (B, C, H, W) -> bytes (B, H, W, C)."""
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (dataset.mean, dataset.std))
    pixels = (255 * (view * std + mean)).round().clamp(0, 255).to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).numpy()


def _describe_views(views: tuple[View, ...]) -> str:
    """The views in words; neighbours that are alike are named once."""
    numbered = groupby(enumerate(map(_describe_view, views), 1), key=lambda each: each[1])
    lines = []
    for words, group in numbered:
        first, *others = (number for number, _ in group)
        lines.append(f"views {first}-{others[-1]}: {words}" if others else f"view {first}: {words}")
    return "; ".join(lines)


def _describe_view(view: View) -> str:
    crop = {
        "resized": f"crop of {view.scale[0]:.3g} to {view.scale[1]:.3g} of the area",
        "pad": f"crop after padding by {view.pad}",
        "center": "centre",
    }[view.crop]
    effects = [f"{type(effect).__name__} {effect.probability:.0%}" for effect in view.transforms]
    return ", ".join([f"{view.size} px", crop, *["mirrored 50%"] * view.flip, *effects])
