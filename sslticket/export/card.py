"""The model card of an exported ticket: README.md with the Hub's front matter, its licence and what was measured."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import pandas as pd

from sslticket.config.recipe import UNKNOWN, RecipeRecord
from sslticket.data.datasets.catalogue import known_dataset
from sslticket.errors import BadInput
from sslticket.escaping import escape_json, escape_markdown, shell_quote
from sslticket.export.description import Construction, is_imported, ticket_facts
from sslticket.hub import TICKET_FILE
from sslticket.report import figures, text
from sslticket.report.content import Content
from sslticket.report.text import format_percent
from sslticket.results import table
from sslticket.ticket import Ticket, run_folder_of

# SPDX names in lower case that the Hub's `license` knows and that data is published under; all else is "other".
_HUB_LICENCES = {
    *("mit", "apache-2.0", "bsd-3-clause", "cc0-1.0", "odbl", "pddl", "unlicense"),
    *(f"cc-{terms}-{version}" for terms in ("by", "by-sa") for version in ("2.0", "2.5", "3.0", "4.0")),
    *(f"cc-by-{terms}-{version}" for terms in ("nc", "nd", "nc-nd", "nc-sa") for version in ("2.0", "3.0", "4.0")),
}


@dataclass(frozen=True)
class Licence:
    """What is known of it.

    Attributes:
        text: The licence in a few words, such as "CC BY 4.0".
        link: Where it is stated; "" where nobody knows.
    """

    text: str
    link: str

    @classmethod
    def for_dataset(cls, dataset: str, given: str | None) -> "Licence":
        """The catalogue's for this data set, unless another is given.

        Raises:
            BadInput: If none is given and none is known, as for one's own images.
        """
        if dataset == UNKNOWN and given is None:  # of an imported ticket, of which nobody can say it
            return cls(UNKNOWN, "")
        entry = known_dataset(dataset)
        # The catalogue's entry for one's own images has no address on the web.
        link = entry.homepage if entry and entry.homepage.startswith("http") else ""
        if given is not None:
            if not given.strip() or "\n" in given:
                raise BadInput(f"{given!r} is no licence; give --data-licence in a few words, such as 'CC BY 4.0'")
            return cls(given.strip(), link)
        if entry is None or not link:
            raise BadInput(
                f"no licence is known of the images of {dataset!r}; say it with --data-licence, such as 'CC BY 4.0'"
            )
        return cls(entry.licence, link)

    @property
    def front_matter(self) -> dict[str, Any]:
        """The Hub's fields: its own name for the licence, or "other" with a name and a link; {} for an unknown one."""
        if self.text == UNKNOWN:
            return {}
        slug = re.sub(r"[^a-z0-9.]+", "-", self.text.lower()).strip("-")
        if slug in _HUB_LICENCES:
            return {"license": slug}
        named = {"license": "other", "license_name": slug or "as-stated-below"}
        return named | {"license_link": self.link} if self.link else named


class MeasuredScore(NamedTuple):
    """Mean top-1, a fraction, of `n` trainings from this very ticket under a protocol."""

    protocol: str
    target: str
    top1: float
    n: int


@dataclass(frozen=True)
class Measurements:
    """What is known; all of it empty where nothing was measured.

    Attributes:
        curve: Accuracy against density of the ticket's whole search, a PNG.
        tables: The same in numbers, a caption and a Markdown table each.
        scores: Scores of this ticket.
        command: Command that found it.
    """

    curve: bytes = b""
    tables: tuple[tuple[str, str], ...] = ()
    scores: tuple[MeasuredScore, ...] = ()
    command: str = ""

    @classmethod
    def of_ticket(cls, ticket: Ticket, file: Path) -> "Measurements":
        """Read the rows of the run that a ticket's file lies in, or those beside a lone file.

        Raises:
            BadInput: If a row is damaged.
        """
        run = run_folder_of(file)
        if not any((run / "rows").glob("[!.]*.jsonl")):
            return cls()
        frame = table.read_rows([run / "rows"])
        # Other files may have had this name, and beside a lone file there may be rows of others.
        frame = frame[frame["recipe"] == ticket.record.family]
        frame = frame[(frame["level"] != ticket.level) | (frame["ticket_hash"] == ticket.hash)]
        own = frame[frame["ticket_hash"] == ticket.hash]
        commands = own[own["kind"] == "level"]["command"]
        command = "" if commands.empty else str(commands.iloc[0])
        if not (frame["kind"] == "score").any():
            return cls(command=command)
        content = Content(frame)
        charts = figures.draw_charts(
            [chart for panel in content.panels for chart in panel.accuracy_charts], content.styles
        )
        return cls(
            figures.figure_bytes(charts, "png"),
            tuple(
                (text.panel_caption(panel.summary), _markdown_table(text.means_grid(panel.summary)))
                for panel in content.panels
            ),
            tuple(_ticket_scores(content.rows[content.rows["ticket_hash"] == ticket.hash])),
            command,
        )


