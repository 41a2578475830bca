"""Several drivers at once on one output: whatever the order of their requests, nothing is lost and nothing stands twice.

Drivers are programs of the product's own functions in the product's own order (jobs/run/commit_writer.py,
jobs/maintenance/compact.py), with tiny files in place of labeled ones, and a table whose log has the paths of its files. Each
can stall before any of its requests for any time, lose a request or an answer, be interrupted or be killed. More examples than
in the suite: `python -m tests.unit.output.test_commit_protocol 2000`.
"""

import hashlib
import itertools
import json
import sys
import threading
import uuid
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from types import SimpleNamespace
from typing import Any, cast

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

import jobs.publishing.existing_output
import jobs.run.commit_writer
import pipeline_ops.output.lease
import pipeline_ops.publishing.publisher
from jobs.config import JobConfig
from jobs.publishing.existing_output import existing_output
from jobs.run.commit_writer import CommitWriter, finalize, needs_writing, output_lease
from jobs.run.prepare import Prepared
from pipeline_ops.inputs.input_files import InputFile
from pipeline_ops.output.commit_log import (
    Ledger,
    commit_unit,
    gaps,
    garbage_files,
    overlaps,
    pieces_by_file,
    read_ledger,
    sweep,
)
from pipeline_ops.output.compaction import joined_pieces
from pipeline_ops.output.lease import Lease, LeaseError, acquire, check_free
from pipeline_ops.planning.work_plan import Plan, make_plan
from pipeline_ops.publishing.publisher import Publisher
from pipeline_ops.publishing.table import TableChange, TableChangedError, TableFile, TableVersion
from pipeline_ops.reading.spans import Span
from pipeline_ops.schema.errors import UserError, is_store_fault
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.schema.units import Piece
from pipeline_ops.storage.store import Store, StoredFile
from pipeline_ops.writing.commit_record import Commit, WrittenFile
from tests.servers.stepped_store import Fault, Interrupted, Killed, Program, SteppedFileSystem
from tests.support.tiers import mostly_slow

TABLE_FOLDER = "_table"
LEASE_S = 60.0
LOOSE_RECORDS = 2  # the product's is 1000
INPUTS = {"a": 4, "b": 4, "c": 20}  # bytes; with UNIT_BYTES the first two are one unit, and the last is two
UNIT_BYTES = 10
ROWS = 4
ATTEMPTS = itertools.count(1)
_here = threading.local()  # .driver: the one that runs in this thread


class PathsTable:
    """A Table whose versions are objects with the paths of all files; others than its publisher do not write it."""

    format = "Paths"

    def __init__(self, store: Store):
        self.store = store

    def read(self) -> TableVersion:
        names = [self.store.relative(file.path) for file in self.store.list_all(TABLE_FOLDER)]
        if not names:
            return TableVersion(None, frozenset(), pa.schema([]))
        return TableVersion(len(names) - 1, frozenset(json.loads(self.store.read(names[-1]))["paths"]), pa.schema([]))

    def write(self, seen: TableVersion, change: TableChange) -> TableVersion:
        version = 0 if seen.version is None else seen.version + 1
        paths = seen.paths.difference(change.removed).union(file.path for file in change.added)
        content = json.dumps({"paths": sorted(paths), "attempt": uuid.uuid4().hex}).encode()
        if not self.store.put_new(f"{TABLE_FOLDER}/{version:04}.json", content):
            raise TableChangedError
        return TableVersion(version, paths, pa.schema([]))

    def kept_paths(self, since: datetime) -> set[str]:
        return {*self.read().paths}


class World:
    """The input as it is now, the time, and the output.

    Attributes:
        states: the labeled files of the current commits, at each moment from the beginning.
    """

    def __init__(self) -> None:
        self.now = 1e6
        self.states: list[set[str]] = [set()]
        self.inputs = dict.fromkeys(INPUTS, "v1")
        self.output = OutputConfig(path=f"stepped://{uuid.uuid4().hex}", drop_removed=True, lease_seconds=LEASE_S)

    @property
    def store(self) -> Store:
        return Store(self.output.path)

    def files(self) -> list[InputFile]:
        stored = [StoredFile(path, INPUTS[path], identity) for path, identity in sorted(self.inputs.items())]
        return [InputFile(file, "jsonl", None) for file in stored]

    def plan(self, ledger: Ledger) -> Plan:
        arguments: dict[str, Any] = {
            "text_columns": ("text",),
            "output": self.output,
            "store": Store("unused"),
            "unit_bytes": UNIT_BYTES,
        }
        return make_plan(self.files(), ledger.commits, **arguments)


