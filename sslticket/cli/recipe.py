"""A recipe file as a command: flags, then the search."""

import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

from sslticket import processes
from sslticket.cli import flags
from sslticket.cli.outcome import finish
from sslticket.errors import BadInput
from sslticket.escaping import block, shell, terminal
from sslticket.evaluation.proposal import proposed
from sslticket.machine import Machine
from sslticket.recipe import Recipe


def run(recipe: Recipe) -> None:
    """What a recipe file calls: read the flags, check everything, search, and leave the process."""
    finish(lambda: _run(recipe, sys.argv[1:]), "another folder with --out")


def _run(recipe: Recipe, words: Sequence[str]) -> None:
    given = vars(_parser(recipe).parse_args(words))
    notice = scaling(recipe, given)
    recipe, machine = resolve(recipe, given), flags.override(Machine(), given)
    from sslticket.search.plan import plan  # after --help, which needs neither networks nor data

    planned = plan(recipe, machine, given["out"], trial="length" in given and "rewind" not in given)
    first = processes.rank() == 0
    for note in filter(None, (notice, planned.notice)):
        if first:
            print(f"note: {terminal(note)}", file=sys.stderr)
    if given["dry_run"]:
        if first:
            print(block(planned.text()))
        return
    from sslticket.search.run import run as search  # imports accelerate, which a dry run does not need

    bad = search(planned, machine)
    if not first:
        return
    for path, reason in sorted(bad.items())[:10]:
        print(terminal(f"skipped {path}: {reason}"))
    print(f"{len(bad):,} images could not be read" if bad else "every image could be read")
    print(f"tickets of levels 0 to {planned.levels}: {planned.folder.path / 'tickets'}")
    if protocol := proposed(recipe.to_dict()):
        part = f" --part {shell(recipe.data.part)}" if recipe.data.part else ""
        run = shell(str(planned.folder.path))
        print(f"next: sslticket evaluate {run} --protocol {protocol.name}{part} --controls random")


def resolve(recipe: Recipe, given: dict[str, object]) -> Recipe:
    """The recipe with the given flags in it; a length alone stretches warmup and drops with it, a batch the rate."""
    from dataclasses import replace

    if isinstance(length := given.get("length"), str):
        recipe = replace(recipe, fit=recipe.fit.stretched(length))
    if "lr" not in given and isinstance(batch := given.get("batch_size"), int):
        recipe = replace(recipe, fit=recipe.fit.rescaled(batch))
    return flags.override(recipe, given)


def scaling(recipe: Recipe, given: Mapping[str, object]) -> str:
    """What a batch that is given without a rate does to the rate, for a person; "" for nothing."""
    batch, old = given.get("batch_size"), recipe.fit
    if "lr" in given or not isinstance(batch, int) or batch in (old.batch_size, 0):
        return ""
    new = old.rescaled(batch).optimizer
    if new.lr == old.optimizer.lr:
        return f"{type(new).__name__}'s lr {new.lr} stays with --batch-size {batch} (give --lr to choose)"
    return f"lr {old.optimizer.lr} scaled to {new.lr} for --batch-size {batch} (give --lr to choose)"


def load(path: Path) -> Recipe:
    """The recipe that a file defines under the name `recipe`; the file is imported, so its search does not start.

    Raises:
        BadInput: if there is no such file, if it cannot be imported, or if it defines no recipe.
    """
    if not path.is_file() or path.suffix != ".py":
        raise BadInput(f"there is no recipe at {path}; give a Python file such as recipes/rotnet_resnet50.py")
    # As for a script: its neighbours can be imported. And dataclasses look for their module by its name.
    sys.path.insert(0, str(path.parent.resolve()))
    module = sys.modules[f"_recipe_{path.stem}"] = ModuleType(f"_recipe_{path.stem}")
    module.__file__ = str(path)
    try:
        exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)  # an import would leave compiled files
    except (Exception, SystemExit) as error:
        raise BadInput(f"{path} cannot be imported: {_reason(error, path)}") from error
    recipe = getattr(module, "recipe", None)
    if not isinstance(recipe, Recipe):
        raise BadInput(f"{path} defines no recipe; a recipe file has a line that starts with: recipe = Recipe(")
    return recipe


def add_settings(parser: flags.Parser, recipe: Recipe) -> None:
    """The flags of what a recipe decides, and of the machine.

    Raises:
        BadInput: if two classes have a field of one name, or one has a field that is a flag of the parser.
    """
    machine = Machine()
    flags.check(parser, recipe, machine)
    flags.add(parser, recipe)
    flags.add(parser, machine)


def _parser(recipe: Recipe) -> flags.Parser:
    main = sys.modules["__main__"]
    parser = flags.Parser(prog=Path(sys.argv[0]).name, description=main.__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs"), metavar="PATH", help="folder of all runs [runs]")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved recipe and its steps; train nothing")
    add_settings(parser, recipe)
    return parser


def _reason(error: BaseException, path: Path) -> str:
    """One line: what went wrong, and where in the file if it was there."""
    if isinstance(error, SystemExit):
        return 'it ends the program; put run(recipe) below if __name__ == "__main__":'
    text = " ".join(str(error).split()) or type(error).__name__
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f"{text} (line {lines[-1]})" if lines else text