def _ticket_scores(rows: pd.DataFrame) -> Iterator[MeasuredScore]:
    own = rows[(rows["kind"] == "score") & (rows["control"] == "ticket")]
    # Other starts, heads and numerics are other measurements, which their names tell apart.
    by = ["protocol", "target", "condition", "series", "tickets"]
    for (*names, condition, series, tickets), same in own.groupby(by):
        protocol, target = map(str, names)
        details = ", ".join(filter(None, [str(condition), str(series).removeprefix(str(tickets)).lstrip(", ")]))
        yield MeasuredScore(protocol + text.add_condition(details), target, float(same["top1"].mean()), len(same))


def _markdown_table(cells: pd.DataFrame) -> str:
    head = ["weights left", *map(str, cells.columns)]
    body = [
        [f"{text.format_percent(density)}%", *line] for density, line in zip(cells.index, cells.to_numpy(), strict=True)
    ]
    lines = [[escape_markdown(cell) for cell in line] for line in (head, *body)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], ["---:"] * len(head), *lines[1:]))


CURVE_FILE = "curve.png"
WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"

_WEIGHTS = {
    "early": ("the early weights W_k", "The weights are early ones, W_k"),
    "initial": ("the initial weights W_0", "The weights are those with which training begins, W_0"),
    "trained": (
        "the weights, trained before the last pruning,",
        "The last pruning took a part of what was trained",
    ),
    UNKNOWN: ("the weights", "How long the weights were trained is not known"),
}
"""What a ticket's weights are, by its provenance: in a sentence, and as one of its own."""
_FOLDER_PREFIXES = ("/", "../", "~/")
_LIMITATIONS = """
- No trained network. {weights}: train from them. What is measured above is what such a training
  reached, under the protocol named there and no other.
- No classifier. It has no classification layer; yours starts as you draw it.
- Not faster by itself. Pruned weights are zeros in dense tensors.
- Not checked for what the images may have taught it. What holds for models trained on these images holds for this one.
"""


@dataclass(frozen=True)
class ModelCard:
    """What a card is written from."""

    ticket: Ticket
    licence: Licence
    measured: Measurements
    network: Construction

    @property
    def title(self) -> str:
        """One line: objective, model, data set, density, as far as they are known."""
        ticket, origin = self.ticket, self.ticket.provenance
        left = f"{format_percent(ticket.mask.density)}% of the weights left"
        objective, dataset = (None if origin[key] == UNKNOWN else origin[key] for key in ("objective", "dataset"))
        named = f"{objective + ' ticket' if objective else 'Ticket'} of {RecipeRecord(ticket.recipe).model}"
        imported = f" from {origin['imported']['from']}" if is_imported(ticket) else ""
        return f"{named}{f' on {dataset}' if dataset else ''}{imported}, {left}"

    def text(self) -> str:
        """The whole README.md."""
        return f"---\n{_front_matter(self)}\n---\n\n" + "\n\n".join(_card_sections(self)) + "\n"


def _front_matter(card: ModelCard) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    origin, model = card.ticket.provenance, RecipeRecord(card.ticket.recipe).model
    tags = [
        "lottery-ticket",
        "sparse",
        "pruning",
        origin["objective"],
        origin["dataset"],
        model,
    ]
    results = [
        EvalResult(
            task_type="image-classification",
            dataset_type=score.target,
            dataset_name=score.target,
            metric_type="accuracy",
            metric_value=round(score.top1, 6),
            metric_name=f"top-1 after training from it under the protocol {score.protocol}, mean of {score.n}",
        )
        for score in card.measured.scores
    ]
    measured: dict[str, Any] = {"metrics": ["accuracy"], "eval_results": results} if results else {}
    data = ModelCardData(
        model_name=escape_json(card.title),
        library_name="sslticket",
        pipeline_tag="image-classification" if results else None,
        tags=escape_json([tag for tag in dict.fromkeys(tags) if tag != UNKNOWN]),
        **card.licence.front_matter,
        **measured,
    )
    return str(data.to_yaml(line_break="\n")).rstrip()


