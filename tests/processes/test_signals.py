"""Signals that are put off while a network is trained."""

import os
import signal
import time
from collections.abc import Iterator

import pytest

from sslticket.processes import signals


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    with signals.raise_on_signals(signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        yield


def send(number: int) -> None:
    os.kill(os.getpid(), number)


def test_a_signal_is_raised_where_nothing_is_trained() -> None:
    with pytest.raises(signals.Stopped):
        send(signal.SIGUSR1)
    assert signals.received_signal() == signal.SIGUSR1


def test_a_warning_and_a_preemption_after_it_are_one_request() -> None:
    with pytest.raises(signals.Stopped), signals.put_off():  # noqa: PT012  # a request that nobody obeys comes again
        send(signal.SIGUSR1)
        send(signal.SIGTERM)
        assert signals.requested_signal() == signal.SIGUSR1


def test_one_comes_after_half_a_minute_and_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with pytest.raises(signals.Stopped), signals.put_off():  # noqa: PT012
        send(signal.SIGUSR1)
        now = 131.0
        send(signal.SIGTERM)
    assert signals.received_signal() == signal.SIGTERM


def test_a_second_ctrl_c_ends_at_once_but_for_a_launchers_echo(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with pytest.raises(KeyboardInterrupt), signals.put_off():  # noqa: PT012
        send(signal.SIGINT)
        send(signal.SIGINT)
        now = 103.0
        assert signals.received_signal() is None
        send(signal.SIGINT)


def test_while_a_process_leaves_by_one_no_other_disturbs_it() -> None:
    with pytest.raises(signals.Stopped), signals.put_off():  # noqa: PT012
        send(signal.SIGUSR1)
        signals.obey(signal.SIGUSR1, kept=True)
    send(signal.SIGTERM)
    assert signals.received_signal() == signal.SIGUSR1
    assert signals.stop_message(signal.SIGUSR1).endswith("the same command goes on from there")


def test_time_limits_and_preemptions_end_begun_work_with_the_code_of_a_requeue() -> None:
    signals.set_activity(None)
    assert signals.exit_code(signal.SIGTERM) == 143
    signals.set_activity(lambda: "in level 1")
    try:
        requeued = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)
        assert {signals.exit_code(number) for number in requeued} == {75}
        assert [signals.exit_code(number) for number in (signal.SIGINT, signal.SIGHUP)] == [130, 129]
    finally:
        signals.set_activity(None)
