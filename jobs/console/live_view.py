"""Progress of a command on stderr: on a terminal a view that is redrawn in place, elsewhere a line every few seconds, with
--quiet nothing.

Drawing the view of a run takes 3 ms of CPU time, 4 ms with 1,000 labels and a wide window (measured): twice a second, less than
half a percent of two cores.
"""

import os
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from cluster.periodic import called_every
from jobs.console.stderr_capture import STDERR, capture_stderr, is_descriptor_2

DRAW_SECONDS = 0.5
LINE_SECONDS = 10


class LiveView:
    """Shows the view, or prints the lines, during a with block."""

    def __init__(self, view: Callable[[], RenderableType], line: Callable[[], str], *, quiet: bool):
        """
        Args:
            view: renders the view of a terminal; called in a separate thread.
            line: the line to print elsewhere, or an empty string for none; called in a separate thread.
        """
        self.quiet, self._view, self._line = quiet, view, line
        self._console = Console(file=sys.stderr, quiet=quiet)
        # not Console.is_terminal, which FORCE_COLOR makes true for a log file
        self.is_drawn = sys.stderr.isatty() and not self._console.is_dumb_terminal and not quiet
        # rich locates the view before it draws, without a lock: two threads would draw over each other
        self._lock = threading.RLock()
        self._stack = ExitStack()

    def __enter__(self) -> "LiveView":
        if self.quiet:
            return self
        ignored = OSError  # raised when the terminal is closed
        with ExitStack() as stack:
            if self.is_drawn and is_descriptor_2(sys.stderr):
                terminal = stack.enter_context(open(os.dup(STDERR), "w", encoding="utf-8", errors="replace"))
                self._console = Console(file=terminal, force_terminal=True)
                stack.enter_context(capture_stderr(self._print_captured, terminal.fileno()))
            if self.is_drawn:
                live = Live(
                    get_renderable=self._view,
                    console=self._console,
                    auto_refresh=False,
                    transient=True,
                    redirect_stdout=False,
                    redirect_stderr=False,
                    vertical_overflow="crop",
                )
                stack.callback(self._locked, live.stop)
                self._locked(live.start)
                stack.enter_context(called_every(DRAW_SECONDS, lambda: self._locked(live.refresh), "live", ignored))
            else:
                stack.enter_context(called_every(LINE_SECONDS, self._print_line, "live", ignored))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()
        self._console = Console(file=sys.stderr, quiet=self.quiet)

    def say(self, text: str) -> None:
        """Print a line above the view."""
        self._locked(lambda: self._console.print(text, highlight=False, markup=False, soft_wrap=True))

    def _print_line(self) -> None:
        line = self._line()
        if line:
            self.say(line)

    def _print_captured(self, lines: str) -> None:
        self._locked(lambda: self._console.print(Text.from_ansi(lines), soft_wrap=True))

    def _locked(self, draw: Callable[[], object]) -> None:
        with self._lock:
            if self.is_drawn:
                with suppress(OSError, ValueError):
                    # the current size of the terminal: rich asks descriptors 0 to 2, which may all be redirected
                    self._console.size = os.get_terminal_size(self._console.file.fileno())
            draw()
