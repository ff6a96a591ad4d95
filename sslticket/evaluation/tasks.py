"""The matrix of measurements: which tickets, beside which controls, under which protocols, with which seeds."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from sslticket import hub
from sslticket.data.catalogue import DATASETS
from sslticket.errors import BadInput
from sslticket.evaluation.controls import DRAWN_ANEW
from sslticket.evaluation.protocols import Protocol, resolve
from sslticket.files import read_json
from sslticket.ticket import Ticket, run_of

Head = Literal["own", "new"]


@dataclass(frozen=True)
class Task:
    """One measurement: a ticket file, or a control of it, under a protocol with a seed.

    Attributes:
        path: of the ticket's file.
        control: "ticket" for the ticket itself.
        protocol: how it is trained and measured.
        seed: of the evaluation.
        head: whether the classification layer that belongs to the weights is trained on, or a new one is drawn.
    """

    path: Path
    control: str
    protocol: Protocol
    seed: int
    head: Head = "new"

    @property
    def run(self) -> Path:
        """The folder of its run."""
        return run_of(self.path)

    @property
    def name(self) -> str:
        """Of its row's file, and of what else belongs to it."""
        return f"{self.path.stem}.{self.control}.{self.protocol.label}.{self.variant}seed{self.seed}"

    @property
    def variant(self) -> str:
        """What file names say of the head: nothing of a new one, as before heads were kept."""
        return "own-head." if self.head == "own" else ""

    @property
    def row(self) -> Path:
        """The file of its row."""
        return self.run / "rows" / f"{self.name}.jsonl"

    def is_done(self, ticket_hash: str, protocol_hash: str) -> bool:
        """Whether the row is there, about this very ticket under these very settings.

        A control's row must also say for which search it was drawn: those of older versions were shared by all
        replicates of a search, which makes any number of them one.
        """
        row = row_of(self.row)
        return (
            row is not None
            and row["ticket_hash"] == ticket_hash
            and row.get("protocol_hash", protocol_hash) == protocol_hash
            and row.get("start", "0") == self.protocol.start
            and (self.control == "ticket" or "replicate" in row)
        )


def row_of(path: Path) -> dict[str, Any] | None:
    """The row in a file; None where there is no file.

    Raises:
        BadInput: if it is no row about a ticket.
    """
    if not path.exists():
        return None
    fix = "delete it and run the same command again"
    row = read_json(path, fix=fix)
    if not isinstance(row, dict) or not isinstance(row.get("ticket_hash"), str):
        raise BadInput(f"{path} is damaged (it tells of no ticket); {fix}")
    return row


@dataclass(frozen=True)
class Levels:
    """Which levels of a run are evaluated.

    Attributes:
        given: these; None for all.
        usual: those up to the sixth, and then every third (Morcos et al. 2019, Appendix A.1), of all.
    """

    given: tuple[int, ...] | None = None
    usual: bool = False

    def takes(self, level: int) -> bool:
        """Whether tickets of this level are evaluated."""
        if self.usual:
            return level <= 6 or level % 3 == 0
        return self.given is None or level in self.given


ALL = Levels()
USUAL = Levels(usual=True)


def left_out(places: Sequence[Path], levels: Levels) -> list[int]:
    """Levels of the runs below the folders given that are not evaluated, ascending."""
    found = {_level(path) for place in places for path in place.glob("**/tickets/*.safetensors")}
    return sorted(level for level in found if not levels.takes(level))


def tickets(places: Sequence[Path], levels: Levels = ALL) -> list[Path]:
    """Ticket files: those given, as files or exported folders, and those of the runs below the folders given.

    Raises:
        BadInput: for a place that does not exist or holds no ticket.
    """
    found: list[Path] = []
    for place in places:
        if not place.exists():
            raise BadInput(f"there is nothing at {place}; give ticket files or folders of runs")
        lone = place if place.is_file() else place / hub.TICKET
        here = [lone] if lone.is_file() else sorted(place.glob("**/tickets/*.safetensors"))
        if not here:
            raise BadInput(f"{place} holds no tickets; give a run's folder, such as runs/<key>, or a ticket file")
        found += [path for path in here if path == lone or levels.takes(_level(path))]
    if not found:
        raise BadInput(f"no ticket has one of the levels {' '.join(map(str, levels.given or ()))}; give other --levels")
    return list(dict.fromkeys(found))


