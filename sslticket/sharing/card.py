"""The model card of an exported ticket: README.md with the Hub's front matter, for people."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from sslticket.escaping import markdown, shell, shown
from sslticket.hub import TICKET
from sslticket.report.text import percent
from sslticket.sharing.facts import facts
from sslticket.sharing.licence import Licence
from sslticket.sharing.measured import Measured
from sslticket.sharing.networks import Construction
from sslticket.ticket import Ticket

CURVE = "curve.png"
MODEL = "model.safetensors"
CONFIG = "config.json"

_PLACES = ("/", "../", "~/")
_NOT = """
- No trained network. {weights}: train from them. What is measured above is what such a training
  reached, under the protocol named there and no other.
- No classifier. It has no classification layer; yours starts as you draw it.
- Not faster by itself. Pruned weights are zeros in dense tensors.
- Not checked for what the images may have taught it. What holds for models trained on these images holds for this one.
"""


@dataclass(frozen=True)
class Card:
    """What a card is written from."""

    ticket: Ticket
    licence: Licence
    measured: Measured
    network: Construction

    @property
    def title(self) -> str:
        """One line: objective, model, data set, density."""
        ticket, came = self.ticket, self.ticket.provenance
        left = f"{percent(ticket.mask.density)}% of the weights left"
        return f"{came['objective']} ticket of {ticket.recipe['model']} on {came['dataset']}, {left}"

    def text(self) -> str:
        """The whole README.md."""
        return f"---\n{_front_matter(self)}\n---\n\n" + "\n\n".join(_sections(self)) + "\n"


def _front_matter(card: Card) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    came = card.ticket.provenance
    tags = ["lottery-ticket", "sparse", "pruning", came["objective"], came["dataset"], card.ticket.recipe["model"]]
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
        model_name=shown(card.title),
        library_name="sslticket",
        pipeline_tag="image-classification" if results else None,
        tags=shown(list(dict.fromkeys(tags))),
        **card.licence.front_matter,
        **measured,
    )
    return str(data.to_yaml(line_break="\n")).rstrip()


def _sections(card: Card) -> Iterator[str]:
    mask = card.ticket.mask
    yield f"# {markdown(card.title)}"
    trained = card.ticket.provenance.get("weights") == "trained"
    weights = "the weights, trained before the last pruning," if trained else "the early weights W_k"
    yield (
        f"A lottery ticket: a binary mask and {weights} from which the sparse network trains. "
        f"{mask.survivors:,} of {mask.total:,} prunable weights are left."
    )
    told = {**facts(card.ticket), "ticket's hash": card.ticket.hash}
    yield "\n".join(["| | |", "|---|---|", *(f"| {name} | {markdown(value)} |" for name, value in told.items())])
    yield _loading(card)
    yield "## Accuracy against density"
    yield from _accuracy(card.measured)
    yield _finding(card)
    left = "The last pruning took a part of what was trained" if trained else "The weights are early ones, W_k"
    link = f" Their home, which has the last word: {card.licence.link}" if card.licence.link else ""
    yield f"## Licence of the images\n\n{markdown(card.licence.text)}.{link}\n\nNo image is in this folder."
    yield f"## What it is not\n{_NOT.rstrip().format(weights=left)}"


def _loading(card: Card) -> str:
    make = card.network
    load = "model.load_state_dict(state)"
    if make.whole:
        load = "odd = model.load_state_dict(state, strict=False)  # the state has no classification layer"
    return f"""## Load it

`{TICKET}` has the mask, the weights and where both come from; with it, pruned weights stay 0 while the network trains:

```python
from sslticket import Ticket
{make.imports}

folder = "."  # this folder, or its name on the Hub: "hf://USER/NAME"
model = Ticket.load(folder).apply({make.call})
```

`{MODEL}` is those weights times the mask as a plain state dict. It is sparse, and nothing keeps it sparse:

```python
from safetensors.torch import load_file
{make.imports}

model = {make.call}
state = load_file("{MODEL}")
{load}
```

`{CONFIG}` has the recipe and the provenance, for people and programs; the ticket has both itself."""


def _accuracy(measured: Measured) -> Iterator[str]:
    if not measured.curve:
        yield "Not measured, or not where it was exported: no row of an evaluation lay beside the ticket."
        return
    yield f"![Top-1 accuracy against the density of the tickets of this search]({CURVE})"
    for caption, cells in measured.tables:
        yield f"{markdown(caption)}.\n\n{cells}"


def _finding(card: Card) -> str:
    """Command, commit and data, as far as they are known."""
    came, command = card.ticket.provenance, _without_places(card.measured.command)
    commit = came["commit"] or "unknown"
    by = f"## How it was found\n\nBy sslticket, commit {markdown(commit)}"
    by += f", on images with hash {markdown(came['data_hash'])}"
    if not command:
        return f"{by}. The recipe is in `{CONFIG}`."
    # Indented, since a fence could end within the command.
    return f"{by}, by\n\n    {command}\n\nThe recipe is in `{CONFIG}`."


def _without_places(command: str) -> str:
    """A command without the folders of its paths outside the working folder: they mean nothing to others."""
    words = []
    try:
        typed = shlex.split(command)
    except ValueError:  # no search wrote this
        return ""
    for word in typed:
        flag, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        words.append(f"{flag}{equals}{PurePath(value).name if value.startswith(_PLACES) else value}")
    return " ".join(map(shell, words))
