"""The single-writer lease on an output: a lease with expiry (Gray and Cheriton, Leases, SOSP 1989) on plain object storage.

The lease is the object `_lease/<generation>.json` with the highest generation. Acquiring, renewing and releasing it each create
the next generation by a create-only put (If-None-Match: *), which exactly one caller wins; a caller that was too slow finds the
generation taken. Earlier generations are deleted, so a very late put may still create one of them: a listing after each put
shows its author that it is not the newest. Replacing one object under If-Match would be simpler, but some S3-compatible stores
refuse even the matching etag.

Guarantee: at any moment at most one holder's commits are valid. A lease alone cannot stop a holder that stalls between checking
and using it; so the generation at which a holder acquired the lease, its term, is the fencing token in each commit: see
commit_log.py.
"""

import contextlib
import json
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

from pipeline_ops.output.commit_log import Ledger, write_pack
from pipeline_ops.output.process_identity import is_gone, this_holder, this_process
from pipeline_ops.schema.errors import UserError, is_store_fault, store_access
from pipeline_ops.storage.store import Store

LEASE_FOLDER = "_lease"
RENEWALS_PER_EXPIRY = 4
MAX_LISTINGS = 20  # the lease is listed again when it was renewed between listing and reading

Clock = Callable[[], float]


class LeaseError(Exception):
    """Another run holds or has taken over the lease; the command line prints it and exits 3."""


@dataclass(frozen=True)
class LeaseRecord:
    """One generation of the lease. Times are Unix seconds by the holder's clock."""

    generation: int
    term: int  # the generation at which this holder acquired it
    token: str  # unique to this writer
    holder: str  # for people
    process: str | None  # process_identity.this_process
    since: float
    renewed: float
    expires_s: float
    released: bool = False
    must_fence: bool = False  # the earlier holder has not released it, and may still commit
    interrupted: bool = False  # released while a request of the holder was in flight

    def age(self, now: float) -> float:
        return max(0.0, now - self.renewed)

    def is_held(self, now: float) -> bool:
        """True unless it is released, expired, or its holder was a process of this machine that has ended."""
        return not self.released and self.age(now) <= self.expires_s and not is_gone(self.process)


def read_lease(store: Store) -> LeaseRecord | None:
    """Reads the newest generation; None if there has never been a lease.

    Raises:
        OSError: the store cannot be read, or a record is malformed.
    """
    for _ in range(MAX_LISTINGS):
        generations = _generations(store)
        if not generations:
            return None
        try:
            content = store.read(_name(generations[-1]))
        except FileNotFoundError:  # renewed since the listing
            continue
        try:
            return LeaseRecord(**json.loads(content))
        except (ValueError, TypeError) as error:
            raise OSError(f"{store.join(_name(generations[-1]))} is no lease: {error}") from error
    raise OSError(f"{store.join(LEASE_FOLDER)}: changed {MAX_LISTINGS} times while it was read")


def check_free(store: Store, clock: Clock = time.time) -> LeaseRecord | None:
    """Reads the lease for acquire().

    Raises:
        LeaseError: a run holds it. The message names the holder, since when, and the time since its last renewal.
    """
    found = read_lease(store)
    if found is not None and found.is_held(clock()):
        raise LeaseError(_held_message(store, found, clock()))
    return found


