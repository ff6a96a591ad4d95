"""The command `sslticket reproduce`: a figure or table of a paper, from its sweeps to its picture."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sslticket.cli.campaign_commands import add_campaign_flags, check_count, run_campaign
from sslticket.config import flags
from sslticket.errors import BadInput
from sslticket.escaping import escape_lines, escape_terminal

if TYPE_CHECKING:
    import pandas as pd

    from sslticket.campaign.figure import Figure
    from sslticket.campaign.sweep import Cell
    from sslticket.data.datasets.base import Dataset

SCALES = ("paper", "small", "trial")
SKETCHES = (
    "Not listed: Figure 1 of Winning the Lottery with Continuous Sparsification, which is a sketch of a function and "
    "measures nothing."
)
PAPER_DEVICE = "NVIDIA A100"
"""The card whose hours are told for the scale paper where this machine has none."""


def add_reproduce(commands: "argparse._SubParsersAction[flags.Parser]") -> None:
    """The command and its flags."""
    parser = commands.add_parser(
        "reproduce",
        help="make a figure or table of the papers: run its sweeps, draw it, and say what is borne out",
        description="Run the searches and measurements of a figure as a campaign, then draw its panels with the\n"
        "published numbers over them and say which findings are borne out. The same command goes on from what is\n"
        "finished. --scale paper has the published settings; small fits two processor cores in minutes to hours;\n"
        "trial shows in minutes that all is wired. docs/reproduce.md lists the figures.",
    )
    parser.add_argument(
        "figure", metavar="FIGURE", nargs="?", help="such as stabilizing_figure3, or 003:figure3; --list names all"
    )
    parser.add_argument(
        "--list", action="store_true", help="list the figures, what they take, and what of them is here"
    )
    parser.add_argument("--scale", choices=SCALES, help="[small; with --list, all]")
    parser.add_argument(
        "--seeds", nargs="+", metavar="SEED", help="of the searches, such as 0 1 2 or 0-5 [the scale's]"
    )
    parser.add_argument(
        "--format", nargs="+", choices=("png", "pdf", "svg"), default=["png", "pdf"], help="of the picture [png pdf]"
    )
    add_campaign_flags(parser)
    parser.set_defaults(command=_run_reproduce)


def _run_reproduce(given: argparse.Namespace) -> None:
    from sslticket.campaign.figure import cells_left, figures, find_figure, planned_rows  # numpy
    from sslticket.campaign.sweep import count_cells, expand

    if given.list:
        chosen = [find_figure(given.figure)] if given.figure else list(figures().values())
        for line in list_lines(chosen, [given.scale] if given.scale else SCALES, given.out):
            print(line, flush=True)
        return
    if given.figure is None:
        raise BadInput("no figure is named; give one such as stabilizing_figure3, or --list for all of them")
    figure, scale = find_figure(given.figure), given.scale or "small"
    seeds = None if given.seeds is None else flags.parse_numbers(given.seeds, "--seeds")
    sweeps = figure.sweeps(scale, seeds)
    check_count(count_cells(sweeps), given)
    cells = expand(sweeps)
    out = given.out or default_folder(figure, scale)
    if not given.worker:
        print(escape_lines("\n".join(_heading(figure, scale))), flush=True)
    if figure.planned:
        if not given.dry_run:
            _draw(figure, scale, planned_rows(cells), out, given)
        return
    rows = _given_rows(given.rows)
    left = list(cells) if rows is None else cells_left(cells, rows)
    if rows is not None and not given.worker:
        print(f"{len(cells) - len(left):,} of {len(cells):,} searches are in the rows that are given")
    if not left:
        if not given.dry_run:
            _draw(figure, scale, rows, out, given)
        return
    words = ["reproduce", figure.name, "--scale", scale]
    words += [] if seeds is None else ["--seeds", *map(str, seeds)]
    words += ["--rows", *(str(path.absolute()) for path in given.rows)] if given.rows else []

    def finish(folder: Path) -> None:
        from sslticket.results.table import read_rows

        _draw(figure, scale, read_rows([folder, *given.rows]), folder, given)

    run_campaign(given, left, words, title=f"{figure.name} at the scale {scale}", default_out=out, finish=finish)


def default_folder(figure: "Figure", scale: str) -> Path:
    """Where a figure's campaign lies unless --out says another folder."""
    return Path("runs") / "reproduce" / f"{figure.name}-{scale}"


