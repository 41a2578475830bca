"""Who may write to an output: a lease with an expiry, made of objects that are only ever created.

`_lease/<generation>.json` with the highest generation is the lease. Taking, renewing and releasing it each create the next
generation, by a put that only the first caller wins; so whoever was slow finds the next generation taken and knows. Older
generations are deleted, so whoever was very slow may still create one of them: a listing tells it that it is not the newest.
Replacing one object under If-Match would be simpler, but some stores refuse even the matching etag.

A holder that stalls between looking at its lease and using it cannot be stopped by any lease. What it commits then is void: see
commits.py.
"""

import contextlib
import json
import os
import pwd
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

from pipeline_ops.schema.errors import UserError, is_store_fault
from pipeline_ops.storage.files import StorageConfig, delete_many, join, list_all, put_new, read_bytes, remove_folder_if_empty

LEASE_FOLDER = "_lease"
RENEWALS_PER_EXPIRY = 4
LISTINGS = 20  # a lease that is renewed between listing and reading it is looked for again

Clock = Callable[[], float]


class LeaseError(Exception):
    """Another run holds the lease, or has taken it; the command line prints it and exits 3."""


@dataclass(frozen=True)
class LeaseRecord:
    """One generation of the lease. Times are Unix seconds by the holder's clock."""

    generation: int
    term: int  # the generation at which this holder took it
    token: str  # tells two writers of the same generation apart
    holder: str  # for people
    process: str | None  # identifies the process on its machine; None where the system does not say
    since: float
    renewed: float
    expires_s: float
    released: bool = False
    must_fence: bool = False  # from a holder that has not released it
    interrupted: bool = False  # released by a holder that left a request under way

    def age(self, now: float) -> float:
        return max(0.0, now - self.renewed)

    def is_held(self, now: float) -> bool:
        """Whether its holder may be at work: not released, not expired, and not a process of this machine that is gone."""
        return not self.released and self.age(now) <= self.expires_s and not _is_gone(self.process)


def read_lease(output: str, storage: StorageConfig) -> LeaseRecord | None:
    """The newest generation; None where there has never been a lease.

    Raises:
        OSError: the store cannot be read, or holds something else under the lease's names.
    """
    folder = join(output, LEASE_FOLDER)
    for _ in range(LISTINGS):
        generations = _generations(output, storage)
        if not generations:
            return None
        try:
            content = read_bytes(join(folder, _name(generations[-1])), storage)
        except FileNotFoundError:  # renewed since the listing
            continue
        try:
            return LeaseRecord(**json.loads(content))
        except (ValueError, TypeError) as error:
            raise OSError(f"{join(folder, _name(generations[-1]))} is no lease: {error}") from error
    raise OSError(f"{folder}: changed {LISTINGS} times while it was read")


def check_free(output: str, storage: StorageConfig, clock: Clock = time.time) -> LeaseRecord | None:
    """The lease as it is, for acquire().

    Raises:
        LeaseError: a run holds it; says who, since when and for how long it has been silent.
    """
    found = read_lease(output, storage)
    if found is not None and found.is_held(clock()):
        raise LeaseError(_held_message(output, found, clock()))
    return found


