"""The command's signal handlers, in the tests' process."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from jobs.console import signals


@contextmanager
def installed_handlers() -> Iterator[None]:
    """While the block runs, signals are exceptions, as in a command."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have made the tests ignore it
    signals.install()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
