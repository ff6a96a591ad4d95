"""Tickets on the Hugging Face Hub: the real client against a small Hub of our own on this machine."""

import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from torch import nn
from torch.nn.utils import prune

from sslticket import hub, models
from sslticket.cli.commands import run_command
from sslticket.config.training import SGD, TrainConfig
from sslticket.errors import BadInput
from sslticket.evaluation import protocols
from sslticket.evaluation.protocols import Protocol
from sslticket.storage.files import atomic_write
from sslticket.ticket import Ticket
from tests.runs import search

COMMIT = "0" * 39 + "1"


class Requests(BaseHTTPRequestHandler):
    """Answers as the Hub does for the files in `files`, keyed by repository, revision and path."""

    files: dict[str, bytes]

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        where = self.path.lstrip("/").replace("%2F", "/")
        content = self.files.get(where)
        repo, _, rest = where.partition("/resolve/")
        if content is None:
            known = [name for name in self.files if name.startswith(f"{repo}/resolve/")]
            same = [name for name in known if name.split("/resolve/")[1].split("/")[0] == rest.split("/")[0]]
            code = "RepoNotFound" if not known else "EntryNotFound" if same else "RevisionNotFound"
            code = {"mine/gated": "GatedRepo"}.get(repo, code)
            self.send_response(403 if code == "GatedRepo" else 404)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if repo == "mine/broken" and with_body:
            self.send_error(418)
            return
        self.send_response(200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if with_body:
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return search(tmp_path_factory.mktemp("runs")).run_dir.ticket_path(2)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> str:
    """A protocol of six steps on digits."""
    fit = TrainConfig(length="6it", batch_size=32, optimizer=SGD(lr=0.1))
    monkeypatch.setitem(protocols._BY_NAME, "short", Protocol(name="short", dataset="digits", training=fit))
    return "short"


@pytest.fixture
def served(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """The files of a Hub, which may be changed."""
    content = file.read_bytes()
    Requests.files = {
        "me/ticket/resolve/main/ticket.safetensors": content,
        "me/ticket/resolve/v1/ticket.safetensors": file.with_name("level-01.safetensors").read_bytes(),
        "me/ticket/resolve/main/tickets/level-02.safetensors": content,
        "mine/broken/resolve/main/ticket.safetensors": content,
        "me/ticket/resolve/refs/pr/3/sparse/ticket.safetensors": content,
    }
    server = ThreadingHTTPServer(("127.0.0.1", 0), Requests)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    home = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", home)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", home + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    yield Requests.files
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("place", "level"),
    [
        ("hf://me/ticket", 2),
        ("hf://me/ticket/", 2),
        (Path("hf://me/ticket"), 2),
        ("hf://me/ticket@v1", 1),
        ("hf://me/ticket/tickets/level-02.safetensors", 2),
        ("hf://me/ticket@refs/pr/3/sparse", 2),
    ],
    ids=str,
)
@pytest.mark.usefixtures("served")
def test_a_ticket_is_loaded_by_its_name(file: Path, place: Path | str, level: int) -> None:
    assert Ticket.load(place).hash == Ticket.load(file.with_name(f"level-0{level}.safetensors")).hash


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("hf://you/ticket", "has no repository you/ticket, or a private one; check the name, or run `hf auth login`"),
        ("hf://me/ticket@v9", "me/ticket has no revision v9"),
        ("hf://me/ticket/other", r"me/ticket has no file other/ticket\.safetensors; write hf://user/name/path"),
        ("hf://mine/gated", "accept its terms on https://huggingface.co/mine/gated"),
        ("hf://mine/broken", r"hf://mine/broken/ticket\.safetensors cannot be fetched \(.*418"),
        ("hf://a..b/ticket", r"cannot be fetched \(.*a\.\.b"),
        ("hf://ticket", "is no name on the Hugging Face Hub; write it hf://user/name"),
        ("hf://me/ticket/../x", "is no name on the Hugging Face Hub"),
        ("hf://", "is no name on the Hugging Face Hub"),
    ],
)
@pytest.mark.usefixtures("served")
def test_what_the_hub_refuses_is_one_line(place: str, message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        Ticket.load(place)
    assert "\n" not in str(caught.value)


def test_a_damaged_ticket_on_the_hub_is_refused(served: dict[str, bytes]) -> None:
    served["me/ticket/resolve/main/ticket.safetensors"] = served["me/ticket/resolve/main/ticket.safetensors"][:-4]
    with pytest.raises(BadInput, match=r"ticket\.safetensors is no whole safetensors file"):
        Ticket.load("hf://me/ticket")


def test_without_a_network_what_was_fetched_before_is_there_and_nothing_else(
    served: dict[str, bytes], file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert served
    Ticket.load("hf://me/ticket")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert Ticket.load("hf://me/ticket").hash == Ticket.load(file).hash
    with pytest.raises(
        BadInput, match="HF_HUB_OFFLINE is set; where there is a network, run `hf download me/ticket tick"
    ):
        Ticket.load("hf://me/ticket@v1")


def test_without_the_client_the_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(BadInput, match="pip install huggingface_hub"):
        Ticket.load("hf://me/ticket")


@pytest.mark.usefixtures("served")
def test_rows_of_a_ticket_on_the_hub_lie_in_out_and_not_in_the_cache(
    short: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["evaluate", "hf://me/ticket@v1", "hf://me/ticket/tickets/level-02.safetensors"]
    words += ["--protocol", short, "--seeds", "0", "--out", str(out)]
    run_command(words)
    assert f"next: sslticket report {out / 'me--ticket@v1'} {out / 'me--ticket'} -o" in capsys.readouterr().out
    rows = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.jsonl"))
    assert rows == [
        "me--ticket/rows/level-02.ticket.short.own-head.seed0.jsonl",
        "me--ticket@v1/rows/ticket.ticket.short.own-head.seed0.jsonl",
    ]
    assert not list((tmp_path / "cache").rglob("*.jsonl"))
    run_command(words)
    assert "0 rows measured, 2 were there already" in capsys.readouterr().out


def test_a_copy_follows_the_hub(served: dict[str, bytes], tmp_path: Path) -> None:
    copy = hub.copy_from_hub("hf://me/ticket", tmp_path / "out")
    before = copy.read_bytes()
    with atomic_write(copy) as temporary:
        temporary.write_bytes(b"changed here")
    assert hub.copy_from_hub("hf://me/ticket", tmp_path / "out").read_bytes() == before
    newer = served["me/ticket/resolve/v1/ticket.safetensors"]
    served["me/ticket/resolve/main/ticket.safetensors"] = newer
    shutil.rmtree(tmp_path / "cache")  # this Hub gives all its commits one name
    assert hub.copy_from_hub("hf://me/ticket", tmp_path / "out").read_bytes() == newer


@pytest.mark.usefixtures("served")
def test_inspect_and_export_take_a_name(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_command(["inspect", "hf://me/ticket"])
    assert f"hf://me/ticket, {file.stat().st_size:,} bytes, hash {Ticket.load(file).hash}" in capsys.readouterr().out
    run_command(["export", "hf://me/ticket", str(tmp_path / "out")])
    assert (tmp_path / "out" / "ticket.safetensors").read_bytes() == file.read_bytes()
    run_command(["inspect", str(tmp_path / "out")])
    assert f"{tmp_path / 'out'}, {file.stat().st_size:,} bytes" in capsys.readouterr().out


def test_an_exported_folder_is_evaluated_as_a_lone_ticket(short: str, file: Path, tmp_path: Path) -> None:
    run_command(["export", str(file), str(tmp_path / "out")])
    run_command(["evaluate", str(tmp_path / "out"), "--protocol", short, "--seeds", "0", "--levels", "7"])
    assert [path.name for path in (tmp_path / "out" / "rows").iterdir()] == ["ticket.ticket.short.own-head.seed0.jsonl"]


def test_a_ticket_of_another_tool_is_described_and_scored_from_the_hub(
    served: dict[str, bytes], short: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backbone = models.create_model("conv3", channels=1, image_size=8)
    for layer in (module for module in backbone.modules() if isinstance(module, nn.Conv2d)):
        prune.l1_unstructured(layer, "weight", amount=0.5)
    torch.save(backbone.state_dict(), tmp_path / "theirs.pt")
    run_command(["import", f"{tmp_path}/theirs.pt", f"{tmp_path}/ours.safetensors", "--model", "conv3"])
    served["me/theirs/resolve/main/ticket.safetensors"] = (tmp_path / "ours.safetensors").read_bytes()
    run_command(["inspect", "hf://me/theirs"])
    assert "objective unknown\n" in capsys.readouterr().out
    run_command(["evaluate", "hf://me/theirs", "--protocol", short, "--seeds", "0", "--out", str(tmp_path / "runs")])
    (row,) = (tmp_path / "runs" / "me--theirs" / "rows").glob("*.jsonl")
    assert "search_seed" not in json.loads(row.read_text())