class Lease:
    """The right to write to an output, while it lasts. `acquire` makes one."""

    def __init__(self, output: str, storage: StorageConfig, record: LeaseRecord, clock: Clock):
        self.record = record
        self._output, self._storage, self._clock = output, storage, clock
        self._lock = threading.Lock()
        self._lost: LeaseError | None = None

    @property
    def term(self) -> int:
        """Grows with every holder. It is part of each commit."""
        return self.record.term

    @property
    def must_fence(self) -> bool:
        """Whether an earlier holder may still commit: what is committed has to be sealed first (commits.write_pack)."""
        return self.record.must_fence

    def check(self) -> None:
        """Returns while nobody can have taken the lease; asks the store only when half of its time is over.

        Raises:
            LeaseError: another run has it.
        """
        if self._lost is None and self.record.age(self._clock()) <= self.record.expires_s / 2:
            return
        self.confirm()

    def confirm(self) -> None:
        """Renews the lease, which only its holder can.

        Raises:
            LeaseError: another run has it.
        """
        with self._lock:
            self._next(replace(self.record, renewed=self._clock()))

    def release(self, *, forget: bool = False, interrupted: bool = False) -> None:
        """Lets the next run begin at once.

        Args:
            forget: remove every trace: for a run that has written nothing.
            interrupted: a commit may be under way, and arrive when nobody waits for it: the next run takes over.
        """
        with self._lock, contextlib.suppress(LeaseError):  # lost: then it is not ours to release
            self._next(replace(self.record, renewed=self._clock(), released=True, interrupted=interrupted))
            self._lost = LeaseError(f"output.path: the lease on {self._output!r} has been released")
            if forget:
                delete_many([_path(self._output, self.record.generation)], self._storage)
                remove_folder_if_empty(join(self._output, LEASE_FOLDER), self._storage)

    def _next(self, record: LeaseRecord) -> None:
        if self._lost is not None:
            raise self._lost
        for _ in range(LISTINGS):
            record = replace(record, generation=self.record.generation + 1)
            if self._create(record):
                break
            found = read_lease(self._output, self._storage)
            if found is None or found.token != record.token or found.released:
                raise self._lose(found)
            self.record = found  # our own, put before; the answer was lost
        else:
            raise OSError(f"{join(self._output, LEASE_FOLDER)}: could not be renewed, {LISTINGS} times")
        # a late put may have created what the next holder had deleted already; a release does no harm then
        if not record.released and _generations(self._output, self._storage)[-1:] != [record.generation]:
            delete_many([_path(self._output, record.generation)], self._storage)
            raise self._lose(read_lease(self._output, self._storage))
        before, self.record = self.record, record
        delete_many([_path(self._output, before.generation)], self._storage)

    def _create(self, record: LeaseRecord) -> bool:
        try:
            return put_new(_path(self._output, record.generation), _to_bytes(record), self._storage)
        except FileNotFoundError:  # on local disk: swept, before it had its name, by a run that took over
            return False

    def _lose(self, found: LeaseRecord | None) -> LeaseError:
        by = f" by {found.holder}" if found else ""
        self._lost = LeaseError(
            f"output.path: the lease on {self._output!r} was lost{by}: this run was silent for longer than"
            f" output.lease_seconds ({self.record.expires_s:g}); nothing more was committed"
        )
        return self._lost

    @contextmanager
    def renewed(self) -> Iterator["Lease"]:
        """Renews it in the background while the block runs. A loss shows at the next check."""
        stop = threading.Event()

        def keep() -> None:
            while not stop.wait(self.record.expires_s / RENEWALS_PER_EXPIRY):
                try:
                    self.confirm()
                except LeaseError:
                    return
                except Exception as error:
                    # a store that fails for a moment: there are more renewals, and each check looks again
                    if not is_store_fault(error):
                        raise

        thread = threading.Thread(target=keep, name="lease", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            stop.set()  # it may be in the middle of a request that takes long to fail: nobody waits for it


def acquire(
    output: str,
    storage: StorageConfig,
    seconds: float,
    seen: LeaseRecord | None,
    clock: Clock = time.time,
    *,
    pack_term: int = 0,
) -> Lease:
    """Takes the lease if it still is as `check_free` has found it.

    Args:
        seconds: how long it lasts without being renewed.
        seen: what check_free returned; what was read of the output since then is still true if this succeeds.
        pack_term: of the newest pack of commits: terms go on from there even where somebody has deleted the lease.

    Raises:
        LeaseError: another run was first.
        UserError: the store ignores conditional puts, so nobody could say who was first.
    """
    generation = max(seen.generation if seen else 0, pack_term) + 1
    # one who took over and released without having sealed leaves that to the next
    unsealed = seen is not None and seen.must_fence and pack_term < seen.term
    must_fence = seen is not None and (not seen.released or seen.interrupted or unsealed)
    now = clock()
    record = LeaseRecord(
        generation, generation, uuid.uuid4().hex, this_holder(), _this_process(), now, now, seconds, must_fence=must_fence
    )
    path = _path(output, generation)
    if not put_new(path, _to_bytes(record), storage):
        raise LeaseError(_taken_message(output, storage, now))
    is_ignored = put_new(path, _to_bytes(replace(record, token=uuid.uuid4().hex)), storage)
    generations = _generations(output, storage)
    # late puts may succeed above or below what others have, and may have deleted, meanwhile
    if generations[-2:] != ([seen.generation, generation] if seen else [generation]):
        delete_many([path], storage)
        raise LeaseError(_taken_message(output, storage, now))
    if is_ignored:
        delete_many([path], storage)
        raise UserError(
            f"storage: the store of {output!r} ignores conditional puts (If-None-Match), so it cannot tell two runs at once"
            f" apart; use a store that honors them"
        )
    delete_many([_path(output, older) for older in generations[:-1]], storage)
    return Lease(output, storage, record, clock)


def _generations(output: str, storage: StorageConfig) -> list[int]:
    names = [file.path.rsplit("/", 1)[-1] for file in list_all(join(output, LEASE_FOLDER), storage)]
    return sorted(int(name.removesuffix(".json")) for name in names if re.fullmatch(r"\d{10}\.json", name))


def _name(generation: int) -> str:
    return f"{generation:010}.json"


def _path(output: str, generation: int) -> str:
    return join(output, LEASE_FOLDER, _name(generation))


def _to_bytes(record: LeaseRecord) -> bytes:
    return json.dumps(asdict(record)).encode()


def _held_message(output: str, found: LeaseRecord, now: float) -> str:
    since = datetime.fromtimestamp(found.since, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return (
        f"output.path: {output!r} is being written by {found.holder}, since {since}, last heard of {found.age(now):.0f} s ago;"
        f" wait until it has ended, or, if it is dead, {found.expires_s - found.age(now):.0f} s"
    )


def _taken_message(output: str, storage: StorageConfig, now: float) -> str:
    found = read_lease(output, storage)
    if found is not None and found.is_held(now):
        return _held_message(output, found, now)
    return f"output.path: {output!r} was taken by another run just now"


def this_holder() -> str:
    """This process, for people: user, host, number."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # containers run under numbers that no one has named
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}, process {os.getpid()}"


def _this_process() -> str | None:
    return _process_identity(os.getpid())


def _process_identity(pid: int) -> str | None:
    """What no other process has had on any machine: boot, process namespace, number and start time; None if there is none."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as boot, open(f"/proc/{pid}/stat") as stat:
            fields = stat.read().rpartition(")")[2].split()
            if fields[0] in "ZX":  # dead, and not yet reaped by its parent
                return None
            return f"{boot.read().strip()} {os.readlink('/proc/self/ns/pid')} {pid} {fields[19]}"
    except OSError:
        return None


def _is_gone(process: str | None) -> bool:
    """Whether the process ran here and has ended; of other machines and process namespaces nothing is known."""
    here = _this_process()
    if process is None or here is None or process.split()[:2] != here.split()[:2]:
        return False
    return _process_identity(int(process.split()[2])) != process
