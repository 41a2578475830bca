"""What people see of a command while it works, on stderr: on a terminal a picture, drawn again in place; elsewhere a line now
and then; nothing where they asked for quiet.

A run's picture costs 3 ms of this process's CPU time, 4 with 1,000 labels and a wide window (measured): twice a second that is
less than half a percent of two cores.
"""

import os
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import TextIO

from rich.console import Console, RenderableType
from rich.live import Live as Drawing
from rich.text import Text

from cluster.periodic import called_every
from jobs.console.stderr_capture import STDERR, stderr_in_lines

DRAW_SECONDS = 0.5
LINE_SECONDS = 10


class Live:
    """The picture, or the lines, for the time of a with block."""

    def __init__(self, picture: Callable[[], RenderableType], line: Callable[[], str], *, quiet: bool):
        """
        Args:
            picture: what a terminal shows; called in a thread of its own.
            line: what is printed elsewhere, the same; empty: nothing.
        """
        self.quiet, self._picture, self._line = quiet, picture, line
        self._console = Console(file=sys.stderr, quiet=quiet)
        # not rich's opinion: FORCE_COLOR makes a log file a terminal to it
        self.is_drawn = sys.stderr.isatty() and not self._console.is_dumb_terminal and not quiet
        # rich finds out where the picture begins before it draws, without a lock: of two threads one would draw over the other
        self._drawing = threading.RLock()
        self._end = ExitStack()

    def __enter__(self) -> "Live":
        if self.quiet:
            return self
        closed = OSError  # of a terminal that has been closed
        with ExitStack() as stack:
            if self.is_drawn and _is_stderr(sys.stderr):
                terminal = stack.enter_context(open(os.dup(STDERR), "w", encoding="utf-8", errors="replace"))
                self._console = Console(file=terminal, force_terminal=True)
                stack.enter_context(stderr_in_lines(self._pass_on, terminal.fileno()))
            if self.is_drawn:
                drawing = Drawing(
                    get_renderable=self._picture,
                    console=self._console,
                    auto_refresh=False,
                    transient=True,
                    redirect_stdout=False,
                    redirect_stderr=False,
                    vertical_overflow="crop",
                )
                stack.callback(self._locked, drawing.stop)
                self._locked(drawing.start)
                stack.enter_context(called_every(DRAW_SECONDS, lambda: self._locked(drawing.refresh), "live", closed))
            else:
                stack.enter_context(called_every(LINE_SECONDS, self._say_line, "live", closed))
            self._end = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._end.close()
        self._console = Console(file=sys.stderr, quiet=self.quiet)

    def say(self, text: str) -> None:
        """A line that stays."""
        self._locked(lambda: self._console.print(text, highlight=False, markup=False, soft_wrap=True))

    def _say_line(self) -> None:
        line = self._line()
        if line:
            self.say(line)

    def _pass_on(self, lines: str) -> None:
        self._locked(lambda: self._console.print(Text.from_ansi(lines), soft_wrap=True))

    def _locked(self, draw: Callable[[], object]) -> None:
        with self._drawing:
            if self.is_drawn:
                with suppress(OSError, ValueError):
                    # the window's as it is now; rich looks at descriptors 0 to 2, none of which need be the terminal
                    self._console.size = os.get_terminal_size(self._console.file.fileno())
            draw()


def _is_stderr(file: TextIO) -> bool:
    with suppress(OSError, ValueError):
        return file.fileno() == STDERR
    return False
