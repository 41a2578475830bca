"""Counts of unfinished attempts at units, and how far the classifiers are with theirs, in a process that outlives the workers.

Ray retries a dead process's work without limit, so a unit that kills its worker would stall a job silently. Each stage reports
the begin and the end of a unit, and gives up a unit that has begun several times without an end. Only the unit that a process
was working on counts, not those in its queue.

How far a unit is, is for people only: it is reported without waiting for an answer, and what is lost is reported again.
"""

import json
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from socketserver import StreamRequestHandler, ThreadingUnixStreamServer
from tempfile import TemporaryDirectory
from typing import Any, TextIO

from cluster.periodic import called_every
from cluster.prometheus_metrics import RETRIES, Meter

# by the first word of a key: `task ID`, `tokenize UNIT`, `classify UNIT`, `write UNIT`; others are parts of a read task
STAGES = {"task": "read", "tokenize": "tokenize", "classify": "classify", "write": "write"}
POLL_S = 1
POLL_TIMEOUT_S = 5


@dataclass(frozen=True)
class UnitProgress:
    """How far a classifier is with a unit.

    Attributes:
        share: of its padded tokens that have been passed to the model, from 0 to 1.
        documents, tokens: of the unit, times `share`.
    """

    share: float
    documents: float
    tokens: float


@dataclass(frozen=True)
class StageActivity:
    """What the stages are working on."""

    busy: dict[str, int] = field(default_factory=dict)  # units in work by stage; for read: tasks
    retries: int = 0  # attempts so far that followed the death of a process
    units: dict[str, UnitProgress] = field(default_factory=dict)  # in the classifiers, by id
    ended: dict[str, int] = field(default_factory=dict)  # units by stage so far; for read: tasks


class AttemptCounts:
    """The counts by key. It holds unfinished keys only, so its size is that of the work in progress."""

    def __init__(self, meter: Meter | None = None) -> None:
        self._lock = threading.Lock()
        self._begun: Counter[str] = Counter()
        self._progress: dict[str, UnitProgress] = {}
        self._ended: Counter[str] = Counter()
        self._retries = 0
        self._meter = meter

    def begin(self, key: str) -> int:
        """Records that work on `key` begins; returns how often it has begun before without ending."""
        with self._lock:
            self._progress.pop(key, None)  # an attempt starts anew
            self._begun[key] += 1
            deaths = self._begun[key] - 1
            stage = _stage(key)
            if deaths and stage is not None:
                self._retries += 1
                if self._meter is not None:
                    # here, not in the worker: it may die before it has exported its counts
                    self._meter.count(RETRIES, stage=stage)
            return deaths

    def progress(self, key: str, share: float, documents: float, tokens: float) -> None:
        """Records how far the work on `key` is (UnitProgress); a process does not wait for an answer."""
        with self._lock:
            if key in self._begun:
                self._progress[key] = UnitProgress(share, documents, tokens)

    def end(self, key: str) -> None:
        """Records that the work has ended, with success or not: the process is alive."""
        with self._lock:
            del self._begun[key]
            self._progress.pop(key, None)
            stage = _stage(key)
            if stage is not None:
                self._ended[stage] += 1

    def activity(self) -> StageActivity:
        with self._lock:
            busy = Counter(_stage(key) for key in self._begun)
            units = {key.partition(" ")[2]: done for key, done in self._progress.items()}
            busy, ended = ({stage: counts[stage] for stage in STAGES.values()} for counts in (busy, self._ended))
            return StageActivity(busy, self._retries, units, ended)


def _stage(key: str) -> str | None:
    """The stage of a key; None for the parts of a read task."""
    return STAGES.get(key.partition(" ")[0])


