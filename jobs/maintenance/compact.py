"""`label-corpus compact`: merge the small labeled files of each partition. Nothing is labeled again.

plan -> merge -> commit: each group of commits is replaced by one, which is committed when all its files are written. Readers of
commits see the old files or the new ones. The files of an interrupted compaction are deleted and written again by the next one.
It plans again until there is nothing to merge: files are smaller merged than apart, so merged ones may go together again.
"""

import time
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from jobs.config import JobConfig
from jobs.console import signals
from jobs.console.step_progress import Steps
from jobs.executors.executor import Executor
from jobs.executors.ray_executor import RayExecutor
from jobs.executors.unit_threads import results_of
from jobs.number_format import counted
from jobs.publishing.existing_output import existing_output
from pipeline_ops.output.commit_log import Ledger, commit_unit, sweep
from pipeline_ops.output.compaction import Compaction, compacted, merge_files, plan_compactions, schemas_of_small_files
from pipeline_ops.output.lease import Lease
from pipeline_ops.storage.store import Store
from pipeline_ops.writing.commit_record import WrittenFile

IN_PROCESS_BYTES = 128 * 2**20  # merged in this process: a few seconds, less than starting Ray takes


def compact(job: JobConfig, target_bytes: int, *, quiet: bool = False, executor: Executor = RayExecutor()) -> dict[str, Any]:
    """Merges files of up to half of `target_bytes` into files of up to that size, until nothing is left to merge.

    Args:
        executor: what merges on, unless there is so little that this process does it.

    Returns:
        files_before and files_after (labeled files of the whole output), merged (number of files merged into others),
        bytes_before, bytes_after, commits (current ones afterwards), seconds and output.

    Raises:
        UserError: there is no output to compact.
        LeaseError: another run holds the lease.
    """
    started = time.monotonic()
    with Steps("compact", quiet=quiet) as steps, existing_output(job, "compact") as output:
        store, ledger, lease = job.output_store, output.ledger, output.lease
        sweep(
            store, ledger, lease.confirm, output.publisher.kept_files
        )  # delete replaced records before their successors are replaced
        before = _files(ledger)
        steps.begin("reading the schemas of small files")
        compactions = _plan(store, ledger, target_bytes)
        merging = [file for compaction in compactions for merge in compaction.merges for file in merge.files]
        steps.say(f"{counted(len(before), 'file')}, {len(merging):,} small enough to be merged")
        if compactions:
            on_executor = sum(file.bytes for file in merging) > IN_PROCESS_BYTES
            if on_executor:
                steps.begin("starting Ray")
            with executor.connected() if on_executor else nullcontext():
                while compactions:
                    _carry_out(compactions, store, ledger, lease, steps, executor if on_executor else None)
                    output.publisher.publish(lease, same_rows=True)
                    sweep(store, ledger, lease.confirm, output.publisher.kept_files)
                    compactions = _plan(store, ledger, target_bytes)
    after = _files(ledger)
    return {
        "files_before": len(before),
        "files_after": len(after),
        "merged": len({file.path for file in before} - {file.path for file in after}),
        "bytes_before": sum(file.bytes for file in before),
        "bytes_after": sum(file.bytes for file in after),
        "commits": len(ledger.current),
        "seconds": round(time.monotonic() - started, 2),
        "output": store.path,
    }


def _files(ledger: Ledger) -> list[WrittenFile]:
    return [file for commit in ledger.current.values() for file in commit.files]


def _plan(store: Store, ledger: Ledger, target_bytes: int) -> list[Compaction]:
    commits = ledger.current.values()
    return plan_compactions(commits, target_bytes, schemas_of_small_files(store, commits, target_bytes))


def _carry_out(
    compactions: list[Compaction], store: Store, ledger: Ledger, lease: Lease, steps: Steps, executor: Executor | None
) -> None:
    """Merges files, on the executor if one is given, and commits each compaction as soon as all its files are written."""
    calls = [(store, merge) for compaction in compactions for merge in compaction.merges]
    owners = [(number, place) for number, one in enumerate(compactions) for place in range(len(one.merges))]
    written: list[dict[int, WrittenFile]] = [{} for _ in compactions]
    steps.begin("merging", len(calls), item="merge")
    written_bytes = 0
    run_tasks = results_of if executor is None else executor.run_tasks
    for call, file in run_tasks(merge_files, calls):
        signals.raise_pending()
        number, place = owners[call]
        written[number][place] = file
        written_bytes += file.bytes
        steps.add(1, f"{written_bytes / 1e6:,.1f} MB written")
        if len(written[number]) == len(compactions[number].merges):
            commit = compacted(store, compactions[number], [written[number][place] for place in sorted(written[number])])
            lease.check()
            commit_unit(store, ledger, replace(commit, term=lease.term, run="compact"))
