"""A terminal that several write to: what anybody writes to file descriptor 2 comes out in whole lines, above what is drawn.

Ray's C++ writes there past Python (`[... E ...] core_worker.cc`), in the middle of a picture that is being drawn. So the
descriptor is a pipe meanwhile. If this process dies, a shell that has waited for that prints what still
is in the pipe, and has the cursor shown again.
"""

import os
import select
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

STDERR = 2
# of each actor pool, as an error, though Ray Data itself keeps the arguments that it warns of: nothing a person could act on
SPARED = ("github.com/ray-project/ray/issues/53727",)
READ_BYTES = 64 * 1024
# its stdin is the pipe, its stderr one that nobody writes to but at an orderly end: it has descriptors of one digit alone
GUARD = r"""read -r ended <&2 || { printf '\033[?25h\r\n'; exec cat; }"""


@contextmanager
def stderr_in_lines(show: Callable[[str], None], terminal: int) -> Iterator[None]:
    """For the time of the block what is written to file descriptor 2 goes to `show`, from a thread of its own, in whole lines.

    Args:
        terminal: another descriptor of what 2 is, to which `show` may write.
    """
    pipe, into_pipe = os.pipe()
    lifeline, hold = os.pipe()
    over, end = os.pipe()
    guard = subprocess.Popen(
        ["/bin/sh", "-c", GUARD],
        stdin=pipe,
        stdout=terminal,
        stderr=lifeline,
        start_new_session=True,  # Ctrl-C and closing the terminal do not end it first
    )
    os.close(lifeline)
    passing = threading.Thread(target=_pass_on, args=(pipe, over, show), name="stderr-lines", daemon=True)
    passing.start()
    try:
        sys.stderr.flush()
        os.dup2(into_pipe, STDERR)
        os.close(into_pipe)
        yield
    finally:
        with suppress(OSError):
            sys.stderr.flush()
        os.dup2(terminal, STDERR)
        os.write(end, b"\n")
        passing.join()
        os.write(hold, b"\n")
        guard.wait()
        for descriptor in (pipe, hold, over, end):
            os.close(descriptor)


def _pass_on(pipe: int, over: int, show: Callable[[str], None]) -> None:
    """Until something is written to `over`; then what is left, and a line that has only begun."""
    begun = b""
    while True:
        ready, _, _ = select.select([pipe, over], [], [])
        read = os.read(pipe, READ_BYTES) if pipe in ready else b""
        if not read:
            break
        *lines, begun = (begun + read).split(b"\n")
        if lines:
            _show(lines, show)
    if begun:
        _show([begun], show)


def _show(lines: list[bytes], show: Callable[[str], None]) -> None:
    # of what a carriage return takes back only the last, as a terminal would have it
    texts = [line.decode(errors="replace").rstrip("\r").rpartition("\r")[2] for line in lines]
    text = "\n".join(text for text in texts if not any(about in text for about in SPARED))
    if not text:
        return
    with suppress(OSError):  # it has been closed: the pipe is emptied all the same, or who writes there would wait for ever
        show(text)
