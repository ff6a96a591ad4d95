"""What accelerate's classes for trackers leave to their user: installing, logging in, going on, sending files.

One entry for each tracker that `--log` knows by name (`SERVICES`), and one for classes of users (`OWN_CLASS`). A
package is imported where it is used alone: most users have none of them, or one.
"""

import inspect
import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sslticket.errors import BadInput, one_line

PROJECT = "sslticket"
"""The project of a tracker where neither the flag nor a variable names one."""
_OFFLINE_WANDB = ("offline", "dryrun", "disabled")
_CHECK_SECONDS = 10  # until a server that does not answer is given up


@dataclass
class KeptRun:
    """What is kept of one training in one tracker, from one process to the next.

    Attributes:
        id: The tracker's name for its run; None where it gives none.
        token: What tells this run from that of another folder with the same recipe.
        last: By the name of each curve, the samples up to which it was sent.
        files: The names of files that were sent.
    """

    id: str | None = None
    token: str = field(default_factory=lambda: secrets.token_hex(16))
    last: dict[str, int] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class BegunTraining:
    """What a tracker is told of a training when it begins.

    Attributes:
        project: Where it is filed.
        given: Whether the flag says that, and not a variable or nobody.
        folder: The run's folder.
        key: Name of the run's folder: the recipe's key.
        name: Name of the training within the run.
        kept: What an earlier process has kept.
        settings: The recipe's fields, and what tells the training from others.
    """

    project: str
    given: bool
    folder: Path
    key: str
    name: str
    kept: KeptRun
    settings: Mapping[str, Any]

    @property
    def title(self) -> str:
        """What a person reads in the tracker's list."""
        return f"{self.key} {self.name}"


@dataclass(frozen=True, kw_only=True)
class Service:
    """What accelerate's class for a tracker leaves to its user.

    Attributes:
        package: The package that it imports.
        install: What to type where that is not there.
        variable: The tracker's own variable for the project; "" for none.
        usual: Its variables that are set where nobody has.
        start: The class's arguments for a training.
        check: Raises an error, whose text has the fix, where nothing could be sent.
        id: The tracker's name for the run that has been started.
        link: Where a person looks at it.
        store: Tells the run's settings, once.
        send: Sends a file: the tracker, the file, what it is, and a name for it; nothing where it has no place.
        finish: Ends the tracker's run.
    """

    package: str = ""
    install: str = ""
    variable: str = ""
    usual: Mapping[str, str] = field(default_factory=dict)
    start: Callable[[BegunTraining], dict[str, Any]] = lambda begun: {}
    check: Callable[[], None] = lambda: None
    id: Callable[[Any], str | None] = lambda tracker: None
    link: Callable[[Any], str] = lambda tracker: ""
    store: Callable[[Any, dict[str, Any]], object] = lambda tracker, values: tracker.store_init_configuration(values)
    send: Callable[[Any, Path, str, str], object] = lambda tracker, file, kind, name: None
    finish: Callable[[Any], object] = lambda tracker: tracker.finish()


def _check_wandb() -> None:
    import wandb

    settings = wandb.setup().settings
    if str(getattr(settings, "mode", "online")) in _OFFLINE_WANDB or os.environ.get("WANDB_MODE") in _OFFLINE_WANDB:
        return
    later = "or set WANDB_MODE=offline and send it later with `wandb sync`"
    asks = "prompt" in inspect.signature(wandb.login).parameters  # later versions say so without a question
    try:
        known = wandb.login(prompt=False) if asks else bool(wandb.api.api_key)
        if known:
            wandb.Api(timeout=_CHECK_SECONDS)
    except Exception as error:
        where = f"{settings.base_url} refuses or does not answer ({one_line(error)})"
        raise BadInput(f"{where}; mend that, {later}") from error
    if not known:
        raise BadInput(f"it is not logged in; type `wandb login`, {later}")


def _start_wandb(begun: BegunTraining) -> dict[str, Any]:
    import wandb

    quiet: dict[str, Any] = {"silent": True} if "WANDB_SILENT" not in os.environ else {}
    quiet |= {"console": "off"} if "WANDB_CONSOLE" not in os.environ else {}
    return {
        "run_name": begun.project,
        "id": begun.kept.token,
        "name": begun.title,
        "group": begun.key,
        "job_type": begun.name.partition(".")[0],
        "resume": "allow",
        "config": dict(begun.settings),
        "settings": wandb.Settings(**quiet),
        **({"reinit": "create_new"} if wandb.run is not None else {}),  # one of the script that called
    }


def _send_wandb(tracker: Any, file: Path, kind: str, name: str) -> None:
    import wandb

    artifact = wandb.Artifact(re.sub(r"[^\w.-]", "-", name)[-128:], type=kind)
    artifact.add_file(str(file))
    tracker.tracker.log_artifact(artifact)


@contextmanager
def _impatient_mlflow() -> Iterator[None]:
    """While this lasts a server is asked once."""
    before = os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"]
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
    try:
        yield
    finally:
        os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = before


def _check_mlflow() -> None:
    import mlflow

    where = mlflow.get_tracking_uri()
    try:
        with _impatient_mlflow():
            mlflow.search_experiments(max_results=1)
    except Exception as error:
        raise BadInput(
            f"{where} refuses or does not answer ({one_line(error)}); start that server, or set MLFLOW_TRACKING_URI to "
            "another, such as sqlite:///mlflow.db"
        ) from error


