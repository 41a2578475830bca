"""`label-corpus join`: one table of several outputs over the same input. Nothing is labeled again.

plan -> join -> commit: the rows that all outputs have and the joined one lacks, in units that are committed one by one, as a
run's. So a join that ends early is continued by the next one, and what has changed in the outputs since is joined anew.
"""

import socket
import time
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from jobs.console import signals
from jobs.console.step_progress import Steps
from jobs.executors.executor import Executor
from jobs.executors.ray_executor import RayExecutor
from jobs.executors.unit_threads import results_of
from jobs.number_format import counted
from jobs.run.commit_writer import CommitWriter, finalize
from pipeline_ops.joining.join_plan import JoinPlan, plan_join
from pipeline_ops.joining.joined_models import (
    check_continues,
    check_same_rows,
    joined_models,
    joined_output,
    joined_record,
    sources_of,
)
from pipeline_ops.joining.joined_unit import Joined, Source, Target, join_unit
from pipeline_ops.output.commit_log import Ledger, has_garbage, read_job, read_ledger, sweep, write_job
from pipeline_ops.output.labeled_output import Labeled
from pipeline_ops.output.lease import Lease, LeaseRecord, check_free, hold_lease
from pipeline_ops.output.run_records import COMPLETE, INCOMPLETE, INTERRUPTED, RunRecord, last_outcome, write_run
from pipeline_ops.publishing.publisher import Publisher
from pipeline_ops.schema.errors import UserError, is_store_fault, store_access
from pipeline_ops.schema.units import Unit, iso
from pipeline_ops.storage.paths import check_apart, is_inside, some_shown
from pipeline_ops.storage.store import Store
from pipeline_ops.writing.commit_record import Commit

IN_PROCESS_BYTES = 256 * 2**20  # of the outputs' files, joined in this process: less time than starting Ray takes


@dataclass(frozen=True)
class _Prepared:
    """A join that has been checked; `record` is the joined output's `_job.json`."""

    outputs: list[Labeled]
    target: Target
    sources: list[Source]
    record: dict[str, Any]
    seen: LeaseRecord | None
    ledger: Ledger
    plan: JoinPlan
    lasts_otherwise: bool  # the last join has recorded another outcome


def join(
    outputs: Sequence[Labeled],
    store: Store,
    names: Sequence[str] | None = None,
    *,
    quiet: bool = False,
    executor: Executor = RayExecutor(),
) -> dict[str, Any]:
    """Joins the rows that all outputs have, by input file and row, into the output at `store`.

    Args:
        outputs: two or more, over the same input; of the first one all columns are taken, of the others their models'.
        names: of the models, see joined_models.
        executor: what joins, unless there is so little that this process does it.

    Returns:
        documents, labeled, rejected, units: of the joined output. documents_joined, rejected_in_some: of this join, the latter
        rejected by one output and labeled by another. files_changed, files_removed: whose joined rows this join replaced, or
        dropped. waiting: {output: files and rows that it lacks and another one has}. other_versions: files of which the outputs
        have labeled different versions. complete: nothing waits. models: names; seconds; output.

    Raises:
        UserError: outputs that cannot be joined, or not to this one.
        LeaseError: another join writes to it.
        ReplacedError: an output was rewritten meanwhile; what was committed stays.
        StoreError: the object store kept failing; the same.
    """
    started = time.monotonic()
    with Steps("join", quiet=quiet) as steps:
        steps.begin("comparing the commits")
        prepared = _prepare(outputs, store, names)
        plan = prepared.plan
        joined: list[Joined] = []
        publisher = Publisher(store, prepared.target.output, prepared.ledger, "join")
        if plan.units or plan.stale or prepared.lasts_otherwise or has_garbage(store, prepared.ledger, publisher.kept_files):
            with hold_lease(store, prepared.target.output.lease_seconds, prepared.seen, prepared.ledger) as lease:
                sweep(store, prepared.ledger, lease.confirm, publisher.kept_files)
                with _recorded(prepared, lease, joined) as run:
                    for one in _carry_out(prepared, lease, run, steps, executor):
                        joined.append(one)
                        signals.raise_pending()
                    finalize(lease, publisher)
    current = prepared.ledger.current.values()
    return {
        "documents": sum(commit.documents for commit in current),
        "labeled": sum(commit.labeled for commit in current),
        "rejected": sum(commit.rejected for commit in current),
        "units": sum(bool(commit.pieces) for commit in current),
        "documents_joined": sum(one.commit.documents for one in joined),
        "rejected_in_some": sum(one.rejected_in_some for one in joined),
        "files_changed": len(plan.changed),
        "files_removed": len(plan.removed),
        "waiting": {
            one.path: {"files": lacks.files, "rows": lacks.rows} for one, lacks in zip(outputs, plan.waiting, strict=True)
        },
        "other_versions": list(plan.other_versions),
        "complete": plan.is_complete,
        "models": list(prepared.record["models"]),
        "seconds": round(time.monotonic() - started, 2),
        "output": store.path,
    }


