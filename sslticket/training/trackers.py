"""Trackers in which others see a training: accelerate's own and classes of users, by `--log`.

Each training of a run is a run of the tracker, in a group that is named after the recipe's key: losses and metrics by
the samples seen, the recipe's settings, and in the end its row, and the ticket that it found. Which run that is lies in
the run's folder, with how far each curve is, so that a training that goes on goes on there, and no point is sent twice.

Nothing here decides a number. What fails once a training has begun is told in one line, and the training goes on.
"""

import importlib
import io
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sslticket.config.recipe import flatten_settings
from sslticket.errors import BadInput, one_line
from sslticket.storage.files import read_json, write_json
from sslticket.training import TRACKERS
from sslticket.training.progress import ProgressUpdate, Tracker
from sslticket.training.tracker_services import OWN_CLASS, PROJECT, SERVICES, BegunTraining, KeptRun, Service
from sslticket.training.trial import file_stem

TRACKER_FOLDER = ".trackers"
"""In the folder of a run: which runs of trackers its trainings are."""
_ALIASES = {"comet": "comet_ml", "comet-ml": "comet_ml"}
_KINDS = {
    ".safetensors": "ticket",
    ".jsonl": "row",
    ".html": "report",
    ".tex": "table",
    ".csv": "table",
    **dict.fromkeys((".png", ".pdf", ".svg"), "figure"),
}
"""What the files are that trackers get, by the ends of their names."""


@dataclass(frozen=True, kw_only=True)
class ChosenTracker:
    """A tracker that --log names.

    Attributes:
        label: What was typed.
        name: Its name among `TRACKERS`.
        project: Where runs are filed, as far as the flag says it.
        kind: Its class: accelerate's, or a user's that is derived from accelerate's `GeneralTracker` or our `Tracker`.
    """

    label: str
    name: str
    project: str | None
    kind: type[Any]

    @classmethod
    def parse(cls, label: str) -> "ChosenTracker":
        """The tracker of "wandb", "wandb:project", "mine.py:Mine" or "mine.py:Mine:project".

        Raises:
            BadInput: If there is no such tracker.
        """
        first, _, rest = label.partition(":")
        plain = _ALIASES.get(first.lower(), first.lower())
        if TRACKERS.is_built_in(plain):
            name, project = plain, rest
        elif found := re.fullmatch(r"(.*?(?:\.py)?:\w+)(?::(.*))?", label):
            name, project = found[1], found[2] or ""
        else:
            name, project = label, ""
        try:
            kind = TRACKERS.get(name)
        except AttributeError as error:  # built in, so it is accelerate that lacks it
            raise BadInput(f"--log {label} needs a newer accelerate; pip install -U accelerate") from error
        from accelerate.tracking import GeneralTracker

        if not (isinstance(kind, type) and issubclass(kind, (Tracker, GeneralTracker))):
            raise BadInput(
                f"{name} must be of the class sslticket.training.progress.Tracker to be a tracker, or of "
                f"accelerate.tracking.GeneralTracker, got {kind!r}"
            )
        return cls(label=label, name=name, project=project or None, kind=kind)

    @property
    def service(self) -> Service:
        """What accelerate's class leaves to its user; of a user's class what accelerate's interface says."""
        return SERVICES.get(self.name, OWN_CLASS)

    @property
    def is_own(self) -> bool:
        """Whether it is a class of a user's."""
        return self.name not in SERVICES

    def check(self) -> None:
        """Whether it could follow a training now: nothing of one has begun.

        Raises:
            BadInput: If it is not installed, not logged in, or does not answer, with the fix.
        """
        service = self.service
        if self.is_own:
            return
        for name, value in service.usual.items():
            os.environ.setdefault(name, value)
        try:
            importlib.import_module(service.package)
        except ImportError as missing:
            raise BadInput(
                f"--log {self.label} needs a package that cannot be imported ({one_line(missing)}); "
                f"pip install {service.install} or leave the flag out"
            ) from missing
        try:
            with _silent():
                service.check()
        except BadInput as error:
            raise BadInput(f"--log {self.label} cannot be used: {error}, or leave the flag out") from error
        except Exception as error:
            why = f"--log {self.label} cannot be used ({one_line(error)})"
            raise BadInput(f"{why}; update {service.package}, or leave the flag out") from error

    def open(self, run: Path, name: str, settings: Mapping[str, Any]) -> Tracker:
        """The tracker of one training."""
        if issubclass(self.kind, Tracker):
            own: Tracker = self.kind(run, name)
            own.log_settings(settings)
            return own
        return AccelerateTracker(run, name, self, settings)