def _start_mlflow(begun: BegunTraining) -> dict[str, Any]:
    import mlflow

    return {
        "experiment_name": begun.project,
        "run_id": begun.kept.id,
        "run_name": begun.title,
        "tags": {"key": begun.key, "training": begun.name},
        "nested_run": mlflow.active_run() is not None,  # one of the script that called
    }


def _check_comet() -> None:
    import comet_ml

    if str(comet_ml.get_config("comet.start.online")) in ("False", "0"):
        return
    later = "or set COMET_START_ONLINE=0 and send it later with `comet upload`"
    if not comet_ml.get_config("comet.api_key"):
        raise BadInput(f"it is not logged in; type `comet login` or set COMET_API_KEY, {later}")
    try:
        comet_ml.API().get_default_workspace()
    except Exception as error:
        raise BadInput(f"Comet refuses or does not answer ({one_line(error)}); mend that, {later}") from error


def _start_comet(begun: BegunTraining) -> dict[str, Any]:
    import comet_ml

    plain = comet_ml.ExperimentConfig(
        name=begun.title,
        tags=[begun.key],
        auto_metric_logging=False,
        auto_param_logging=False,
        auto_output_logging=False,
        log_graph=False,
        log_code=False,
        display_summary_level=0,
    )
    return {
        "run_name": begun.project,
        "experiment_key": begun.kept.token,
        "mode": "get_or_create",
        "experiment_config": plain,
    }


def _check_trackio() -> None:
    if os.environ.get("TRACKIO_SPACE_ID"):
        from huggingface_hub import get_token

        if get_token() is None:
            raise BadInput("TRACKIO_SPACE_ID is set and nobody is logged in; type `hf auth login`, or unset it")


def _start_trackio(begun: BegunTraining) -> dict[str, Any]:
    return {
        "run_name": begun.project,
        "name": begun.title,
        "group": begun.key,
        "resume": "never" if begun.kept.id is None else "allow",
        "embed": False,
    }


def _finish_trackio(tracker: Any) -> None:
    import trackio

    trackio.finish()  # accelerate's would leave it to be ended once more when the process ends


def _start_aim(begun: BegunTraining) -> dict[str, Any]:
    return {
        "run_name": begun.title,
        "logging_dir": None,  # Aim's own place, which AIM_REPO or `aim init` says
        "experiment": begun.project,
        "run_hash": begun.kept.id,
        "capture_terminal_logs": False,
    }


def _check_tensorboard() -> None:
    try:
        from torch.utils.tensorboard import SummaryWriter  # noqa: F401  # which fails where a part of it is missing
    except ImportError as missing:
        raise ImportError(one_line(missing)) from missing


SERVICES: Mapping[str, Service] = {
    "wandb": Service(
        package="wandb",
        install="wandb",
        variable="WANDB_PROJECT",
        start=_start_wandb,
        check=_check_wandb,
        id=lambda tracker: str(tracker.tracker.id),
        link=lambda tracker: "" if tracker.tracker.offline else str(tracker.tracker.url or ""),
        store=lambda tracker, values: None,  # it was started with them
        send=_send_wandb,
    ),
    "mlflow": Service(
        package="mlflow",
        install="mlflow",
        variable="MLFLOW_EXPERIMENT_NAME",
        # A server that is gone would else hold each step up for minutes.
        usual={"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": str(_CHECK_SECONDS)},
        start=_start_mlflow,
        check=_check_mlflow,
        id=lambda tracker: str(tracker.tracker.info.run_id),
        send=lambda tracker, file, kind, name: tracker.log_artifact(str(file), artifact_path=f"{kind}s"),
    ),
    "comet_ml": Service(
        package="comet_ml",
        install="comet_ml",
        variable="COMET_PROJECT_NAME",
        usual={"COMET_LOGGING_CONSOLE": "ERROR"},  # it would list all settings after each training
        start=_start_comet,
        check=_check_comet,
        id=lambda tracker: str(tracker.tracker.get_key()),
        link=lambda tracker: str(tracker.tracker.url or ""),
        send=lambda tracker, file, kind, name: tracker.tracker.log_asset(str(file), file_name=f"{kind}s/{file.name}"),
    ),
    "trackio": Service(
        package="trackio",
        install="trackio",
        variable="TRACKIO_PROJECT",
        start=_start_trackio,
        check=_check_trackio,
        send=lambda tracker, file, kind, name: tracker.tracker.log_artifact(str(file), name=name, type=kind),
        finish=_finish_trackio,
    ),
    "aim": Service(package="aim", install="aim", start=_start_aim, id=lambda tracker: str(tracker.tracker.hash)),
    "tensorboard": Service(
        package="torch.utils.tensorboard",
        install="'sslticket[tensorboard]'",
        start=lambda begun: {"run_name": begun.name, "logging_dir": _event_folder(begun)},
        # accelerate's would make two folders more for each training, which TensorBoard lists as runs.
        store=lambda tracker, values: tracker.tracker.add_hparams(values, {}, run_name="."),
    ),
}


def _send_own(tracker: Any, file: Path, kind: str, name: str) -> None:
    if hasattr(tracker, "log_artifact"):  # as accelerate's class for MLflow has it
        tracker.log_artifact(str(file), artifact_path=f"{kind}s")


OWN_CLASS = Service(send=_send_own)
"""What a class of a user's is taken for."""


def _event_folder(begun: BegunTraining) -> Path:
    """Where TensorBoard's files go: to the run's folder, or to the run's in the folder that the flag names."""
    return Path(begun.project) / begun.key if begun.given else begun.folder / "tensorboard"