class Lease:
    """A held lease; made by `acquire`."""

    def __init__(self, store: Store, record: LeaseRecord, clock: Clock):
        self.record = record
        self._store, self._clock = store, clock
        self._lock = threading.Lock()
        self._lost: LeaseError | None = None

    @property
    def term(self) -> int:
        """The fencing token: grows with every holder, and is part of each commit."""
        return self.record.term

    @property
    def must_fence(self) -> bool:
        """True if an earlier holder may still commit: a pack has to be written first (commit_log.write_pack)."""
        return self.record.must_fence

    def check(self) -> None:
        """Returns while no other run can have taken the lease; renews it when half of its time is over.

        Raises:
            LeaseError: another run has it.
        """
        if self._lost is None and self.record.age(self._clock()) <= self.record.expires_s / 2:
            return
        self.confirm()

    def confirm(self) -> None:
        """Renews the lease, which only its current holder can.

        Raises:
            LeaseError: another run has it.
        """
        with self._lock:
            self._next(replace(self.record, renewed=self._clock()))

    def release(self, *, forget: bool = False, interrupted: bool = False) -> None:
        """Releases the lease, so that the next run need not wait for its expiry; does nothing if it is lost.

        Args:
            forget: delete the lease's objects too: for a run that has written nothing.
            interrupted: a commit may be in flight and arrive later: the next run has to fence this one.
        """
        with self._lock, contextlib.suppress(LeaseError):  # lost: then it is not ours to release
            self._next(replace(self.record, renewed=self._clock(), released=True, interrupted=interrupted))
            self._lost = LeaseError(f"output.path: the lease on {self._store.path!r} has been released")
            if forget:
                self._store.delete([_name(self.record.generation)])
                self._store.remove_folder_if_empty(self._store.join(LEASE_FOLDER))

    def _next(self, record: LeaseRecord) -> None:
        if self._lost is not None:
            raise self._lost
        for _ in range(MAX_LISTINGS):
            record = replace(record, generation=self.record.generation + 1)
            if self._create(record):
                break
            found = read_lease(self._store)
            if found is None or found.token != record.token or found.released:
                raise self._lose(found)
            self.record = found  # our own: the answer to the put was lost
        else:
            raise OSError(f"{self._store.join(LEASE_FOLDER)}: could not be renewed, {MAX_LISTINGS} times")
        # a late put may recreate a generation that the next holder has deleted; a release does no harm then
        if not record.released and _generations(self._store)[-1:] != [record.generation]:
            self._store.delete([_name(record.generation)])
            raise self._lose(read_lease(self._store))
        before, self.record = self.record, record
        self._store.delete([_name(before.generation)])

    def _create(self, record: LeaseRecord) -> bool:
        try:
            return self._store.put_new(_name(record.generation), _to_bytes(record))
        except FileNotFoundError:  # on local disk its temporary file was swept by a run that took over
            return False

    def _lose(self, found: LeaseRecord | None) -> LeaseError:
        by = f" by {found.holder}" if found else ""
        self._lost = LeaseError(
            f"output.path: the lease on {self._store.path!r} was lost{by}: this run did not renew it for longer than"
            f" output.lease_seconds ({self.record.expires_s:g}); nothing more was committed"
        )
        return self._lost

    @contextmanager
    def renewed(self) -> Iterator["Lease"]:
        """Renews it in a background thread while the block runs. The next check() raises if it was lost."""
        stop = threading.Event()

        def keep() -> None:
            while not stop.wait(self.record.expires_s / RENEWALS_PER_EXPIRY):
                try:
                    self.confirm()
                except LeaseError:
                    return
                except Exception as error:
                    # transient: there are more renewals before it expires, and check() renews too
                    if not is_store_fault(error):
                        raise

        thread = threading.Thread(target=keep, name="lease", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            stop.set()  # not joined: it may be in a request that takes long to fail


def acquire(
    store: Store,
    seconds: float,
    seen: LeaseRecord | None,
    clock: Clock = time.time,
    *,
    pack_term: int = 0,
) -> Lease:
    """Acquires the lease if it has not changed since check_free().

    Args:
        seconds: expiry after the last renewal.
        seen: what check_free returned; if this succeeds, what was read of the output since then is current.
        pack_term: of the newest pack; terms continue from there even if the lease's objects have been deleted.

    Raises:
        LeaseError: another run was first.
        UserError: the store ignores conditional puts, so it cannot exclude a second run.
    """
    generation = max(seen.generation if seen else 0, pack_term) + 1
    # a holder that took over and released before it wrote a pack leaves that to the next
    unsealed = seen is not None and seen.must_fence and pack_term < seen.term
    must_fence = seen is not None and (not seen.released or seen.interrupted or unsealed)
    now = clock()
    record = LeaseRecord(
        generation, generation, uuid.uuid4().hex, this_holder(), this_process(), now, now, seconds, must_fence=must_fence
    )
    name = _name(generation)
    if not store.put_new(name, _to_bytes(record)):
        raise LeaseError(_taken_message(store, now))
    is_ignored = store.put_new(name, _to_bytes(replace(record, token=uuid.uuid4().hex)))
    generations = _generations(store)
    # a late put may succeed above or below generations that others have created, and perhaps deleted, meanwhile
    if generations[-2:] != ([seen.generation, generation] if seen else [generation]):
        store.delete([name])
        raise LeaseError(_taken_message(store, now))
    if is_ignored:
        store.delete([name])
        raise UserError(
            f"storage: the store of {store.path!r} ignores conditional puts (If-None-Match), so it does not keep two runs"
            f" apart; use a store that honors them"
        )
    store.delete(_name(older) for older in generations[:-1])
    return Lease(store, record, clock)


@contextmanager
def hold_lease(store: Store, seconds: float, seen: LeaseRecord | None, ledger: Ledger) -> Iterator[Lease]:
    """Hold an output's lease, renewed in the background, while the block runs; fence the earlier holder first where needed.

    What was read of the output since check_free() is still true in the block. When a UserError ends the block and the output
    was empty before, the output is left as it was found.

    Args:
        seen: what check_free returned before the ledger was read.
        ledger: sealed in a pack if the earlier holder may still commit.

    Raises:
        UserError: the output cannot be written.
        LeaseError: another run holds the lease.
    """
    with store_access("output.path", store.path, "written"):
        new_folders = store.check_writable()
        lease = acquire(store, seconds, seen, pack_term=ledger.pack_term)
    forget, interrupted, release = False, False, True
    try:
        with lease.renewed():
            if lease.must_fence:
                write_pack(store, ledger, lease.term)
            yield lease
    except UserError:
        forget = seen is None and not ledger.commits
        raise
    except Exception as error:
        release = not is_store_fault(error)  # else it cannot be released either: do not wait for that, it expires
        raise
    except BaseException:  # Ctrl-C or SIGTERM, perhaps in the middle of a request
        interrupted = True
        raise
    finally:
        if release:
            lease.release(forget=forget, interrupted=interrupted)
        for folder in new_folders if forget else []:
            store.remove_folder_if_empty(folder)


def _generations(store: Store) -> list[int]:
    names = [file.path.rsplit("/", 1)[-1] for file in store.list_all(LEASE_FOLDER)]
    return sorted(int(name.removesuffix(".json")) for name in names if re.fullmatch(r"\d{10}\.json", name))


def _name(generation: int) -> str:
    return f"{LEASE_FOLDER}/{generation:010}.json"


def _to_bytes(record: LeaseRecord) -> bytes:
    return json.dumps(asdict(record)).encode()


def _held_message(store: Store, found: LeaseRecord, now: float) -> str:
    since = datetime.fromtimestamp(found.since, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return (
        f"output.path: {store.path!r} is being written by {found.holder}, since {since}, last heard of"
        f" {found.age(now):.0f} s ago; wait until it has ended; if that process is dead, the lock expires in"
        f" {max(found.expires_s - found.age(now), 0):.0f} s"
    )


def _taken_message(store: Store, now: float) -> str:
    found = read_lease(store)
    if found is not None and found.is_held(now):
        return _held_message(store, found, now)
    return f"output.path: {store.path!r} was taken by another run just now"