def matrix(
    paths: Sequence[Path],
    controls: Sequence[str],
    protocols: Sequence[Protocol | str],
    seeds: Sequence[int] | None,
    heads: Sequence[Head] | None = None,
    part: str | None = None,
    *,
    beside: bool = True,
    anew: Collection[str] = DRAWN_ANEW,
) -> list[Task]:
    """Every measurement that was asked for.

    Args:
        paths: of ticket files.
        controls: beside each ticket.
        protocols: themselves, or by name; "own" is each ticket's own.
        seeds: of the evaluation; None takes each protocol's own.
        heads: with which tickets are trained. None takes a ticket's own where it was found on the protocol's task, and
            else a new one; controls whose weights are drawn anew have a new one always.
        part: what the images of protocols that are given by name are, if they are not the whole official set.
        beside: where `heads` is None and only some tickets have a head of their own, take these with a new one too, so
            that like can be compared with like.
        anew: the controls that have none of the ticket's weights, and so no head of its own.

    Raises:
        BadInput: if a ticket is damaged, or is to have a head of its own and has none for this task.
    """
    headers = {path: _header(path) for path in paths}
    found: list[Task] = []
    for which in protocols:
        targets = {
            path: _target(which, headers[path]["recipe"], part) if isinstance(which, str) else which for path in paths
        }
        own = {path for path in paths if shares_task(headers[path], targets[path])}
        lacking = [path for path in paths if not headers[path].get("head")]
        if heads is not None and "own" in heads and lacking:
            raise BadInput(
                f"{lacking[0]} holds no classification layer; give --head new, or leave --head out to train each "
                "ticket with its own where it has one"
            )
        mixed = beside and len(own) < len(paths)
        found += [
            Task(path, kind, targets[path], seed, head)
            for path in paths
            for kind in ("ticket", *controls)
            for head in (("new",) if kind in anew else _heads(path in own, mixed, heads))
            for seed in (targets[path].seeds if seeds is None else seeds)
        ]
    # Two names may be of one protocol, as cifar10 and cifar10@0 are.
    return list(dict.fromkeys(found))


def shares_task(header: Mapping[str, Any], protocol: Protocol) -> bool:
    """Whether a ticket was found on the task that a protocol trains: the same classes of the same images' kind.

    Then its classification layer is a part of it ("Stabilizing the Lottery Ticket Hypothesis" keeps the last layer in
    W_k); for transfers a new one is drawn ("One ticket to win them all", section 3.2).

    Args:
        header: of the ticket.
        protocol: under which it is trained.
    """
    data = header["recipe"].get("data", {})
    # A list may have chosen classes, as a share of the classes does.
    classes = DATASETS[protocol.dataset].classes if protocol.part is None else None
    return (
        bool(header.get("head"))
        and (data["dataset"], data.get("part"), data.get("half")) == (protocol.dataset, protocol.part, protocol.half)
        and not data.get("shuffle_labels")
        and not (data.get("subset_by") == "classes" and data["subset"] < 1)
        and classes in (None, header["provenance"].get("classes", classes))
    )


def _target(name: str, recipe: Mapping[str, Any], part: str | None) -> Protocol:
    """The protocol of this name for a ticket, on a part of its images; "own" is on the recipe's where none is given."""
    found = resolve(name, recipe)
    return found if part is None else replace(found, part=part)


def _header(path: Path) -> Mapping[str, Any]:
    """What a ticket tells of itself, if it tells what an evaluation has to know.

    Raises:
        BadInput: if it is damaged, or no search wrote it.
    """
    header = Ticket.header(path)
    recipe, came = header.get("recipe"), header.get("provenance")
    told = isinstance(recipe, dict) and isinstance(recipe.get("data"), dict) and "dataset" in recipe["data"]
    if not (told and isinstance(came, dict) and {"seed", "rewind_samples", "objective"} <= came.keys()):
        raise BadInput(f"{path} does not tell where it is from, so it cannot be scored; give one that a search wrote")
    return header


def _heads(own: bool, mixed: bool, given: Sequence[Head] | None) -> Sequence[Head]:
    if given is not None:
        return given
    if not own:
        return ("new",)
    return ("own", "new") if mixed else ("own",)


def _level(path: Path) -> int:
    digits = path.stem.removeprefix("level-")
    return int(digits) if digits.isdigit() else -1