def _card_sections(card: ModelCard) -> Iterator[str]:
    mask = card.ticket.mask
    yield f"# {escape_markdown(card.title)}"
    weights, left = _WEIGHTS.get(card.ticket.provenance.get("weights", "early"), _WEIGHTS["early"])
    yield (
        f"A lottery ticket: a binary mask and {weights} from which the sparse network trains. "
        f"{mask.survivors:,} of {mask.total:,} prunable weights are left."
    )
    facts = {**ticket_facts(card.ticket), "ticket's hash": card.ticket.hash}
    yield "\n".join(
        ["| | |", "|---|---|", *(f"| {name} | {escape_markdown(value)} |" for name, value in facts.items())]
    )
    yield _loading_section(card)
    yield "## Accuracy against density"
    yield from _accuracy_section(card.measured)
    yield _search_section(card)
    link = f" Their home, which has the last word: {card.licence.link}" if card.licence.link else ""
    licence = escape_markdown(card.licence.text)
    if card.licence.text == UNKNOWN:
        licence = "Unknown, as the images are"
    yield f"## Licence of the images\n\n{licence}.{link}\n\nNo image is in this folder."
    yield f"## What it is not\n{_LIMITATIONS.rstrip().format(weights=left)}"


def _loading_section(card: ModelCard) -> str:
    make = card.network
    load = "model.load_state_dict(state)"
    if make.has_classifier:
        load = "odd = model.load_state_dict(state, strict=False)  # the state has no classification layer"
    return f"""## Load it

`{TICKET_FILE}` has the mask, the weights and where both come from; with it, pruned weights stay 0 in
training:

```python
from sslticket import Ticket
{make.imports}

folder = "."  # this folder, or its name on the Hub: "hf://USER/NAME"
model = Ticket.load(folder).apply({make.call})
```

`{WEIGHTS_FILE}` is those weights times the mask as a plain state dict. It is sparse, and nothing keeps it sparse:

```python
from safetensors.torch import load_file
{make.imports}

model = {make.call}
state = load_file("{WEIGHTS_FILE}")
{load}
```

`{CONFIG_FILE}` has the recipe and the provenance, for people and programs; the ticket has both itself."""


def _accuracy_section(measured: Measurements) -> Iterator[str]:
    if not measured.curve:
        yield "Not measured, or not where it was exported: no row of an evaluation lay beside the ticket."
        return
    yield f"![Top-1 accuracy against the density of the tickets of this search]({CURVE_FILE})"
    for caption, cells in measured.tables:
        yield f"{escape_markdown(caption)}.\n\n{cells}"


def _search_section(card: ModelCard) -> str:
    """Command, commit and data, as far as they are known."""
    origin, command = card.ticket.provenance, _without_folders(card.measured.command)
    if is_imported(card.ticket):
        return (
            f"## How it was found\n\nNot by sslticket, which imported it from files of "
            f"{escape_markdown(origin['imported']['from'])}. What these did not tell is unknown: "
            f"{escape_markdown(ticket_facts(card.ticket)['unknown'])}. What they did is in `{CONFIG_FILE}`."
        )
    commit = origin["commit"] or "unknown"
    by = f"## How it was found\n\nBy sslticket, commit {escape_markdown(commit)}"
    by += f", on images with hash {escape_markdown(origin['data_hash'])}"
    if not command:
        return f"{by}. The recipe is in `{CONFIG_FILE}`."
    # Indented, since a fence could end within the command.
    return f"{by}, by\n\n    {command}\n\nThe recipe is in `{CONFIG_FILE}`."


def _without_folders(command: str) -> str:
    """A command without the folders of its paths outside the working folder: they mean nothing to others."""
    words = []
    try:
        typed = shlex.split(command)
    except ValueError:  # no search wrote this
        return ""
    for word in typed:
        flag, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        words.append(f"{flag}{equals}{PurePath(value).name if value.startswith(_FOLDER_PREFIXES) else value}")
    return " ".join(map(shell_quote, words))
