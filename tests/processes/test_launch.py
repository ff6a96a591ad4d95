"""What a launcher has set up, and a connection between two processes."""

import socket
from collections.abc import Iterator

import pytest

from sslticket import processes
from sslticket.cli.exit_status import run_and_exit
from sslticket.config.runtime import RuntimeConfig
from sslticket.errors import BadInput
from sslticket.processes.watchdog import Connection
from sslticket.training.engine import Engine

NAMES = (
    "WORLD_SIZE",
    "RANK",
    "LOCAL_RANK",
    "MASTER_ADDR",
    "MASTER_PORT",
    "ACCELERATE_USE_CPU",
    "PMI_SIZE",
    "OMPI_COMM_WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "SLURM_STEP_NUM_TASKS",
)


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def given(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_without_a_launcher_there_is_one_process() -> None:
    processes.rendezvous()
    assert (processes.rank(), processes.world_size()) == (0, 1)


def test_accelerate_may_launch_one_process_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, ACCELERATE_USE_CPU="True")
    processes.check_launch()


def test_one_process_that_was_to_be_several_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, ACCELERATE_USE_CPU="False", MASTER_ADDR="127.0.0.1", MASTER_PORT="29500")
    with pytest.raises(BadInput, match="torchrun --nproc-per-node N in place of accelerate launch"):
        processes.check_launch()


def test_several_processes_without_a_meeting_place_are_refused_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given(monkeypatch, WORLD_SIZE="4", RANK="1", MASTER_ADDR="127.0.0.1")
    for act in (processes.rendezvous, lambda: Engine.create(RuntimeConfig(), "fp32")):
        with pytest.raises(BadInput, match="WORLD_SIZE is 4, and LOCAL_RANK, MASTER_PORT are not set"):
            act()


@pytest.mark.parametrize("number", ["all", "0", "-2", ""])
def test_a_number_of_processes_has_to_be_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: str
) -> None:
    given(monkeypatch, WORLD_SIZE=number, RANK="1")
    with pytest.raises(SystemExit) as ended:
        run_and_exit(lambda: None)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: WORLD_SIZE must be a number of processes from 1, got '{number}'")


def test_a_single_process_is_the_first_whatever_number_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, RANK="1")
    assert processes.rank() == 0


@pytest.mark.parametrize("name", ["PMI_SIZE", "OMPI_COMM_WORLD_SIZE"])
def test_processes_of_mpi_are_named_and_only_where_no_launcher_of_ours_is_within(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    given(monkeypatch, **{name: "1"})
    processes.check_launch()
    given(monkeypatch, **{name: "2"})
    with pytest.raises(BadInput, match=f"{name}=2 means processes that MPI started"):
        processes.check_launch()
    given(monkeypatch, WORLD_SIZE="1")
    processes.check_launch()


def test_a_time_out_has_to_be_one() -> None:
    with pytest.raises(BadInput, match="must be a finite number of minutes above 0"):
        RuntimeConfig(timeout=0)


@pytest.fixture
def ends() -> Iterator[tuple[Connection, socket.socket]]:
    with (
        socket.create_server(("localhost", 0)) as server,
        socket.create_connection(server.getsockname()) as other,
        server.accept()[0] as mine,
    ):
        yield Connection(mine), other


def test_words_arrive_whole_and_in_order_however_they_are_cut(ends: tuple[Connection, socket.socket]) -> None:
    line, other = ends
    other.sendall(b'{"gone": 2, "code"')
    assert line.receive() == []
    other.sendall(b': 1}\n{}\n{"all"')
    assert line.receive() == [{"gone": 2, "code": 1}, {}]


def test_what_a_process_said_before_it_ended_is_heard(ends: tuple[Connection, socket.socket]) -> None:
    line, other = ends
    Connection(other).send(gone=2, code=0)
    other.close()
    assert line.receive() == [{"gone": 2, "code": 0}]
    assert line.receive() is None


def test_what_does_not_speak_as_we_do_is_none_of_us(ends: tuple[Connection, socket.socket]) -> None:
    line, other = ends
    other.sendall(b"GET / HTTP/1.1\r\n\r\n")
    assert line.receive() is None


def test_who_is_gone_can_be_spoken_to_in_vain(ends: tuple[Connection, socket.socket]) -> None:
    line, other = ends
    other.close()
    for _ in range(3):
        line.send()
    assert line.receive() is None


@pytest.mark.parametrize(
    ("name", "value"),
    [("RANK", "x"), ("RANK", "2"), ("LOCAL_RANK", "-1"), ("LOCAL_WORLD_SIZE", "0"), ("MASTER_PORT", "http")],
)
def test_numbers_of_a_launcher_have_to_be_some(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    fine = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    given(monkeypatch, **fine)
    processes.check_launch()
    given(monkeypatch, **{name: value})
    with pytest.raises(BadInput, match=f"^{name} must be a number from .* got '{value}'"):
        processes.check_launch()


def test_a_single_process_decodes_with_all_processors_whatever_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = RuntimeConfig().decode_threads
    given(monkeypatch, LOCAL_WORLD_SIZE="many")
    assert RuntimeConfig().decode_threads == alone


def test_processes_that_srun_started_by_themselves_are_told_why_the_folder_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert processes.separate_launch_note() == ""
    given(monkeypatch, SLURM_STEP_NUM_TASKS="4")
    assert processes.separate_launch_note().startswith("SLURM_STEP_NUM_TASKS=4 means 4 processes")
    given(monkeypatch, WORLD_SIZE="4")
    assert processes.separate_launch_note() == ""
