"""A terminal as a person sees it: a command on a pty, and an emulator that draws what it writes."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pyte

from tests.support.running import kill_group

HISTORY_LINES = 2000


class Terminal:
    """A command's terminal: stdout goes elsewhere if it is given so, stderr and stdin are the terminal."""

    def __init__(self, process: subprocess.Popen[bytes], descriptor: int, columns: int, rows: int):
        self.process, self._descriptor = process, descriptor
        self._screen = pyte.HistoryScreen(columns, rows, history=HISTORY_LINES, ratio=0.5)
        self._stream = pyte.ByteStream(self._screen)

    @property
    def lines(self) -> list[str]:
        """What is to be seen, without what is blank at the end."""
        return "\n".join(line.rstrip() for line in self._screen.display).rstrip().split("\n")

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    @property
    def cursor_is_hidden(self) -> bool:
        return self._screen.cursor.hidden

    @property
    def scrolled(self) -> str:
        """All that has been on the screen and stayed: what has left it at the top, and what is to be seen."""
        gone = ["".join(line[x].data for x in range(self._screen.columns)).rstrip() for line in self._screen.history.top]
        return "\n".join([*gone, *self.lines])

    def see(self, seen: Callable[["Terminal"], bool], what: str, timeout_s: float) -> None:
        """Draws what comes until `seen` says so; fails with `what` and the screen when it does not in time.

        The screen is looked at when nothing has come for a moment: a picture arrives in pieces.
        """
        deadline = time.monotonic() + timeout_s
        while self._draw(0.1) or not seen(self):
            assert time.monotonic() < deadline, f"{what}: not within {timeout_s} s; the screen:\n{self.text}"

    def end(self, timeout_s: float) -> int:
        """Draws what comes until the command has ended; its exit code."""
        deadline = time.monotonic() + timeout_s
        while self.process.poll() is None or self._draw(0.1):
            assert time.monotonic() < deadline, f"the command did not end within {timeout_s} s; the screen:\n{self.text}"
            self._draw(0.1)
        return self.process.returncode

    def _draw(self, wait_s: float) -> bool:
        ready, _, _ = select.select([self._descriptor], [], [], wait_s)
        if not ready:
            return False
        try:
            written = os.read(self._descriptor, 65536)
        except OSError:  # nobody holds the other end any more
            return False
        self._stream.feed(written)
        return bool(written)


@contextmanager
def on_terminal(command: Sequence[str], columns: int = 80, rows: int = 24, stdout: int | None = None) -> Iterator[Terminal]:
    """Starts a command on a terminal of its own; it is stopped when the block is left, whatever happened in it.

    Args:
        stdout: a descriptor for it in place of the terminal.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    process = subprocess.Popen(
        command,
        stdin=theirs,
        stdout=theirs if stdout is None else stdout,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm-256color"},
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    os.close(theirs)
    try:
        yield Terminal(process, ours, columns, rows)
    finally:
        kill_group(process)
        process.wait()
        os.close(ours)
