"""The tables of docs/findings.md, and README's results: what the papers found, asked of the rows in docs/findings/.

Run       python docs/findings.py [--check]; `make findings` also draws the pictures anew
"""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from scipy.stats import kendalltau

from sslticket.campaign.agreement import Verdict
from sslticket.campaign.drawing import FigureContent, draw_figure
from sslticket.campaign.figure import ScaledFigure, figure_files, find_figure
from sslticket.campaign.panels import Panel, Published
from sslticket.campaign.published_numbers import choose_numbers
from sslticket.data.datasets import DATASETS
from sslticket.models import MODELS
from sslticket.registry import load_user_file
from sslticket.report import stats
from sslticket.results.table import read_rows

ROOT = Path(__file__).parents[1]
PAGE, README = ROOT / "docs" / "findings.md", ROOT / "README.md"
ROWS = ROOT / "docs" / "findings"
SWEEPS = ROOT / "sweeps" / "findings"
SCALE = "small"


@dataclass(frozen=True, kw_only=True)
class Statement:
    """One of the papers' findings.

    Attributes:
        number: Its number, by which sweeps and figures name it.
        paper: Number of the paper.
        text: What the paper states, in a sentence.
        published: Its numbers in the table of published numbers.
        would_tell: What would tell it at the papers' own scale.
    """

    number: int
    paper: str
    text: str
    published: Sequence[Published] = ()
    would_tell: str


PAPERS = {
    "000": "One Ticket",
    "002": "Limited Supervision",
    "003": "Stabilizing",
    "004": "Continuous Sparsification",
}
"""Short names of the papers that state findings."""

QUANTITIES = {
    "remaining_percent": "of the weights left",
    "sparsity_percent": "of the weights pruned",
    "gap_points": "of accuracy",
    "speedup": "as fast",
    "natural_zeros_percent": "of the weights at zero",
    "data_ratio": "as many images",
    "rewind_samples": "before W_k",
    "order_distance_ratio": "the distance of IMP's subnetworks",
    "rewind_percent_of_training": "of the training before W_k",
    "top1": "top-1",
}
"""What the papers' numbers are of, in words that follow the number."""


def _number(**where: str) -> Published:
    return Published(drawn="note", **where)  # type: ignore[arg-type]