class Driver:
    """What `run` or `compact` does, from looking at the lease to releasing it."""

    def __init__(self, world: World, skew_s: float = 0.0, compacts: bool = False):
        self.world, self.compacts = world, compacts
        self.clock = lambda: world.now + skew_s
        self.lease: Lease | None = None
        self.voided = False  # whether it has put a commit that did not count

    def run(self) -> None:
        _here.driver = self
        job = SimpleNamespace(output=self.world.output, output_store=self.world.store)
        if self.compacts:
            with existing_output(cast(JobConfig, job), "compact") as output:
                sweep(self.world.store, output.ledger, output.lease.confirm, set)
                self._compact(output.ledger, output.lease)
                output.publisher.publish(output.lease, same_rows=True)
                sweep(self.world.store, output.ledger, output.lease.confirm, set)
            return
        seen = check_free(self.world.store, self.clock)
        ledger = read_ledger(self.world.store)
        plan = self.world.plan(ledger)
        facts = {"job": job, "ledger": ledger, "lease": seen, "plan": plan, "outdated_failures": [], "replaces_trial": False}
        prepared = cast(Prepared, SimpleNamespace(**facts))
        publisher = Publisher(job.output_store, job.output, ledger, "run")
        if needs_writing(prepared, publisher):
            with output_lease(prepared, publisher) as lease:
                self._label(plan, CommitWriter(job.output_store, job.output, ledger, plan, lease, "run"), publisher)
                finalize(lease, publisher)

    def _label(self, plan: Plan, writer: CommitWriter, publisher: Publisher) -> None:
        writer.drop_removed()
        for commit in writer.partly_outdated():
            gone = plan.stale[commit.unit]
            rest = self._without(commit, gone)
            if set(gone) & set(plan.removed):
                writer.put(rest)
            else:
                writer.rewritten[commit.name] = rest
        for spans in plan.tasks:
            for pieces, replaces in units_of(spans):
                writer.put(self._written(["unit", *map(str, pieces), *replaces], pieces, replaces))
            publisher.publish(writer.lease)

    def _compact(self, ledger: Ledger, lease: Lease) -> None:
        commits = sorted((commit for commit in ledger.current.values() if commit.pieces), key=lambda c: c.pieces[0].path)
        for left, right in zip(commits[::2], commits[1::2], strict=False):
            names = (left.name, right.name)
            pieces = tuple(joined_pieces([*left.pieces, *right.pieces]))
            commit = self._written(["compacted", *names], pieces, names, kept=left.files[:1])
            lease.check()
            commit_unit(self.world.store, ledger, replace(commit, term=lease.term))

    def _without(self, commit: Commit, gone: tuple[str, ...]) -> Commit:
        pieces = tuple(piece for piece in commit.pieces if piece.path not in gone)
        return self._written(["without", commit.name, *gone], pieces, (commit.name,), kept=commit.files[:1])

    def _written(
        self, identity: list[str], pieces: tuple[Piece, ...], replaces: tuple[str, ...], kept: tuple[WrittenFile, ...] = ()
    ) -> Commit:
        """Puts two files, one of them in the place of `kept`, and returns the commit that names them."""
        unit, attempt = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:24], f"{next(ATTEMPTS):012x}"
        new = [WrittenFile(f"label={label}/{unit}-{attempt}.parquet", 1, 1, "") for label in ("A", "B")[len(kept) :]]
        for file in new:
            self.world.store.put(file.path, b"x")
        return Commit(unit, attempt, pieces, (*kept, *new), None, 1, 0, 1, 1, 0, {}, replaces=replaces)


def rows_of(store: Store, ledger: Ledger, known: Collection[str]) -> tuple[dict[str, TableFile], pa.Schema]:
    """As table_rows, of files that hold no rows."""
    files = [file for commit in ledger.current.values() for file in commit.files]
    return {file.path: TableFile(file.path, file.rows, file.bytes) for file in files}, pa.schema([])


