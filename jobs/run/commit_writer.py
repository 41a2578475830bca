"""What a run writes to its output besides the labels, under the lease: commits, their replacements, quarantined units.

A commit is put under the lease, after the commits that keep the valid rows of those it replaces. So a reader of the commits
sees a changed file's old rows or its new ones, and always the rows of the other files.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from jobs.run.prepare import Prepared
from pipeline_ops.output.commit_log import (
    LOOSE_RECORDS,
    Ledger,
    commit_unit,
    has_garbage,
    incomplete_files,
    sweep,
    write_job,
    write_pack,
)
from pipeline_ops.output.failed_units import clear_failures, quarantine
from pipeline_ops.output.lease import Lease, hold_lease
from pipeline_ops.output.mostly_rejected import mostly_rejected
from pipeline_ops.output.rewriting import drop_sources, tombstone
from pipeline_ops.output.run_records import COMPLETE, INCOMPLETE, last_outcome
from pipeline_ops.planning.work_plan import Outdated, is_all_stale
from pipeline_ops.publishing.publisher import Publisher
from pipeline_ops.schema.failures import Failure
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.storage.store import Store
from pipeline_ops.writing.commit_record import Commit

# a function and its calls -> (number of a call, its result), as Executor.run_tasks
RunTasks = Callable[[Callable[..., Any], Sequence[tuple[Any, ...]]], Iterator[tuple[int, Any]]]


def needs_writing(prepared: Prepared, publisher: Publisher) -> bool:
    """Whether a run would change anything: the next run of a finished job writes nothing, not even a lease.

    A run whose table lacks committed files publishes them: the table was asked for later, or the last run was killed. A run
    that finds nothing to label writes its record if it ends otherwise than the last one: the files that kept that one from
    completing the output are gone, or accepted.
    """
    job = prepared.job
    return bool(
        prepared.plan.tasks
        or prepared.plan.stale
        or prepared.outdated_failures
        or has_garbage(job.output_store, prepared.ledger, publisher.kept_files)
        or _ends_otherwise(prepared)
        or publisher.is_behind()
    )


def _ends_otherwise(prepared: Prepared) -> bool:
    """Whether a run that labels nothing ends otherwise than the last one."""
    last = last_outcome(prepared.job.output_store)
    if last is None:
        return False
    commits, share = prepared.ledger.commits, prepared.job.input.max_reject_share
    is_complete = not (
        prepared.failures or incomplete_files(prepared.files, commits) or mostly_rejected(prepared.files, commits, share)
    )
    return last != (COMPLETE if is_complete else INCOMPLETE)


@contextmanager
def output_lease(prepared: Prepared, publisher: Publisher) -> Iterator[Lease]:
    """Holds the output's lease and deletes orphaned files; the ledger from prepare() stays current.

    The output's table is brought to the ledger first, by a new version in any case where an earlier holder may still write one.
    Failures that are to be retried leave quarantine, and the rows of a trial that this one replaces leave the output. When a
    user's mistake ends the block, an output that was empty before and still is has no trace of the run.

    Raises:
        UserError: the output cannot be written.
        LeaseError: another run writes to it.
    """
    job = prepared.job
    store = job.output_store
    with hold_lease(store, job.output.lease_seconds, prepared.lease, prepared.ledger) as lease:
        if prepared.replaces_trial:
            write_pack(store, prepared.ledger, lease.term)  # of no commit: it voids those of the earlier trial
        publisher.publish(lease, fence=lease.must_fence)
        sweep(store, prepared.ledger, lease.confirm, publisher.kept_files)
        clear_failures(store, prepared.outdated_failures)
        yield lease


def finalize(lease: Lease, publisher: Publisher) -> None:
    """Packs the loose commit records if they are many, since each costs the next run a request, and deletes orphaned files.

    The table is published before: files that it no longer names are orphaned as well.
    """
    store, ledger = publisher.store, publisher.ledger
    if ledger.loose > LOOSE_RECORDS:
        lease.confirm()
        write_pack(store, ledger, lease.term)
    publisher.publish(lease)
    sweep(store, ledger, lease.confirm, publisher.kept_files)


class CommitWriter:
    """Puts commits under the lease, each together with what replaces the commits it makes outdated."""

    def __init__(self, store: Store, output: OutputConfig, ledger: Ledger, plan: Outdated, lease: Lease, run: str):
        self.store, self.output, self.ledger, self.plan, self.lease, self.run = store, output, ledger, plan, lease, run
        self.job_record: dict[str, Any] | None = None  # to be put before the first outcome
        self.rewritten: dict[str, Commit] = {}  # name of a partly outdated commit -> the commit of its valid rows
        self.loose = ledger.loose

    def write(self, outcome: Commit | Failure) -> Commit | Failure | None:
        """Puts the commit of a unit, or quarantines its failure, after the job record.

        Returns:
            What has been recorded; None where another attempt at the unit is committed already.

        Raises:
            LeaseError: another run has the lease.
            StoreError: the store kept failing.
        """
        if self.job_record is not None:
            self.lease.check()
            write_job(self.store, self.job_record)
            self.job_record = None
        if isinstance(outcome, Commit):
            return self.ledger.commits[outcome.unit] if self.put(outcome) else None
        self.lease.check()
        quarantine(self.store, outcome, self.run)
        return outcome

    def put(self, commit: Commit) -> bool:
        """Puts a commit, after those of the valid rows of the commits it replaces; False: another attempt is committed."""
        for name in commit.replaces:
            if name in self.rewritten:
                self._put(self.rewritten.pop(name))
        return self._put(commit)

    def _put(self, commit: Commit) -> bool:
        self.lease.check()
        commit = replace(commit, run=self.run, term=self.lease.term)
        try:
            counts = commit_unit(self.store, self.ledger, commit)
        except FileNotFoundError:  # on local disk its temporary file has been swept, by a run that took over
            self.lease.confirm()
            raise
        self.loose += 1
        if self.loose > max(LOOSE_RECORDS, len(self.ledger.packed) // 10):  # repacking costs as much as a tenth
            self.lease.confirm()
            write_pack(self.store, self.ledger, self.lease.term)
            self.loose = 0
        return counts

    def drop_removed(self) -> None:
        """Replaces the commits whose input files are all gone by a tombstone, with output.drop_removed."""
        gone = [commit for commit in self._outdated() if is_all_stale(commit, self.plan)]
        changed = set(self.plan.changed)
        removed = [commit for commit in gone if not any(piece.path in changed for piece in commit.pieces)]
        if removed:
            self.put(tombstone(removed))

    def partly_outdated(self) -> list[Commit]:
        """The commits of which some rows are outdated, not all."""
        return [commit for commit in self._outdated() if not is_all_stale(commit, self.plan)]

    def rewrite_outdated(self, run_tasks: RunTasks) -> None:
        """Writes the valid rows of the partly outdated commits.

        Each is committed together with the rows that replace the outdated ones, or at once where no rows do.
        """
        stale, removed = self.plan.stale, set(self.plan.removed)
        outdated = self.partly_outdated()
        calls = [(self.store, commit, stale[commit.unit], self.output) for commit in outdated]
        for number, rest in run_tasks(drop_sources, calls):
            commit = outdated[number]
            if removed.intersection(stale[commit.unit]):
                self.put(rest)
            else:
                self.rewritten[commit.name] = rest

    def _outdated(self) -> list[Commit]:
        return [commit for commit in self.ledger.current.values() if commit.unit in self.plan.stale]
