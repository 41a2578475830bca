"""Capture of file descriptor 2 during a live view, so that output of other writers appears in whole lines above the view.

Ray's C++ code writes to the descriptor directly (`[... E ...] core_worker.cc`), also while the view is being drawn. So the
descriptor is replaced by a pipe. If this process dies, a guard process, a shell, prints what is left in the pipe and shows the
cursor again. Without a view the lines pass through such a pipe as well, for the sake of those that are left out.
"""

import os
import select
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

STDERR = 2
# logged as an error for each actor pool because of arguments that Ray Data itself keeps; nothing a user could act on
SUPPRESSED = ("github.com/ray-project/ray/issues/53727",)
PIPE_READ_BYTES = 64 * 1024
# stdin is the pipe; a line on stderr, a second pipe, means an orderly end. A portable shell can redirect only
# descriptors of one digit, hence these two
GUARD = r"""read -r ended <&2 || { if [ -t 1 ]; then printf '\033[?25h\r\n'; fi; exec cat; }"""


@contextmanager
def capture_stderr(write: Callable[[str], None], terminal: int) -> Iterator[None]:
    """Pass everything written to file descriptor 2 during the block to `write`, in whole lines.

    Args:
        write: called in a separate thread with one or more lines.
        terminal: a duplicate of descriptor 2 as it was, to which `write` may write.
    """
    pipe, into_pipe = os.pipe()
    lifeline, hold = os.pipe()
    stopped, stop = os.pipe()
    guard = subprocess.Popen(
        ["/bin/sh", "-c", GUARD],
        stdin=pipe,
        stdout=terminal,
        stderr=lifeline,
        start_new_session=True,  # so that Ctrl-C or a closed terminal does not end it before this process
    )
    os.close(lifeline)
    forwarder = threading.Thread(target=_forward, args=(pipe, stopped, write), name="stderr-lines", daemon=True)
    forwarder.start()
    try:
        sys.stderr.flush()
        os.dup2(into_pipe, STDERR)
        os.close(into_pipe)
        yield
    finally:
        with suppress(OSError):
            sys.stderr.flush()
        os.dup2(terminal, STDERR)
        os.write(stop, b"\n")
        forwarder.join()
        os.write(hold, b"\n")
        guard.wait()
        for descriptor in (pipe, hold, stopped, stop):
            os.close(descriptor)


@contextmanager
def unhelpful_lines_left_out() -> Iterator[None]:
    """Leaves SUPPRESSED lines out of what is written to file descriptor 2 during the block, and passes all others on.

    It does nothing where sys.stderr is not that descriptor.
    """
    if not is_descriptor_2(sys.stderr):
        yield
        return
    with (
        open(os.dup(STDERR), "w", encoding="utf-8", errors="replace") as log,
        capture_stderr(lambda lines: print(lines, file=log, flush=True), log.fileno()),
    ):
        yield


def is_descriptor_2(file: TextIO) -> bool:
    """Whether `file` writes to the process's stderr, not to a test's or a notebook's."""
    with suppress(OSError, ValueError):
        return file.fileno() == STDERR
    return False


def _forward(pipe: int, stopped: int, write: Callable[[str], None]) -> None:
    """Forward lines until `stopped` is readable, then the rest of the pipe and an unfinished last line."""
    unfinished = b""
    while True:
        ready, _, _ = select.select([pipe, stopped], [], [])
        read = os.read(pipe, PIPE_READ_BYTES) if pipe in ready else b""
        if not read:
            break
        *lines, unfinished = (unfinished + read).split(b"\n")
        if lines:
            _write_lines(lines, write)
    if unfinished:
        _write_lines([unfinished], write)


def _write_lines(lines: list[bytes], write: Callable[[str], None]) -> None:
    # a carriage return overwrites the line, as on a terminal: only the last text remains
    texts = [line.decode(errors="replace").rstrip("\r").rpartition("\r")[2] for line in lines]
    text = "\n".join(text for text in texts if not any(pattern in text for pattern in SUPPRESSED))
    if not text:
        return
    with suppress(OSError):  # a closed terminal: go on emptying the pipe, or its writers block forever
        write(text)