class SocketAttempts:
    """Attempts that the driver counts: a line of JSON for each call, and one for the answer if there is one.

    A process that is killed has sent what it was to send: the system keeps it for the driver.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._of_thread = threading.local()

    def __reduce__(self) -> tuple[Any, ...]:
        return SocketAttempts, (self._path,)

    def begin(self, key: str) -> int:
        answers = self._send("begin", key)
        return int(answers.readline())  # ends with ValueError if the driver has

    def progress(self, key: str, share: float, documents: float, tokens: float) -> None:
        self._send("progress", key, share, documents, tokens)

    def end(self, key: str) -> None:
        self._send("end", key)

    def _send(self, *call: Any) -> TextIO:
        if not hasattr(self._of_thread, "connection"):
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(self._path)
                self._of_thread.connection = connection.makefile("rw")
        connection = self._of_thread.connection
        connection.write(json.dumps(call) + "\n")
        connection.flush()
        return connection


@contextmanager
def _served(counts: AttemptCounts) -> Iterator[str]:
    """The path of a socket, for this user alone, at which threads of this process take the calls of SocketAttempts."""

    class Calls(StreamRequestHandler):
        def handle(self) -> None:
            with suppress(ConnectionError):  # of a process that has been killed
                for line in self.rfile:
                    method, *arguments = json.loads(line)
                    answer = getattr(counts, method)(*arguments)
                    if answer is not None:
                        self.wfile.write(f"{answer}\n".encode())

    # as Ray's own sockets below /tmp, whatever TMPDIR: a socket's path has 107 characters at most
    with (
        TemporaryDirectory(prefix="attempts-", dir="/tmp") as folder,
        ThreadingUnixStreamServer(f"{folder}/socket", Calls) as server,
    ):
        server.daemon_threads = True  # they end with the processes that call
        thread = threading.Thread(target=server.serve_forever, name="attempts", daemon=True)
        thread.start()
        try:
            yield f"{folder}/socket"
        finally:
            server.shutdown()
            thread.join()


class ActorAttempts:
    """Attempts that an actor counts, which lives as long as the run that has created it."""

    def __init__(self, meter: Meter) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        # takes no CPU from the pools; runs on the driver's node, so that only the end of the run ends it
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        lasting = {"num_cpus": 0, "scheduling_strategy": here, "max_restarts": -1, "max_task_retries": -1}
        self._counts: Any = ray.remote(AttemptCounts).options(**lasting).remote(meter)

    def begin(self, key: str) -> int:
        return self._call("begin", key)

    def progress(self, key: str, share: float, documents: float, tokens: float) -> None:
        self._counts.progress.remote(key, share, documents, tokens)

    def end(self, key: str) -> None:
        self._call("end", key)

    def _call(self, method: str, key: str) -> Any:
        import ray

        return ray.get(getattr(self._counts, method).remote(key))

    def activity(self) -> StageActivity:
        import ray

        return ray.get(self._counts.activity.remote(), timeout=POLL_TIMEOUT_S)


Attempts = SocketAttempts | ActorAttempts  # for any process that has been given it; methods as AttemptCounts


@contextmanager
def counted(meter: Meter, *, here: bool) -> Iterator[tuple[Attempts, Callable[[], StageActivity]]]:
    """Counts the attempts of a run for the time of the block.

    On one machine the driver counts, which takes no process more, and a tenth of the time for each call. On a cluster an actor
    does: nodes reach it as they reach each other, encrypted and authenticated where Ray is. A port of the driver's own would be
    one more to open in each firewall, and lost connections would have to be distinguished from dead processes.

    Args:
        here: all stages run on this machine.

    Yields:
        The attempts for the stages, and a function that says what these work on.
    """
    if here:
        counts = AttemptCounts(meter)
        with _served(counts) as path:
            yield SocketAttempts(path), counts.activity
    else:
        actor = ActorAttempts(meter)
        yield actor, actor.activity


def watched(
    activity: Callable[[], StageActivity], on_activity: Callable[[StageActivity], None] | None
) -> AbstractContextManager[None]:
    """While the block runs, gives the activity to `on_activity` every POLL_S seconds, from another thread.

    Ray Data (2.60) has no public API for the activity of a running Dataset: its State API needs the dashboard, and the executor
    passed to DataContext.custom_execution_callback_classes does not expose its actors.
    """
    if on_activity is None:
        return nullcontext()
    from ray.exceptions import RayError

    return called_every(POLL_S, lambda: on_activity(activity()), "stage-activity", RayError)  # the actor may start or restart