def units_of(spans: Sequence[Span]) -> Iterator[tuple[tuple[Piece, ...], tuple[str, ...]]]:
    """(pieces, replaced commits): the spans of small files together, of a large one its halves."""
    replaces = tuple(sorted({name for span in spans for name in span.replaces}))
    pieces = []
    for span in spans:
        for start, stop in ((0, ROWS // 2), (ROWS // 2, ROWS)):
            for open_range in span.ranges:
                if open_range.start_row <= start and (open_range.stop_row is None or stop <= open_range.stop_row):
                    identity = span.file.stored.identity
                    pieces.append(Piece(span.file.path, identity, start, stop, stop == ROWS, start, stop))
    if len(spans) > 1 or spans[0].file.stored.size <= UNIT_BYTES:
        yield tuple(joined_pieces(pieces)), replaces
    else:
        for piece in pieces:
            yield (piece,), replaces


def check_output(world: World) -> dict[str, list[Piece]]:
    """What a fresh reader finds stands once, in one version, and on storage; returns the pieces by input file."""
    current = read_ledger(world.store).current
    there = {world.store.relative(file.path) for file in world.store.list_all()}
    named = [file.path for commit in current.values() for file in commit.all_files()]
    assert len(named) == len(set(named)), "a file is named twice"
    assert set(named) <= there, f"lost: {sorted(set(named) - there)}"
    world.states.append({*named})
    check_table(world, there)
    found = pieces_by_file(current.values())
    for path, pieces in found.items():
        assert not overlaps(pieces), f"twice: {overlaps(pieces)}"
        assert len({piece.identity for piece in pieces}) == 1, f"two versions of {path}"
    return found


def check_table(world: World, there: set[str]) -> None:
    """Each version of the table is what was committed at some moment, in their order, and the newest one can be read."""
    names = [world.store.relative(file.path) for file in world.store.list_all(TABLE_FOLDER)]
    versions = [set(json.loads(world.store.read(name))["paths"]) for name in names]
    moments = iter(world.states)
    state = next(moments)
    for version in versions:
        while state != version:
            state = next(moments, None)
            assert state is not None, f"a version of what was not committed, or not then: {sorted(version)}"
    newest = versions[-1] if versions else set()
    assert newest <= there, f"lost: {sorted(newest - there)}"


def check_complete(world: World) -> None:
    """Every input file is labeled from its first row to its last as it is now, nothing else is, and the table has just that."""
    found = check_output(world)
    assert PathsTable(world.store).read().paths == world.states[-1], "the table is not what is committed"
    assert set(found) == set(world.inputs), f"{sorted(found)}, not {sorted(world.inputs)}"
    for path, identity in world.inputs.items():
        assert {piece.identity for piece in found[path]} == {identity}, f"{path} is not as it is now"
        assert not gaps(found[path]), f"missing: {path} {gaps(found[path])}"


def kind_of(request: tuple[str, str] | None) -> str:
    """What a request is for."""
    if request is None:
        return "end"
    what, path = request
    folder = next((name for name in ("_lease", "_commits", TABLE_FOLDER) if f"/{name}" in path), "data")
    return f"{what} {folder}"


KINDS = (
    "put _lease",
    "list _lease",
    "delete _lease",
    "put _commits",
    "read _commits",
    "delete _commits",
    "list _commits",
    f"put {TABLE_FOLDER}",
    f"read {TABLE_FOLDER}",
    f"list {TABLE_FOLDER}",
    "put data",
    "list data",
    "delete data",
)
FAULTS: tuple[Fault, ...] = ("lost request", "lost answer", "interrupted before", "interrupted after")
slots = st.integers(0, 2)


class CommitProtocol(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.drivers: dict[int, tuple[Driver, Program]] = {}
        self.stalled: list[Program] = []

    def _start(self, slot: int, driver: Driver) -> None:
        self.drivers[slot] = (driver, Program(driver.run))

    def _step(self, slot: int, fault: Fault | None = None) -> None:
        driver, program = self.drivers[slot]
        what, path = program.request or ("", "")
        program.step(fault)
        if program.ended:
            del self.drivers[slot]
        check_output(self.world)
        if fault is None and kind_of((what, path)) == "put _commits" and "/pack-" not in path:
            counts = {commit.name for commit in read_ledger(self.world.store).commits.values()}
            there = Commit.from_json(self.world.store.read(self.world.store.relative(f"stepped:/{path}")))
            driver.voided = driver.voided or there.name not in counts
        if program.ended:
            check_error(driver, program)

    @precondition(lambda self: len(self.drivers) < 3)
    @rule(skew_s=st.sampled_from([0.0, 45.0, -45.0]), compacts=st.booleans(), until=st.sampled_from(KINDS))
    def start(self, skew_s: float, compacts: bool, until: str) -> None:
        slot = next(slot for slot in range(3) if slot not in self.drivers)
        self._start(slot, Driver(self.world, skew_s, compacts))
        self.run_until(slot, until, 1)

    @precondition(lambda self: self.drivers)
    @rule(slot=slots, steps=st.integers(1, 5))
    def go_on(self, slot: int, steps: int) -> None:
        for _ in range(steps):
            if slot in self.drivers:
                self._step(slot)

    @precondition(lambda self: self.drivers)
    @rule(slot=slots, kind=st.sampled_from(KINDS), times=st.integers(1, 3))
    def run_until(self, slot: int, kind: str, times: int) -> None:
        """It stalls before a request of that kind: only after it has made `times - 1` of them."""
        while slot in self.drivers:
            self._step(slot)
            if slot in self.drivers and kind_of(self.drivers[slot][1].request) == kind:
                times -= 1
                if not times:
                    return

    @precondition(lambda self: self.drivers)
    @rule(slot=slots)
    def finish(self, slot: int) -> None:
        while slot in self.drivers:
            self._step(slot)

    @precondition(lambda self: self.drivers)
    @rule(slot=slots, fault=st.sampled_from(FAULTS))
    def fail(self, slot: int, fault: Fault) -> None:
        if slot in self.drivers:
            self._step(slot, fault)

    @precondition(lambda self: self.drivers)
    @rule(slot=slots)
    def kill(self, slot: int) -> None:
        if slot in self.drivers:
            self.drivers.pop(slot)[1].kill()

    @precondition(lambda self: self.drivers)
    @rule(slot=slots)
    def renew(self, slot: int) -> None:
        """What happens in the background, but while a request for the lease is under way."""
        driver, program = self.drivers.get(slot, (None, None))
        if driver and program and driver.lease and not kind_of(program.request).endswith("_lease"):
            try:
                driver.lease.confirm()
            except LeaseError:
                return

    @rule(seconds=st.sampled_from([10.0, 35.0, 61.0, 120.0]))
    def wait(self, seconds: float) -> None:
        self.world.now += seconds

    @rule(path=st.sampled_from(sorted(INPUTS)), identity=st.sampled_from(["v1", "v2", None]))
    def change(self, path: str, identity: str | None) -> None:
        """The content of an earlier version has its identity again, as etags have."""
        if identity is None and len(self.world.inputs) > 1:
            self.world.inputs.pop(path, None)
        elif identity:
            self.world.inputs[path] = identity

    @invariant()
    def output_is_whole(self) -> None:
        check_output(self.world)

    def _run_alone(self) -> bool:
        """A run that nobody disturbs; says whether there was anything to do."""
        self.world.now += 10 * LEASE_S
        driver = Driver(self.world)
        program = Program(driver.run)
        while not program.ended:
            kind = kind_of(program.request)
            program.step()
            if kind == "put _commits":
                check_output(self.world)
        if program.error is not None:
            raise program.error
        check_complete(self.world)
        ledger = read_ledger(self.world.store)
        assert not garbage_files(self.world.store, ledger, set), "garbage is left"
        named = sum(len(commit.all_files()) for commit in ledger.current.values())
        files = [file.path for file in self.world.store.list_all() if "/label=" in file.path]
        assert len(files) == named, "files that no commit names are left"
        return driver.lease is not None

    def teardown(self) -> None:
        try:
            had_the_lease = self._run_alone()
            for slot in list(self.drivers):  # whoever was stalled goes on only now
                self.finish(slot)
                if had_the_lease:  # else one that has seen another input may take the lease now
                    check_complete(self.world)
            self._run_alone()
        finally:
            for _, program in self.drivers.values():
                program.kill()
            root = self.world.output.path.removeprefix("stepped:/")
            for path in [path for path in SteppedFileSystem.store if path.startswith(root)]:
                del SteppedFileSystem.store[path]


def check_error(driver: Driver, program: Program) -> None:
    """A driver ends well, or because of what the test did to it: never with an error of its own making."""
    error = program.error
    cause = error.__cause__ or error if isinstance(error, UserError) else error
    nothing_there = isinstance(error, UserError) and "holds no labels" in str(error)
    is_planned = nothing_there or isinstance(cause, LeaseError | Interrupted | Killed)
    if cause is not None and not is_planned and not is_store_fault(cause):
        raise AssertionError(f"a driver failed: {type(error).__name__}: {error}") from error
    assert error is not None or not driver.voided, "a run ended well, but what it committed does not count"


SUITE = settings(
    stateful_step_count=20,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=(HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large),
)


def run_machine(how: settings) -> None:
    """The product's functions with each driver's own clock, and packs of few records."""

    def clocked_acquire(*arguments: Any, **options: Any) -> Lease:
        driver = _here.driver
        driver.lease = acquire(*arguments, **options, clock=driver.clock)
        return driver.lease

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs.run.commit_writer, "LOOSE_RECORDS", LOOSE_RECORDS)
        patch.setattr(pipeline_ops.output.lease, "acquire", clocked_acquire)
        patch.setattr(pipeline_ops.publishing.publisher, "open_table", lambda store, output: PathsTable(store))
        patch.setattr(pipeline_ops.publishing.publisher, "table_rows", rows_of)
        patch.setattr(jobs.publishing.existing_output, "check_free", lambda store: check_free(store, _here.driver.clock))
        run_state_machine_as_test(CommitProtocol, settings=how)


@pytest.mark.parametrize("examples", mostly_slow([70, 200], quick=[70]))
def test_commit_protocol_in_any_order_of_requests_loses_nothing_and_doubles_nothing(examples: int) -> None:
    run_machine(settings(SUITE, max_examples=examples))


if __name__ == "__main__":
    run_machine(settings(SUITE, max_examples=int(sys.argv[1]), stateful_step_count=40, derandomize=False))
