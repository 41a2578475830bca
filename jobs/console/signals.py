"""Ctrl-C and SIGTERM as exceptions that end a command in an orderly way.

Python prints and drops an exception raised inside a finalizer or a callback of its garbage collector, of which Ray has many;
the command would go on. So long loops call raise_pending().
"""

import signal
from types import FrameType

INTERRUPTED = 130
TERMINATED = 128 + signal.SIGTERM

_pending: list[BaseException] = []


class LeftRunning(Exception):
    """The command was interrupted while a cluster goes on with its work; the message gives the command to follow it again.

    Attributes:
        code: the exit code, INTERRUPTED or TERMINATED.
    """

    def __init__(self, message: str, code: int):
        super().__init__(message)
        self.code = code


def install() -> None:
    """Install the handlers of both signals in this process. For the main thread only."""
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # a shell ignores it for background processes of a script
        signal.signal(signal.SIGINT, _stop)
    signal.signal(signal.SIGTERM, _stop)  # a machine is being reclaimed: release the lease, as after Ctrl-C


def raise_pending() -> None:
    """Raise again an interrupt that a callback of Ray's has swallowed.

    Raises:
        KeyboardInterrupt: after Ctrl-C.
        SystemExit: after SIGTERM.
    """
    if _pending:
        raise _pending.pop()


def _stop(number: int, frame: FrameType | None) -> None:
    _pending[:] = [KeyboardInterrupt() if number == signal.SIGINT else SystemExit(TERMINATED)]
    raise _pending[0]
