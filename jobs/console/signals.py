"""Ctrl-C and SIGTERM as exceptions that end a command in an orderly way.

Python prints and drops an exception raised inside a finalizer or a callback of its garbage collector, of which Ray has many;
the command would go on. So long loops call raise_pending().
"""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 130
TERMINATED = 128 + signal.SIGTERM
REPEAT_SECONDS = 0.5  # wrappers such as `timeout --foreground` forward a Ctrl-C that the terminal has sent to all as well

_pending: list[BaseException] = []
_last: list[float] = []  # when the last signal came that was no repetition, of time.monotonic


class Interrupted(Exception):
    """The command was interrupted; the message says what there is, and the command to continue or follow it.

    Attributes:
        code: the exit code, INTERRUPTED or TERMINATED.
    """

    def __init__(self, message: str, code: int):
        super().__init__(message)
        self.code = code


def interrupted_run(stop: KeyboardInterrupt | SystemExit, command: str, then: str = "continues") -> BaseException:
    """What a command raises for a run that `stop` has ended: Interrupted, or `stop` itself where it is no signal's.

    Args:
        stop: its notes say what is labeled (jobs.label_corpus.run).
        command: the one to give again.
        then: what it does.
    """
    if isinstance(stop, KeyboardInterrupt):
        what, code = "interrupted", INTERRUPTED
    elif stop.code in (TERMINATED, signal.SIGTERM):  # SIGTERM: from Ray's handler, while Ray starts
        what, code = "ended by SIGTERM", TERMINATED
    else:
        return stop
    return Interrupted(": ".join([what, *getattr(stop, "__notes__", ())]) + f"; `{command}` {then}", code)


def install() -> None:
    """Install the handlers of both signals in this process. For the main thread only."""
    _last.clear()
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # a shell ignores it for background processes of a script
        signal.signal(signal.SIGINT, _receive)
    signal.signal(signal.SIGTERM, _receive)  # a machine is being reclaimed: release the lease, as after Ctrl-C


def raise_pending() -> None:
    """Raise again an interrupt that a callback of Ray's has swallowed.

    Raises:
        KeyboardInterrupt: after Ctrl-C.
        SystemExit: after SIGTERM.
    """
    if _pending:
        raise _pending.pop()


@contextmanager
def held(patience_s: float) -> Iterator[Callable[[], bool]]:
    """A block that comes to an orderly end by itself: the first signal is raised at its end, a second one at once.

    Where install() has not been called, signals do what they do without it.

    Args:
        patience_s: seconds after which the first signal is raised within the block.

    Yields:
        A function that says whether a signal has come.

    Raises:
        KeyboardInterrupt, SystemExit: as the signal would.
    """
    if signal.getsignal(signal.SIGTERM) is not _receive:
        yield lambda: False
        return
    came: list[int] = []

    def hold(number: int, frame: FrameType | None) -> None:
        if _is_repeated():
            return
        if came:
            _stop(came[0], frame)
        came.append(number)
        signal.setitimer(signal.ITIMER_REAL, patience_s)

    numbers = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) is _receive]
    before = signal.signal(signal.SIGALRM, lambda number, frame: _stop(came[0], frame))
    for number in numbers:
        signal.signal(number, hold)
    try:
        yield lambda: bool(came)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        for number in numbers:
            signal.signal(number, _receive)
    if came:
        _stop(came[0], None)


def _receive(number: int, frame: FrameType | None) -> None:
    if not _is_repeated():
        _stop(number, frame)


def _is_repeated() -> bool:
    """Whether a signal follows the one before at once: raised again it would interrupt the orderly end that has just begun."""
    now = time.monotonic()
    if _last and now - _last[0] < REPEAT_SECONDS:
        return True
    _last[:] = [now]
    return False


def _stop(number: int, frame: FrameType | None) -> None:
    _pending[:] = [KeyboardInterrupt() if number == signal.SIGINT else SystemExit(TERMINATED)]
    raise _pending[0]