def _heading(figure: "Figure", scale: str) -> Iterator[str]:
    from sslticket.campaign.figure import PAPERS

    yield f"{PAPERS[figure.paper].title}, {figure.place}: {figure.title}"
    yield figure.question
    if scale in figure.means:
        yield f"{scale}: {figure.means[scale]}"
    if figure.left_out:
        yield f"left out: {figure.left_out}"


def _given_rows(places: Sequence[Path]) -> "pd.DataFrame | None":
    if not places:
        return None
    from sslticket.results.table import read_rows

    return read_rows(list(places))


def _draw(figure: "Figure", scale: str, rows: "pd.DataFrame | None", out: Path, given: argparse.Namespace) -> None:
    from sslticket.campaign.drawing import draw_figure

    assert rows is not None
    out.mkdir(parents=True, exist_ok=True)
    drawn = draw_figure(figure.at(scale), rows, out, formats=given.format, scale=scale)
    for line in drawn.lines:
        print(escape_terminal(line))
    for file in (*drawn.files, drawn.page):
        print(escape_terminal(str(file)))


def list_lines(chosen: "Sequence[Figure]", scales: Sequence[str], out: Path | None) -> Iterator[str]:
    """The figures with what they take at each scale, and what of it is here, paper by paper."""
    from sslticket.campaign.figure import PAPERS

    paper = ""
    for figure in chosen:
        if figure.paper != paper:
            paper = figure.paper
            yield f"{PAPERS[paper].title} ({PAPERS[paper].number}; {PAPERS[paper].source})"
        yield f"  {figure.name}: {figure.place}, {figure.title}" + " (nothing is trained)" * figure.planned
        for scale in scales:
            yield f"    {scale:6} {scale_line(figure, scale, out)}"
        if figure.left_out:
            yield f"    left out: {figure.left_out}"
    if len(chosen) > 1:
        yield SKETCHES


def scale_line(figure: "Figure", scale: str, out: Path | None = None) -> str:
    """What a figure takes at a scale and what of it is here, or why there is nothing of it."""
    from sslticket.campaign.sweep import expand
    from sslticket.campaign.worker import datasets_of

    if scale in figure.without:
        return f"none: {figure.without[scale]}"
    cells = expand(figure.sweeps(scale))
    if figure.planned:
        return f"arithmetic on the settings of {len(cells)} recipes"
    words = [f"{len(cells):,} searches", *cost_words(cells, scale)]
    here: list[str] = []
    missing: list[str] = []
    for name, dataset in datasets_of(cells).items():
        (here if _is_here(dataset) else missing).append(name)
    words.append(", ".join([*here, *(f"no {name}" for name in missing)]))
    if done := _done(cells, out or default_folder(figure, scale)):
        words.append(f"{done} done")
    return "; ".join(words)


def cost_words(cells: "Sequence[Cell]", scale: str) -> list[str]:
    """Trainings and hours of cells: on this machine, or on a card that is named."""
    import torch

    from sslticket.campaign.cost import estimate_cells

    own = torch.cuda.is_available() or scale != "paper"
    estimate = estimate_cells(cells, device=None if own else PAPER_DEVICE).total()
    words = [f"{estimate.trainings:,} trainings"]
    hours = estimate.gpu_hours
    kind = "GPU-hours" if torch.cuda.is_available() or not own else "core-hours"
    where = "" if own else f" of an {PAPER_DEVICE}"
    words.append(f"no {kind} known" if hours is None else f"{short_hours(hours)} {kind}{where}")
    return words


def short_hours(hours: float) -> str:
    """Hours in as many digits as matter: "0.012", "3.1", "1,234"."""
    return f"{hours:,.0f}" if hours >= 10 else f"{hours:.2g}"


def _is_here(dataset: "Dataset") -> bool:
    from sslticket.data.datasets.locate import find_local_dataset

    return find_local_dataset(dataset, None) is not None


def _done(cells: "Sequence[Cell]", out: Path) -> int:
    from sslticket.campaign.state import CampaignFolder

    folder = CampaignFolder(out)
    return sum(folder.cell_run(cell.key)[2] for cell in cells) if folder.is_there else 0