STATEMENTS = (
    Statement(
        number=1,
        paper="002",
        text="CIFAR-10: tickets of RotNet perform as those of labels, and both beat random ones.",
        published=[_number(place="section 4.1", quantity="remaining_percent")],
        would_tell="`reproduce limited_supervision_figure1 --scale paper`",
    ),
    Statement(
        number=2,
        paper="002",
        text="ImageNet, ResNet-50: labels > RotNet, Exemplar > random at moderate density; pruned severely, all match.",
        published=[_number(place="section 5", condition="moderate pruning", quantity="remaining_percent")],
        would_tell="`reproduce limited_supervision_figure1 --scale paper`",
    ),
    Statement(
        number=3,
        paper="002",
        text="The gap between labels and RotNet grows with the depth that is pruned; AlexNet without its MLP has none.",
        would_tell="`reproduce limited_supervision_figure8 --scale paper`",
    ),
    Statement(
        number=4,
        paper="002",
        text="Tickets from 10% of the images are 1 to 4 points below, equal once more than 90% is pruned, and cheaper.",
        published=[
            _number(place="section 4.2", condition="subset 10% images*", quantity="gap_points"),
            _number(place="section 4.2", condition="all image subsets*", quantity="sparsity_percent"),
            _number(place="section 4.2", condition="subset 10% images", quantity="speedup"),
            _number(place="section 4.2", condition="subset 1% classes*", quantity="speedup"),
        ],
        would_tell="`reproduce limited_supervision_figure3 --scale paper`",
    ),
    Statement(
        number=5,
        paper="002",
        text="CIFAR-10: tickets of shuffled labels are no better than adjusted random ones.",
        published=[_number(place="Figure 4 caption", quantity="sparsity_percent")],
        would_tell="`reproduce limited_supervision_figure4 --scale paper`",
    ),
    Statement(
        number=6,
        paper="002",
        text="At 10% of the labels: semi-supervised > low-shot > label-agnostic.",
        would_tell="`reproduce limited_supervision_figure5 --scale paper`",
    ),
    Statement(
        number=7,
        paper="002",
        text="Tickets from 10% of ImageNet beat those of Places365, which has more images; CIFAR-10's are worse.",
        published=[_number(place="section 4.4", quantity="data_ratio")],
        would_tell="`reproduce limited_supervision_figure5 --scale paper`",
    ),
    Statement(
        number=8,
        paper="002",
        text="CIFAR-10: most weights are zero at convergence; on ImageNet next to none.",
        published=[
            _number(place="Figure 6 caption", network="VGG-19", quantity="natural_zeros_percent"),
            _number(place="Figure 6 caption", network="ResNet-18", quantity="natural_zeros_percent"),
        ],
        would_tell="`reproduce limited_supervision_figure6 --scale paper`",
    ),
    Statement(
        number=9,
        paper="002",
        text="A fixed number of samples seen is the fair rewind point across subsets.",
        published=[_number(place="Table 1", condition="subset 100%", quantity="rewind_samples")],
        would_tell="`reproduce limited_supervision_figure7 --scale paper`",
    ),
    Statement(
        number=10,
        paper="000",
        text="Global beats layerwise pruning, and leaves the first layers nearly whole.",
        would_tell="`reproduce one_ticket_figure1 --scale paper`",
    ),
    Statement(
        number=11,
        paper="000",
        text="Winning ticket > preserved mask > locally permuted > globally permuted.",
        would_tell="`reproduce one_ticket_figurea1 --scale paper`",
    ),
    Statement(
        number=12,
        paper="000",
        text="Tickets transfer within and across data sets; larger sources and more classes transfer better.",
        published=[_number(place="section 4.2", network="ResNet50", quantity="remaining_percent")],
        would_tell="`reproduce one_ticket_figure3 --scale paper`, and figures 2 and 4",
    ),
    Statement(
        number=13,
        paper="000",
        text="VGG-19's tickets transfer between SGD and Adam.",
        would_tell="`reproduce one_ticket_figure5 --scale paper`",
    ),
    Statement(
        number=14,
        paper="003",
        text="Where IMP finds a winning ticket, its subnetworks are more stable than random ones; elsewhere not.",
        published=[
            _number(place="Figure 3 table", network="Lenet", condition="standard*", quantity="order_distance_ratio"),
            _number(place="Figure 3 table", network="VGG-19", condition="standard*", quantity="order_distance_ratio"),
        ],
        would_tell="`reproduce stabilizing_figure3 --scale paper`",
    ),
    Statement(
        number=15,
        paper="003",
        text="Rewound early, subnetworks are stable and beat the dense network; later rewinding saturates, then hurts.",
        published=[_number(place="abstract", network="deeper networks", quantity="rewind_percent_of_training")],
        would_tell="`reproduce stabilizing_figure4 --scale paper`",
    ),
    Statement(
        number=16,
        paper="003",
        text="ResNet-50: one-shot pruning matches the dense network at 30%, iterative pruning at 20% of the weights.",
        published=[
            _number(
                place="section 5 (Figure 8)",
                network="Resnet-50",
                condition="iterative, 20% a round*",
                quantity="remaining_percent",
            )
        ],
        would_tell="`reproduce stabilizing_figure8 --scale paper`",
    ),
    Statement(
        number=17,
        paper="003",
        text="VGG-19 reinitialised matches the dense network to 80% pruned, IMP to 99%; SNIP lies between.",
        published=[_number(place="Appendix A", network="VGG-19", condition="warmup*", quantity="sparsity_percent")],
        would_tell="`reproduce stabilizing_figure9 --scale paper`",
    ),
    Statement(
        number=18,
        paper="004",
        text="Conv-6: in two rounds CS finds a sparse ticket that is better than every one of 30 rounds of IMP.",
        published=[
            _number(place="section 4.1 (Figure 3 left)", condition="after 2 iterations*", quantity="sparsity_percent")
        ],
        would_tell="`reproduce continuous_sparsification_figure3 --scale paper`",
    ),
    Statement(
        number=19,
        paper="004",
        text="ResNet-18 (CIFAR): CS without rewinding beats IMP below 97% sparsity within five rounds.",
        published=[
            _number(place="section 4.2 (Figure 3 right)", condition="*best-of-runs curve", quantity="sparsity_percent"),
            _number(place="section 4.2 (Figure 3 right)", condition="*first iteration", quantity="sparsity_percent"),
        ],
        would_tell="`reproduce continuous_sparsification_figure3 --scale paper`",
    ),
    Statement(
        number=20,
        paper="004",
        text="Masks of an untrained network: CS is accurate and sparse where stochastic sparsification breaks down.",
        published=[
            _number(place="section 4.1", method="CS", quantity="top1"),
            _number(place="section 4.1", method="SS", quantity="top1"),
        ],
        would_tell="`reproduce continuous_sparsification_figure2 --scale paper`",
    ),
)