class AccelerateTracker(Tracker):
    """Sends one training to a tracker of accelerate's interface."""

    def __init__(
        self, run: Path, name: str, chosen: ChosenTracker, settings: Mapping[str, Any], *, keep: bool = True
    ) -> None:
        """Starts the tracker's run, or goes on with it.

        Args:
            run: The folder of the run that the training belongs to.
            name: Name of the training within the run.
            chosen: The tracker.
            settings: The recipe's fields, and what tells the training from others.
            keep: Whether it may be gone on with.
        """
        super().__init__(run, name)
        service = chosen.service
        safe = re.sub(r"[^\w.-]", "-", chosen.label)
        self._file = run / TRACKER_FOLDER / f"{file_stem(name)}.{safe}.json" if keep else None
        self._kept, self._samples, self._service = _read_kept(self._file), 0, service
        variable = os.environ.get(service.variable) if service.variable else None
        values = {key: _plain(value) for key, value in settings.items()}
        begun = BegunTraining(
            project=chosen.project or variable or PROJECT,
            given=chosen.project is not None,
            folder=run,
            key=run.resolve().name,
            name=name,
            kept=self._kept,
            settings=values,
        )
        with _silent():
            if chosen.is_own:  # as accelerate makes those that are registered with it
                places = (begun.folder / "trackers",) if chosen.kind.requires_logging_directory else ()
                self._tracker = chosen.kind(begun.project, *places)
            else:
                self._tracker = chosen.kind(**service.start(begun))
                if begun.given and hasattr(self._tracker, "experiment_name"):
                    self._tracker.experiment_name = begun.project  # MLflow's, which a variable would decide
            self._tracker.start()
            if self._kept.id is None:
                service.store(self._tracker, values)
            self._kept.id = service.id(self._tracker) or self._kept.token
        self._keep()

    @property
    def link(self) -> str:
        """Where a person looks at the run; "" where that is not known."""
        with suppress(Exception):
            return self._service.link(self._tracker)
        return ""

    def log_progress(self, update: ProgressUpdate) -> None:
        """See the base class."""
        values = {"loss": update.loss, "lr": update.lr, "samples a second": update.rate}
        self._log(update.samples, values)

    def log_metrics(self, samples: int, values: Mapping[str, float]) -> None:
        """See the base class."""
        self._log(samples, {name if name == "probe" else f"metrics/{name}": value for name, value in values.items()})

    def log_row(self, row: Mapping[str, Any], files: Sequence[Path]) -> None:
        """See the base class."""
        numbers = {f"row/{name}": value for name, value in row.items() if type(value) in (int, float)}
        self._log(max(self._kept.last.values(), default=0), numbers)
        self.log_files(files)

    def log_files(self, files: Sequence[Path]) -> None:
        """Sends files, each once, where the tracker has a place for them."""
        for file in files:
            if file.name in self._kept.files:
                continue
            kind, name = _KINDS.get(file.suffix, "file"), f"{self.run.resolve().name}.{file.stem}"
            with _silent():
                self._service.send(self._tracker, file, kind, name)
            self._kept.files.append(file.name)
        self._keep()

    def close(self) -> None:
        """See the base class."""
        with _silent():
            self._service.finish(self._tracker)

    def _log(self, samples: int, values: Mapping[str, float]) -> None:
        """Sends points of curves that go on here; those that an earlier process has sent are the same."""
        new = {name: value for name, value in values.items() if samples > self._kept.last.get(name, -1)}
        if not new:
            return
        self._kept.last |= dict.fromkeys(new, samples)
        self._keep()
        with _silent():
            self._tracker.log(new, step=samples)

    def _keep(self) -> None:
        if self._file is not None:
            write_json(self._file, asdict(self._kept))


class _Guarded(Tracker):
    """A tracker whose errors end nothing but itself."""

    def __init__(self, tracker: Tracker, give_up: Callable[[Exception | SystemExit], None]) -> None:
        super().__init__(tracker.run, tracker.name)
        self._tracker: Tracker | None = tracker
        self._give_up = give_up

    def log_progress(self, update: ProgressUpdate) -> None:
        """See the base class."""
        self._do(lambda tracker: tracker.log_progress(update))

    def log_metrics(self, samples: int, values: Mapping[str, float]) -> None:
        """See the base class."""
        self._do(lambda tracker: tracker.log_metrics(samples, values))

    def log_row(self, row: Mapping[str, Any], files: Sequence[Path]) -> None:
        """See the base class."""
        self._do(lambda tracker: tracker.log_row(row, files))

    def close(self) -> None:
        """See the base class."""
        self._do(lambda tracker: tracker.close())

    def _do(self, act: Callable[[Tracker], None]) -> None:
        if self._tracker is None:
            return
        try:
            act(self._tracker)
        except (Exception, SystemExit) as error:  # whatever a tracker may raise
            tracker, self._tracker = self._tracker, None
            self._give_up(error)
            with suppress(Exception, SystemExit):
                tracker.close()


