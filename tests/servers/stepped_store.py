"""An object store in memory, stepped://, on which several programs run at once, one request at a time, as a test decides.

A program is a plain function in a thread of its own. It stops before each of its requests until the test lets it go on, so
that any interleaving of requests can be had, the same each time. Requests of the test itself are answered at once.
"""

import threading
from collections.abc import Callable
from typing import Any, Literal

import fsspec
from fsspec.implementations.memory import MemoryFileSystem

from pipeline_ops.schema.errors import StoreError

Fault = Literal["lost request", "lost answer", "interrupted before", "interrupted after"]
_running = threading.local()  # .program: the one whose thread this is


class Interrupted(BaseException):
    """Stands for Ctrl-C in a program: `finally` blocks run, and reach the store."""


class Killed(BaseException):
    """Ends a program at its next request; `finally` blocks run, but do not reach the store."""


class Program:
    """A function that runs from request to request. `request` is the one that it waits to make: (what, path)."""

    def __init__(self, function: Callable[[], Any]):
        self.request: tuple[str, str] | None = ("start", "")
        self.error: BaseException | None = None
        self._fault: Fault | None = None
        self._killed = False
        self._go, self._stopped = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, args=(function,), daemon=True)

    @property
    def ended(self) -> bool:
        return self.request is None

    def step(self, fault: Fault | None = None) -> None:
        """Lets it make the request it waits for, and go on to the next one."""
        assert not self.ended
        self._fault = fault
        if not self._thread.is_alive():
            self._thread.start()
        self._go.release()
        self._stopped.acquire()

    def kill(self) -> None:
        self._killed = True
        while not self.ended:
            self.step()

    def _run(self, function: Callable[[], Any]) -> None:
        _running.program = self
        self._go.acquire()
        try:
            if not self._killed:
                function()
        except BaseException as error:
            self.error = error
        self.request = None
        self._stopped.release()

    def make(self, request: tuple[str, str], action: Callable[[], Any]) -> Any:
        if not self._killed:
            self.request = request
            self._stopped.release()
            self._go.acquire()
        if self._killed:
            raise Killed
        fault, self._fault = self._fault, None
        if fault == "lost request":
            raise StoreError(f"{request}: lost")
        if fault == "interrupted before":
            raise Interrupted
        answer = action()
        if fault == "lost answer":
            raise StoreError(f"{request}: the answer was lost")
        if fault == "interrupted after":
            raise Interrupted
        return answer


class SteppedFileSystem(MemoryFileSystem):
    """Requests as on S3: a listing, a read, a put and a deletion are atomic each; what is gone can be deleted."""

    protocol = "stepped"
    store: dict[str, Any] = {}  # noqa: RUF012 as in the class above, and apart from it
    pseudo_dirs = [""]  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.removeprefix("stepped://").strip("/")

    def _request(self, what: str, path: str, action: Callable[[], Any]) -> Any:
        program = getattr(_running, "program", None)
        return program.make((what, path), action) if program else action()

    def find(self, path: str, *args: Any, **kwargs: Any) -> Any:
        return self._request("list", path, lambda: super(SteppedFileSystem, self).find(path, *args, **kwargs))

    def cat_file(self, path: str, *args: Any, **kwargs: Any) -> Any:
        return self._request("read", path, lambda: super(SteppedFileSystem, self).cat_file(path, *args, **kwargs))

    def pipe_file(self, path: str, *args: Any, **kwargs: Any) -> None:
        self._request("put", path, lambda: super(SteppedFileSystem, self).pipe_file(path, *args, **kwargs))

    def rm_file(self, path: str) -> None:
        self._request("delete", path, lambda: self.store.pop(self._strip_protocol(path), None))


fsspec.register_implementation("stepped", SteppedFileSystem, clobber=True)