@dataclass(frozen=True)
class Evidence:
    """What was run: its rows, and what is drawn and asked of them.

    Attributes:
        name: Name of its table of rows: that of a sweep, or of a figure of a paper.
        command: The command that makes the rows.
        others: Sweeps whose rows stand beside them.
        stand_ins: What takes the place of the paper's networks and data sets, by their names.
        figure: What is drawn and asked.
        rows: Its rows, those that other evidence has and that it draws too included.
    """

    name: str
    command: str
    others: Sequence[str]
    stand_ins: Mapping[str, str]
    figure: ScaledFigure
    rows: pd.DataFrame

    @property
    def origin(self) -> str:
        """The command, whose rows stand beside its own, and what all of them cost."""
        beside = f", beside the rows of {', '.join(self.others)}" if self.others else ""
        return f"`{self.command}`{beside}: {_cost(self.rows)}"

    @property
    def content(self) -> FigureContent:
        """Numbers and verdicts."""
        return _content(self.figure.name)


ROWS_OF = {"stabilizing_figure10": "stabilizing_figure3", "stabilizing_figure12": "stabilizing_figure7"}
"""Figures whose sweeps are those of another, so that they are drawn from its rows: distances there, angles here."""


@cache
def collected() -> dict[str, Evidence]:
    """All evidence that has rows, by the name of what is drawn: sweeps of our own, then figures of the papers."""
    found: dict[str, Evidence] = {}
    tables = {path.stem: path for path in sorted(ROWS.glob("*.parquet"))}
    tables |= {name: tables[source] for name, source in ROWS_OF.items() if source in tables}
    for name in [*(name for name in _order() if name in tables), *(name for name in figure_files() if name in tables)]:
        file = SWEEPS / f"{name}.py"
        stand_ins: Mapping[str, str] = {}
        others: list[str] = []
        if file.is_file():
            module = load_user_file(file)
            figures: Sequence[ScaledFigure] = getattr(module, "figures", ())
            others = [other for other in getattr(module, "WITH_ROWS_OF", ()) if other in tables]
            command = f"sslticket sweep sweeps/findings/{name}.py --data-root /data"
        else:
            figures, stand_ins = [find_figure(name).at(SCALE)], find_figure(name).stand_ins.get(SCALE, {})
            command = f"sslticket reproduce {name} --scale {SCALE} --seeds 0-5"
            command += f" --rows docs/findings/{tables[name].name}" if name in ROWS_OF else ""
        frame = read_rows([tables[each] for each in (name, *others)])
        for figure in figures:
            found[figure.name] = Evidence(tables[name].stem, command, others, stand_ins, figure, frame)
    return found


def _order() -> list[str]:
    """The sweeps of our own in the order of the page: the low-shot law first, then what explains it."""
    first = ["lowshot_tiny", "lowshot_cifar10", "fronts", "objectives"]
    return [*first, *sorted(file.stem for file in SWEEPS.glob("*.py") if file.stem not in first)]


@cache
def _content(name: str) -> FigureContent:
    evidence = collected()[name]
    return FigureContent(evidence.figure, evidence.rows, scale=SCALE)


def filled_pages() -> dict[Path, str]:
    """The pages with their generated parts written anew."""
    parts = {
        PAGE: {"findings": _overview(), "evidence": _sections()},
        README: {"lowshot": _low_shot_results(), "objectives": _objectives_results(), "fronts": _fronts_results()},
    }
    return {page: _filled(page.read_text(encoding="utf-8"), found) for page, found in parts.items()}


