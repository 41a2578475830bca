"""Ctrl-C and SIGTERM as exceptions that end a command in an orderly way.

Python prints and drops an exception raised inside a finalizer or a callback of its garbage collector, of which Ray has many;
the command would go on. So long loops call raise_pending().
"""

import signal
from types import FrameType

INTERRUPTED = 130
TERMINATED = 128 + signal.SIGTERM

_pending: list[BaseException] = []


class Interrupted(Exception):
    """The command was interrupted; the message says what there is, and the command to continue or follow it.

    Attributes:
        code: the exit code, INTERRUPTED or TERMINATED.
    """

    def __init__(self, message: str, code: int):
        super().__init__(message)
        self.code = code


def interrupted_run(stop: KeyboardInterrupt | SystemExit, command: str) -> BaseException:
    """What a command raises for a run that `stop` has ended: Interrupted, or `stop` itself where it is no signal's.

    Args:
        stop: its notes say what is labeled (jobs.label_corpus.run).
        command: continues the run.
    """
    if isinstance(stop, KeyboardInterrupt):
        what, code = "interrupted", INTERRUPTED
    elif stop.code in (TERMINATED, signal.SIGTERM):  # SIGTERM: from Ray's handler, while Ray starts
        what, code = "ended by SIGTERM", TERMINATED
    else:
        return stop
    return Interrupted(": ".join([what, *getattr(stop, "__notes__", ())]) + f"; `{command}` continues", code)


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
