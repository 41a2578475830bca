"""What a run does to its output besides labeling: who may write, what is put when, and what goes when something comes instead.

A commit is put under the lease, behind those that keep what is still right of the commits it replaces. So a reader of commits
sees a changed file's old rows or its new ones, and its neighbors' rows always.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from jobs.run.chain import Executor
from jobs.run.prepare import Prepared
from pipeline_ops.output.commit_log import LOOSE_RECORDS, commit_unit, has_garbage, sweep, write_pack
from pipeline_ops.output.lease import Lease, acquire
from pipeline_ops.output.rewriting import drop_sources, tombstone
from pipeline_ops.planning.work_plan import is_all_stale
from pipeline_ops.schema.errors import UserError, as_user_error, is_store_fault, store_errors
from pipeline_ops.storage.files import check_writable, remove_folder_if_empty
from pipeline_ops.writing.commit_record import Commit


def needs_writing(prepared: Prepared) -> bool:
    """Whether a run would change anything: a finished job's next run writes nothing, not even a lease."""
    job = prepared.job
    return bool(
        prepared.plan.tasks
        or prepared.plan.stale
        or prepared.outdated_failures
        or has_garbage(job.output.path, prepared.ledger, job.storage)
    )


@contextmanager
def writing(prepared: Prepared) -> Iterator[Lease]:
    """The lease on a job's output, swept, for the time of the block. What was read of the output before is still true.

    An output that was empty, and still is when a user's mistake ends the block, is left as it was.

    Raises:
        UserError: the output cannot be written.
        LeaseError: another run writes to it.
    """
    job = prepared.job
    try:
        new_folders = check_writable(job.output.path, job.storage)
        lease = acquire(
            job.output.path,
            job.storage,
            job.output.lease_seconds,
            prepared.lease,
            pack_term=prepared.ledger.pack_term,
        )
    except store_errors() as error:
        raise as_user_error("output.path", job.output.path, "written", error) from error
    forget = interrupted = False
    try:
        with lease.renewed():
            if lease.must_fence:  # what the other run may still commit is void from now on
                write_pack(prepared.ledger, lease.term, job.output.path, job.storage)
            sweep(job.output.path, prepared.ledger, job.storage, lease.confirm)
            yield lease
    except UserError:
        forget = prepared.lease is None and not prepared.ledger.commits
        raise
    except Exception as error:
        if is_store_fault(error):  # then the lease cannot be released either: do not wait for that, it expires
            lease = None
        raise
    except BaseException:  # Ctrl-C or SIGTERM, perhaps in the middle of a request
        interrupted = True
        raise
    finally:
        if lease is not None:
            lease.release(forget=forget, interrupted=interrupted)
        for folder in new_folders if forget else []:
            remove_folder_if_empty(folder, job.storage)


def finalize(prepared: Prepared, lease: Lease) -> None:
    """Ends a run: packs the records that stand alone if they are many, for each costs the next run a request, and sweeps."""
    job, ledger = prepared.job, prepared.ledger
    if ledger.loose > LOOSE_RECORDS:
        lease.confirm()
        write_pack(ledger, lease.term, job.output.path, job.storage)
    sweep(job.output.path, ledger, job.storage, lease.confirm)


class Writer:
    """Puts commits, each under the lease and together with what it makes outdated."""

    def __init__(self, prepared: Prepared, lease: Lease, run: str):
        self.prepared, self.lease, self.run = prepared, lease, run
        self.rewritten: dict[str, Commit] = {}  # name of a commit that is partly outdated -> what takes over from it
        self.loose = prepared.ledger.loose

    def put(self, commit: Commit) -> bool:
        """Puts a commit, behind those that keep what is still right of the ones it replaces; False: another attempt counts."""
        for name in commit.replaces:
            if name in self.rewritten:
                self._put(self.rewritten.pop(name))
        return self._put(commit)

    def _put(self, commit: Commit) -> bool:
        job = self.prepared.job
        self.lease.check()
        commit = replace(commit, run=self.run, term=self.lease.term)
        ledger = self.prepared.ledger
        try:
            counts = commit_unit(commit, ledger, job.output.path, job.storage)
        except FileNotFoundError:  # what was written beside it, on local disk, has been swept: by a run that took over
            self.lease.confirm()
            raise
        self.loose += 1
        if self.loose > max(LOOSE_RECORDS, len(ledger.packed) // 10):  # a tenth: packing all of them again costs as much
            self.lease.confirm()
            write_pack(ledger, self.lease.term, job.output.path, job.storage)
            self.loose = 0
        return counts

    def drop_removed(self) -> None:
        """Commits that nothing counts of the commits whose input files are all gone, where that is asked for."""
        plan = self.prepared.plan
        gone = [commit for commit in self._outdated() if is_all_stale(commit, plan)]
        changed = set(plan.changed)
        removed = [commit for commit in gone if not any(piece.path in changed for piece in commit.pieces)]
        if removed:
            self.put(tombstone(removed))

    def partly_outdated(self) -> list[Commit]:
        """The commits of which some rows have to go."""
        return [commit for commit in self._outdated() if not is_all_stale(commit, self.prepared.plan)]

    def rewrite_outdated(self, executor: Executor) -> None:
        """Writes, on the executor, what stays of partly outdated commits.

        Each is committed together with the rows that replace the others, or at once where none will.
        """
        job, plan, removed = self.prepared.job, self.prepared.plan, set(self.prepared.plan.removed)
        outdated = self.partly_outdated()
        calls = [(commit, plan.stale[commit.unit], job.output, job.storage) for commit in outdated]
        for number, rest in executor.run_tasks(drop_sources, calls):
            commit = outdated[number]
            if removed.intersection(plan.stale[commit.unit]):
                self.put(rest)
            else:
                self.rewritten[commit.name] = rest

    def _outdated(self) -> list[Commit]:
        return [commit for commit in self.prepared.ledger.current.values() if commit.unit in self.prepared.plan.stale]