def _filled(text: str, parts: Mapping[str, Iterable[str]]) -> str:
    for name, lines in parts.items():
        before, rest = text.split(f"<!-- begin {name} -->\n")
        _, after = rest.split("<!-- end -->", 1)
        text = f"{before}<!-- begin {name} -->\n{chr(10).join(lines)}\n<!-- end -->{after}"
    return text


LOW_SHOT = {"CIFAR-10": "lowshot_cifar10", "Tiny-ImageNet-80": "lowshot_tiny"}
"""The data sets of the low-shot law, and what their evidence is called."""


def _low_shot_results() -> Iterator[str]:
    """Tickets of the sparsest level by the part of the images that the search had, and what is told of them."""
    everything, parts = "(a) Labels, parts of the images", "(g) Images, 2.7% of the weights"
    series = ["labels", "RotNet", "Exemplar", "SimCLR"]
    yield "; ".join(f"{title}: {collected()[name].origin}" for title, name in LOW_SHOT.items()) + "."
    yield ""
    heads = [f"{title}: {series[0]}" for title in LOW_SHOT]
    yield f"| images of the search | {' | '.join(' | '.join([head, *series[1:]]) for head in heads)} |"
    yield "| ---: |" + " ---: |" * len(series) * len(LOW_SHOT)
    for part in (1.0, 0.3, 0.1, 0.03, 0.01):
        means = [_mean(name, parts, label, part) for name in LOW_SHOT.values() for label in series]
        yield f"| {part:.0%} | {' | '.join(means)} |"
    yield ""
    plain = [
        f"on {title} {_mean(name, everything, 'random', 0.027)} and {_mean(name, everything, '100%', 1.0)}"
        for title, name in LOW_SHOT.items()
    ]
    yield f"Random tickets of this density and the dense network: {', '.join(plain)}."
    yield ""
    links = [f"[{title}](docs/findings.md#{name})" for title, name in LOW_SHOT.items()]
    yield f"| the paper's statement | {' | '.join(links)} |"
    yield "| --- |" + " --- |" * len(LOW_SHOT)
    for each in zip(*(_content(name).verdicts for name in LOW_SHOT.values()), strict=True):
        yield f"| {each[0].finding.text} | {' | '.join(map(_verdict, each))} |"


def _objectives_results() -> Iterator[str]:
    """Tickets of every objective at two densities, and whether they beat random ones and match those of labels."""
    beat, match = "objectives_beat_random", "objectives_match_labels"
    places = _places(beat)
    verdicts = {
        name: {each.finding.check.series[0]: each.verdict for each in _content(name).verdicts}  # type: ignore[attr-defined]
        for name in (beat, match)
    }
    yield f"{collected()[beat].origin}."
    yield ""
    yield "| objective | 6.25% of the weights | 1.56% | better than random | within a point of labels |"
    yield "| --- | ---: | ---: | --- | --- |"
    for label, panel in places.items():
        means = [_mean(beat, panel.title, label, density) for density in (0.0625, 0.015625)]
        told = [verdicts[name].get(label, "\N{EM DASH}") for name in (beat, match)]
        yield f"| {label} | {' | '.join([*means, *told])} |"
    yield ""
    yield (
        "Tickets beside features: between the nearest-neighbour probe of an objective's dense network and its "
        f"tickets with 6.25% of the weights, Kendall's tau over the {len(_worth())} objectives is {_tau(1)}."
    )


def _fronts_results() -> Iterator[str]:
    """What the search of a ticket costs and what the ticket is worth."""
    name, densities = "fronts", (0.09, 0.027)
    *costs, _ = collected()[name].figure.panels
    yield f"{collected()[name].origin}."
    yield ""
    at = [f"{100 * density:.2g}% of the weights" for density in densities]
    yield f"| search | images through the network, to the last density here | {' | '.join(at)} |"
    yield "| --- | ---: | ---: | ---: |"
    for label in costs[0].series:
        found = [_series(name, panel.title, label) for panel in costs if label in panel.series]
        means = [*(_words(own["y"]) for own in found), *["\N{EM DASH}"] * (len(costs) - len(found))]
        yield f"| {label} | {found[-1]['x'].iloc[0]:,.0f} | {' | '.join(means)} |"


def _places(name: str) -> dict[str, Panel]:
    """The first panel that shows each series; controls come last."""
    found: dict[str, Panel] = {}
    for panel in collected()[name].figure.panels:
        for label in panel.series:
            found.setdefault(label, panel)
    return dict(sorted(found.items(), key=lambda item: item[1].series[item[0]].get("control") != "ticket"))