class TrackerSet:
    """The trackers that a command was asked for; those that have failed follow nothing more."""

    def __init__(self, labels: Sequence[str]) -> None:
        """Finds their classes.

        Raises:
            BadInput: If there is none of a name.
        """
        self._chosen = [ChosenTracker.parse(label) for label in dict.fromkeys(labels)]
        self._started: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._chosen)

    def check(self, note: Callable[[str], object] | None = None) -> None:
        """Whether all could follow a training now; to be called before anything has begun.

        Args:
            note: Shows a person why one is left out; None refuses to begin.

        Raises:
            BadInput: If one is not installed, not logged in, or does not answer, with the fix.
        """
        for chosen in list(self._chosen):
            try:
                chosen.check()
            except BadInput as error:
                if note is None:
                    raise
                self._give_up(chosen, note, error)

    def open(
        self, run: Path, name: str, about: Mapping[str, Any], note: Callable[[str], object]
    ) -> tuple[Tracker, ...]:
        """The trackers of one training.

        Args:
            run: The folder of its run.
            name: Its name within the run.
            about: What tells it from others of the run.
            note: Shows a person a line.

        Raises:
            BadInput: If one cannot be made for the first training of this process.
        """
        settings = _recipe_settings(run) | {"key": run.resolve().name, "training": name} | dict(about)
        found: list[Tracker] = []
        for chosen in list(self._chosen):
            try:
                tracker = chosen.open(run, name, settings)
            except Exception as error:  # whatever a tracker may raise
                if chosen.label in self._started:
                    self._give_up(chosen, note, error)
                    continue
                raise BadInput(
                    f"the tracker {chosen.label} cannot be made ({one_line(error)}); mend it or leave it out"
                ) from error
            if chosen.label not in self._started and isinstance(tracker, AccelerateTracker) and tracker.link:
                note(f"{chosen.name} shows it at {tracker.link}")
            self._started.add(chosen.label)
            found.append(_Guarded(tracker, lambda error, chosen=chosen: self._give_up(chosen, note, error)))  # type: ignore[misc]
        return tuple(found)

    def _give_up(self, chosen: ChosenTracker, note: Callable[[str], object], error: BaseException) -> None:
        if chosen in self._chosen:
            self._chosen.remove(chosen)
            note(
                f"the tracker {chosen.label} has failed and follows nothing more, while the work goes on "
                f"({one_line(error)}); start the same command again once it is mended"
            )

    def log_report(self, folder: Path, name: str, files: Sequence[Path], note: Callable[[str], object]) -> None:
        """Sends the files of a report, in a run of its own.

        Args:
            folder: The folder that the report is about.
            name: Name of the report.
            files: Its page, figures and tables.
            note: Shows a person a line.
        """
        for chosen in list(self._chosen):
            if issubclass(chosen.kind, Tracker):
                continue  # follows trainings
            try:
                tracker = AccelerateTracker(folder, f"report.{name}", chosen, {"report": name}, keep=False)
                tracker.log_files(files)
                tracker.close()
            except Exception as error:
                self._give_up(chosen, note, error)


@contextmanager
def _silent() -> Iterator[None]:
    """What trackers print here goes nowhere: standard output is the command's."""
    with redirect_stdout(io.StringIO()):
        yield


def _plain(value: Any) -> bool | int | float | str:
    """A setting as all trackers take it."""
    return value if isinstance(value, (bool, int, float, str)) else str(value)


def _read_kept(file: Path | None) -> KeptRun:
    """What an earlier process has kept; nothing where that is damaged."""
    with suppress(OSError, ValueError, TypeError):
        if file is not None and isinstance(found := read_json(file), dict):
            kept = KeptRun(**found)
            if isinstance(kept.last, dict) and isinstance(kept.files, list):
                return kept
    return KeptRun()


def _recipe_settings(run: Path) -> dict[str, Any]:
    """The fields of a run's recipe; none where a ticket lies alone."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        return dict(flatten_settings(read_json(run / "recipe.json")["recipe"]))
    return {}
