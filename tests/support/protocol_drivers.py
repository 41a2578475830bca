"""Drivers for the tests of the commit protocol: programs of the product's own functions in the product's own order.

The order is that of jobs/run/commit_writer.py and jobs/maintenance/compact.py; tiny files are in place of labeled ones, and the
log of the table has their paths.
"""

import hashlib
import itertools
import json
import threading
import uuid
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from types import SimpleNamespace
from typing import Any, cast

import pyarrow as pa

from jobs.config import JobConfig
from jobs.publishing.existing_output import existing_output
from jobs.run.commit_writer import CommitWriter, finalize, needs_writing, output_lease
from jobs.run.prepare import Prepared
from pipeline_ops.inputs.input_files import InputFile
from pipeline_ops.output.commit_log import (
    Ledger,
    commit_unit,
    read_ledger,
    sweep,
)
from pipeline_ops.output.compaction import joined_pieces
from pipeline_ops.output.lease import Lease, check_free
from pipeline_ops.planning.work_plan import Plan, make_plan
from pipeline_ops.publishing.publisher import Publisher
from pipeline_ops.publishing.table import TableChange, TableChangedError, TableFile, TableVersion
from pipeline_ops.reading.spans import Span
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.schema.units import Piece
from pipeline_ops.storage.store import Store, StoredFile
from pipeline_ops.writing.commit_record import Commit, WrittenFile

TABLE_FOLDER = "_table"
LEASE_S = 60.0
INPUTS = {"a": 4, "b": 4, "c": 20}  # bytes; with UNIT_BYTES the first two are one unit, and the last is two
UNIT_BYTES = 10
ROWS = 4
ATTEMPTS = itertools.count(1)
here = threading.local()  # .driver: the one that runs in this thread


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
        here.driver = self
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