def _verdict(told: Verdict) -> str:
    return told.verdict + ("" if pd.isna(told.p) else f", p = {told.p:.2g}")


def _mean(name: str, panel: str, label: str, x: float) -> str:
    """Mean and standard deviation over searches at a place of a panel, in percent."""
    return _words(_searches(name, panel, label, x))


def _words(values: "pd.Series[float]") -> str:
    if values.empty:
        return "\N{EM DASH}"
    return f"{100 * values.mean():.1f} \N{PLUS-MINUS SIGN} {100 * values.std():.1f}"


def _searches(name: str, panel: str, label: str, x: float) -> "pd.Series[float]":
    """The values of a series at a place of a panel, one of each search."""
    own = _series(name, panel, label)
    found: pd.Series[float] = own.loc[np.isclose(own["x"], x, rtol=0.02), "y"]
    return found


def _series(name: str, panel: str, label: str) -> pd.DataFrame:
    """The lines of a series of a panel, one of each search and place."""
    [values] = [view.values for view in _content(name).views if view.values.panel.title == panel]
    return values.series(label)


def _overview() -> Iterator[str]:
    """A row for each finding: the statement, its numbers, and our verdicts."""
    verdicts: dict[int, list[tuple[str, str]]] = {}
    for evidence in collected().values():
        for each in evidence.content.verdicts:
            if each.finding.number is not None:
                verdicts.setdefault(each.finding.number, []).append((each.verdict, evidence.figure.name))
    yield "| | paper | states | its numbers | ours | at its own scale |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for stated in STATEMENTS:
        numbers = "; ".join(
            f"{number.words} {QUANTITIES[number.quantity]}"
            for wanted in stated.published
            for number in choose_numbers(wanted, stated.paper)
        )
        told = _counted(verdicts.get(stated.number, [])) or "not run here"
        paper, numbers = PAPERS[stated.paper], numbers or "none in text or tables"
        cells = [str(stated.number), paper, stated.text, numbers, told, stated.would_tell]
        yield f"| {' | '.join(cells)} |"


def _counted(verdicts: Sequence[tuple[str, str]]) -> str:
    """The verdicts of each piece of evidence, counted: "[lowshot_tiny](#lowshot_tiny): 3 borne out"."""
    by_name: dict[str, dict[str, int]] = {}
    for verdict, name in verdicts:
        counts = by_name.setdefault(name, {})
        counts[verdict] = counts.get(verdict, 0) + 1
    told = {name: ", ".join(f"{n} {verdict}" for verdict, n in counts.items()) for name, counts in by_name.items()}
    return "; ".join(f"[{name}](#{name}): {words}" for name, words in told.items())


def _sections() -> Iterator[str]:
    """What was run, what it cost, its picture and a line for each statement."""
    for name, evidence in collected().items():
        content = evidence.content
        yield f"### {name}"
        yield ""
        named, here = {*MODELS.names(), *DATASETS.names()}, {*evidence.rows["model"], *evidence.rows["source"]}
        instead = ", ".join(
            f"{ours} for {own}" for own, ours in evidence.stand_ins.items() if own in named and ours in here
        )
        yield f"{evidence.figure.title}. {evidence.figure.question}" + f" Here stands {instead}." * bool(instead)
        yield ""
        file = f"findings/{evidence.name}.parquet"
        yield f"{evidence.origin}; rows in [{file}]({file})."
        yield ""
        yield f"![{evidence.figure.title}](findings/{name}.png)"
        yield ""
        yield "| finding | statement | verdict | numbers |"
        yield "| --- | --- | --- | --- |"
        for each in content.verdicts:
            p = "" if pd.isna(each.p) else f"; p = {each.p:.2g}"
            why = f" ({each.why})" if each.why else ""
            number = "" if each.finding.number is None else str(each.finding.number)
            yield f"| {number} | {each.finding.text} | **{each.verdict}**{why} | {each.numbers}{p} |"
        yield ""
        if name == "objectives_beat_random":
            yield from _probes()
        for sentence in content.left_out:
            yield f"- Left out: {sentence}."
        if content.left_out:
            yield ""