def _prepare(outputs: Sequence[Labeled], store: Store, names: Sequence[str] | None) -> _Prepared:
    if len(outputs) < 2:
        raise UserError("join: give two outputs or more, over the same input")
    paths = [one.path for one in outputs]
    for number, path in enumerate(paths):
        if path in paths[:number]:
            raise UserError(f"join: the output {path!r} is given twice; give each once")
        if is_inside(store.path, path) or is_inside(path, store.path):
            raise UserError(f"--output: {store.path!r} and the output {path!r} are one inside the other; give another folder")
    for one in outputs:
        check_apart(one.record["config"]["input"]["path"], store.path, "labels")
    with store_access("--output", store.path, "read"):
        seen = check_free(store)
        before = read_job(store)
        ledger = read_ledger(store)
        outcome = None if before is None else last_outcome(store)
    if names is None and before is not None and "join" in before:
        names = [name for one in before["join"] for name in one["models"]]
    models = joined_models(outputs, names)
    output = joined_output(outputs, models, store.path)
    record = joined_record(outputs, models, output)
    if before is not None and (ledger.commits or "join" not in before):
        check_continues(before, record, store.path)
    elif before is None and ledger.commits:
        raise UserError(f"--output: {store.path!r} holds labels but no _job.json; give another folder")
    plan = plan_join([one.commits for one in outputs], list(ledger.current.values()), record["fingerprint"])
    check_same_rows(outputs, [piece.path for unit in plan.units for piece in unit.pieces])
    facts = {
        name: {key: value for key, value in one.items() if key not in ("output", "card")}
        for name, one in record["models"].items()
    }
    metadata = {"models": facts, "fingerprint": record["fingerprint"]}
    target = Target(store, output, metadata, record["fingerprint"])
    lasts_otherwise = outcome is not None and outcome != (COMPLETE if plan.is_complete else INCOMPLETE)
    return _Prepared(list(outputs), target, sources_of(outputs, models), record, seen, ledger, plan, lasts_otherwise)


def _carry_out(prepared: _Prepared, lease: Lease, run: str, steps: Steps, executor: Executor) -> Iterator[Joined]:
    """Joins and commits the plan's units; yields each when it is committed. Rows that are outdated leave the output."""
    plan, target, store = prepared.plan, prepared.target, prepared.target.store
    if plan.units:
        lease.check()
        write_job(store, {**prepared.record, "run": run})
    writer = CommitWriter(store, target.output, prepared.ledger, plan, lease, run)
    writer.drop_removed()
    rows_of = [_CommitsByRow(one.commits) for one in prepared.outputs]
    calls = [(unit, prepared.sources, [one.of_unit(unit) for one in rows_of], target) for unit in plan.units]
    on_executor = _bytes_of(calls) > IN_PROCESS_BYTES
    if on_executor:
        steps.begin("starting Ray")
    with executor.connected() if on_executor else nullcontext():
        run_tasks = executor.run_tasks if on_executor else results_of
        writer.rewrite_outdated(run_tasks)
        rows = sum(piece.stop_row - piece.start_row for unit in plan.units for piece in unit.pieces)
        steps.begin("joining", rows, item="row")
        for number, found in run_tasks(join_unit, calls):
            for one in found:
                writer.put(one.commit)
                yield one
            steps.add(sum(piece.stop_row - piece.start_row for piece in plan.units[number].pieces))


