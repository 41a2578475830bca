"""Signals whose exceptions get lost."""

import os
import signal
from collections.abc import Iterator

import pytest

from jobs.console import signals
from tests.support.signal_handlers import installed_handlers


@pytest.fixture
def handlers() -> Iterator[None]:
    with installed_handlers():
        yield


def test_ctrl_c_that_is_ignored_stays_ignored(handlers: None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signals.install()
    os.kill(os.getpid(), signal.SIGINT)
    signals.raise_pending()


@pytest.mark.usefixtures("handlers")
def test_ctrl_c_that_a_wrapper_sends_a_second_time_does_not_interrupt_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def end_in_order() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            ended.append(True)

    ended: list[bool] = []
    with pytest.raises(KeyboardInterrupt):
        end_in_order()
    assert ended == [True]
    monkeypatch.setattr(signals, "REPEAT_SECONDS", 0)
    with pytest.raises(KeyboardInterrupt):  # a person who does not want to wait
        os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):  # kept for a loop that asks
        signals.raise_pending()


class SignalledInFinalizer:
    def __init__(self, number: int):
        self.number = number

    def __del__(self) -> None:
        os.kill(os.getpid(), self.number)


@pytest.mark.usefixtures("handlers")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_signal_in_a_finalizer_ends_the_loop_that_asks(number: int, error: type[BaseException]) -> None:
    signals.raise_pending()
    signalled = SignalledInFinalizer(number)
    del signalled  # Python forgets what is raised here
    with pytest.raises(error):
        signals.raise_pending()
    signals.raise_pending()