PROBED = (0.25, 0.0625, 0.015625)
"""The densities at which tickets are set beside their objective's probe."""


@cache
def _worth() -> dict[str, tuple[float, list[float]]]:
    """Of each objective, by its label: the probe of its dense network, and its tickets' mean top-1 at `PROBED`."""
    rows = read_rows([ROWS / "probes.parquet"])
    # The last probe of the training whose end the first level was pruned by: of the dense network.
    dense = rows[(rows["kind"] == "level") & (rows["level"] == 1)]
    values = dense["probe"].map(lambda steps: steps[max(steps, key=int)]).groupby(dense["objective"]).mean()
    worth = {str(objective): float(value) for objective, value in values.items()}
    found = {}
    for label, panel in _places("objectives_beat_random").items():
        if (objective := str(panel.series[label].get("objective"))) in worth:
            means = [float(_searches("objectives_beat_random", panel.title, label, at).mean()) for at in PROBED]
            found[label] = (worth[objective], means)
    return found


def _tau(place: int) -> str:
    """How tickets of one of the densities go with the probe: rank agreement of all objectives."""
    probed, tickets = zip(*((worth, means[place]) for worth, means in _worth().values()), strict=True)
    tau = kendalltau(probed, tickets)
    return f"{tau.statistic:.2f} (p = {tau.pvalue:.2g})"


def _probes() -> Iterator[str]:
    """What the features of each objective's dense network are worth, and how its tickets' top-1 goes with that."""
    yield (
        "How an objective's tickets do beside what its features are worth: top-1 of a nearest-neighbour vote on the "
        "features of its dense network. `sslticket sweep sweeps/findings/probes.py --data-root /data --probe 200it`: "
        f"{_cost(read_rows([ROWS / 'probes.parquet']))}."
    )
    yield ""
    yield f"| objective | probe, % | {' | '.join(f'tickets of {100 * at:.3g}%' for at in PROBED)} |"
    yield "| --- | ---: |" + " ---: |" * len(PROBED)
    for label, (probe, means) in sorted(_worth().items(), key=lambda item: -item[1][0]):
        yield f"| {label} | {100 * probe:.1f} | {' | '.join(f'{100 * mean:.1f}' for mean in means)} |"
    yield f"| Kendall's tau over {len(_worth())} objectives | | {' | '.join(map(_tau, range(len(PROBED))))} |"
    yield ""


def _cost(rows: pd.DataFrame) -> str:
    """Searches, trainings, rows of analyses that train, core-hours and commits of rows."""
    levels = rows[rows["kind"] == "level"].drop_duplicates(["run", "level"])
    scores = stats.unique_trainings(stats.name_series(rows))
    analyses = rows[~rows["kind"].isin(["level", "score"]) & (rows["seconds"] > 0)]
    hours = (levels["seconds"].sum() + scores["seconds"].sum() + analyses["seconds"].sum()) / 3600
    parts = [f"{len(scores):,} trainings of tickets"] if len(scores) else []
    parts += [f"{count:,} rows of {kind}" for kind, count in analyses["kind"].value_counts().items()]
    seeds = levels.groupby("recipe")["search_seed"].nunique()
    each = f"{seeds.min()} to {seeds.max()}" if seeds.min() < seeds.max() else str(seeds.max())
    commits = ", ".join(sorted(set(rows["commit"].astype(str))))
    digits = ".1f" if hours >= 0.05 else ".1g"
    parts.append(f"{hours:{digits}} hours of one core beside other work")
    return f"{levels['run'].nunique():,} searches ({each} of each kind), {', '.join(parts)}, commit {commits}"


def draw() -> None:
    """Draw every picture anew."""
    for name, evidence in collected().items():
        with TemporaryDirectory() as folder:
            drawn = draw_figure(evidence.figure, evidence.rows, Path(folder), formats=["png"], scale=SCALE)
            (ROWS / f"{name}.png").write_bytes(drawn.files[0].read_bytes())


if __name__ == "__main__":
    for page, made in filled_pages().items():
        if "--check" not in sys.argv:
            page.write_text(made, encoding="utf-8")
        elif made != page.read_text(encoding="utf-8"):
            sys.exit(f"{page.relative_to(ROOT)} is out of date; make findings")
    if "--check" not in sys.argv:
        draw()