def _bytes_of(calls: Iterable[tuple[Any, ...]]) -> int:
    commits = {commit.name: commit for _, _, sides, _ in calls for side in sides for commit in side}
    return sum(file.bytes for commit in commits.values() for file in commit.files)


class _CommitsByRow:
    """An output's commits by the rows that they have."""

    def __init__(self, commits: Sequence[Commit]):
        self.by_path: dict[str, list[tuple[int, int, Commit]]] = defaultdict(list)
        for commit in commits:
            for piece in commit.pieces:
                self.by_path[piece.path].append((piece.start_row, piece.stop_row, commit))

    def of_unit(self, unit: Unit) -> list[Commit]:
        """Those with rows of the unit, in the order of the input."""
        found = {}
        for piece in unit.pieces:
            for start, stop, commit in self.by_path[piece.path]:
                if start < piece.stop_row and stop > piece.start_row:
                    found[commit.name] = commit
        return list(found.values())


@contextmanager
def _recorded(prepared: _Prepared, lease: Lease, joined: Sequence[Joined]) -> Iterator[str]:
    """Records the join under `_runs/` while the block runs, for `status` and `report`; yields its id."""
    store, plan, began = prepared.target.store, prepared.plan, iso(datetime.now(UTC))
    record = RunRecord(
        run=uuid.uuid4().hex[:12],
        term=lease.term,
        started=began,
        written=began,
        host=socket.gethostname(),
        units_planned=len(plan.units),
        documents_before=sum(commit.documents for commit in prepared.ledger.current.values()),
        units_before=len(prepared.ledger.current),
    )

    def end(outcome: str, message: str | None = None) -> None:
        record.outcome, record.message, record.ended = outcome, message, iso(datetime.now(UTC))
        record.units, record.documents = len(joined), sum(one.commit.documents for one in joined)
        record.rejected, record.tokens = (sum(getattr(one.commit, key) for one in joined) for key in ("rejected", "tokens"))
        write_run(store, record)

    write_run(store, record)
    try:
        yield record.run
        end(COMPLETE if plan.is_complete else INCOMPLETE)
    except Exception as error:
        if not is_store_fault(error):
            end("failed", f"{type(error).__name__}: {' '.join(str(error).split())}")
        raise
    except BaseException:
        end(INTERRUPTED)
        raise


def join_lines(result: dict[str, Any]) -> list[str]:
    """The result for people: what was joined, and what waits and for what."""
    done = "nothing new to join"
    if result["documents_joined"]:
        some = f", {result['rejected_in_some']:,} of them rejected by some" if result["rejected_in_some"] else ""
        done = f"{counted(result['documents_joined'], 'document')} joined{some}"
    if result["files_removed"]:
        done += f"; those of {counted(result['files_removed'], 'file')} dropped, which an output no longer has"
    lines = [f"{done}; {counted(result['documents'], 'document')} in {result['output']}"]
    lacking = [
        f"{path} lacks {counted(lacks['rows'], 'row')} of {counted(lacks['files'], 'file')}"
        for path, lacks in result["waiting"].items()
        if lacks["files"]
    ]
    if lacking:
        lines.append(f"waiting: {'; '.join(lacking)}; finish its job with `label-corpus run`, and join again")
    if result["other_versions"]:
        lines.append(
            f"waiting: the outputs have labeled different versions of {some_shown(result['other_versions'])};"
            " run the job that is behind, and join again"
        )
    return lines
