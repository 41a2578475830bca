"""A Python process that calls functions for this one: it imports what they need while this one does something else.

Messages are pickled and travel through a socket pair. The process ends with its parent, and takes nothing with it when it dies:
what it has put into storage counts only once the parent has committed it.
"""

import os
import pickle
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from cluster.session import child_environment
from pipeline_ops.loading.libraries import import_uncollected

# sys.path first: without it the module may not be found
CODE = "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); from {module} import main; main()"
RESULT, DONE, ERROR, NEWS = "result", "done", "error", "news"
WAIT_S = 10  # between two calls of on_wait


class WorkerDied(Exception):
    """The process has ended without an answer: killed by a signal, or for its memory."""


class WorkerProcess:
    """The process, from its parent's side.

    Args:
        modules: imported at once, in this order.
        environment: variables for it, before those of this process.
    """

    def __init__(self, modules: Sequence[str], environment: dict[str, str | None]):
        ours, theirs = Pipe()
        self._connection = ours
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # what libraries print; the parent's terminal has a picture on it
        self._process = subprocess.Popen(
            [sys.executable, "-c", CODE.format(module=__name__), str(theirs.fileno()), *modules],
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            env=child_environment(environment),
            pass_fds=[theirs.fileno()],
            start_new_session=True,  # Ctrl-C in the terminal comes to the parent alone
        )
        theirs.close()
        assert self._process.stdin is not None
        with suppress(BrokenPipeError), self._process.stdin as stdin:  # of a process that has ended: run() says so
            pickle.dump(sys.path, stdin)

    def run(
        self,
        function: Callable[..., Iterator[Any]],
        *arguments: Any,
        on_news: Callable[[Any], None] = lambda news: None,
        on_wait: Callable[[], None] | None = None,
    ) -> Iterator[Any]:
        """Yields what `function`, a module's generator function, yields in the process; one call at a time, read to its end.

        Args:
            on_news: called with what the function posts on the way.
            on_wait: called every WAIT_S seconds without a message.

        Raises:
            WorkerDied: the process ended on the way.
            Exception: the one that the function has raised.
        """
        self._exchange(lambda: self._connection.send((function, arguments)))
        while True:
            while not self._exchange(lambda: self._connection.poll(WAIT_S)):
                if on_wait is not None:
                    on_wait()
            kind, value = self._exchange(self._connection.recv)
            if kind == DONE:
                return
            if kind == ERROR:
                raise value
            if kind == NEWS:
                on_news(value)
            else:
                yield value

    def _exchange(self, message: Callable[[], Any]) -> Any:
        try:
            return message()
        except (EOFError, OSError) as error:  # it also ends in the middle of a message
            raise WorkerDied(self._how_it_ended()) from error

    def close(self) -> None:
        """Ends the process, whatever it is doing."""
        self._connection.close()
        self._process.kill()
        self._process.wait()
        self._log.close()

    def _how_it_ended(self) -> str:
        code = self._process.wait()
        self._log.seek(max(os.fstat(self._log.fileno()).st_size - 2000, 0))
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return f"the process that labels has ended ({how}{f', {lines[-1]}' if lines and code >= 0 else ''})"


class _Parent:
    """The parent, from the process's side; the process has one, in _parents."""

    def __init__(self, connection: Connection):
        self._connection = connection
        self._sending = threading.Lock()
        self.requests: queue.SimpleQueue[tuple[Callable[..., Iterator[Any]], tuple[Any, ...]]] = queue.SimpleQueue()

    def send(self, kind: str, value: Any) -> None:
        message = pickle.dumps((kind, value))
        with self._sending:
            self._connection.send_bytes(message)

    def receive(self) -> None:
        """Takes requests until the parent ends or has no more use for this process, which it ends: nobody waits for it."""
        try:
            while True:
                self.requests.put(self._connection.recv())
        finally:
            os._exit(1)


_parents: list[_Parent] = []


def post(news: Any) -> None:
    """Gives the parent something beside the results, from any thread of the process."""
    _parents[0].send(NEWS, news)


def main() -> None:
    """What the process does."""
    descriptor, *modules = sys.argv[1:]
    parent = _Parent(Connection(int(descriptor)))
    _parents.append(parent)
    import_uncollected(*modules)
    threading.Thread(target=parent.receive, daemon=True).start()
    while True:
        function, arguments = parent.requests.get()
        try:
            for result in function(*arguments):
                parent.send(RESULT, result)
            parent.send(DONE, None)
        except Exception as error:
            error.add_note(f"in the process that labels:\n{traceback.format_exc()}")
            parent.send(ERROR, _portable(error))


def _portable(error: Exception) -> Exception:
    """The error, or what can be said of it where it cannot be pickled and back."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        portable = RuntimeError(f"{type(error).__name__}: {error}")
        portable.add_note("\n".join(error.__notes__))
        return portable
    return error
