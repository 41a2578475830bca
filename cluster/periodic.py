"""Calling a function again and again in the background."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


@contextmanager
def called_every(seconds: float, function: Callable[[], object], name: str, *ignored: type[Exception]) -> Iterator[None]:
    """While the block runs, calls `function` every `seconds` in a thread, which is joined when the block ends.

    Args:
        name: of the thread.
        ignored: exceptions after which the calls go on; any other ends the thread.
    """
    stopped = threading.Event()

    def repeat() -> None:
        while not stopped.wait(seconds):
            with suppress(*ignored):
                function()

    thread = threading.Thread(target=repeat, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
