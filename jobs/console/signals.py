"""Ctrl-C and SIGTERM: what their handlers raise ends a command in an orderly way, and is not lost.

Python prints and forgets what is raised inside a finalizer or a callback of its garbage collector, of which Ray has many:
then a run would go on. So a long loop asks again.
"""

import signal
from types import FrameType

INTERRUPTED = 130
TERMINATED = 128 + signal.SIGTERM

_asked: list[BaseException] = []


class LeftRunning(Exception):
    """A command that was told to end, and leaves behind what goes on without it; says how to get back to it.

    Attributes:
        code: to exit with, INTERRUPTED or TERMINATED.
    """

    def __init__(self, message: str, code: int):
        super().__init__(message)
        self.code = code


def install() -> None:
    """Handles both signals in this process from now on. Only for the main thread."""
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # as a shell has it for what a script starts in the background
        signal.signal(signal.SIGINT, _stop)
    signal.signal(signal.SIGTERM, _stop)  # a machine about to be taken away: leave as after Ctrl-C, and free the lease


def check() -> None:
    """Raises what a signal's handler has raised, if the caller still goes on in spite of it.

    Raises:
        KeyboardInterrupt, SystemExit: there was a Ctrl-C, a SIGTERM.
    """
    if _asked:
        raise _asked.pop()


def _stop(number: int, frame: FrameType | None) -> None:
    _asked[:] = [KeyboardInterrupt() if number == signal.SIGINT else SystemExit(TERMINATED)]
    raise _asked[0]
