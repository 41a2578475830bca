"""`label-corpus compact`: merge the small labeled files of each partition, on Ray. Nothing is labeled again.

plan -> merge -> commit: each group of commits is replaced by one, which is committed when all its files are written. Readers of
commits see the old files or the new ones. The files of an interrupted compaction are deleted and written again by the next one.
"""

import json
import time
from collections import defaultdict
from collections.abc import Generator
from contextlib import closing
from dataclasses import asdict, replace
from typing import Any

import pyarrow as pa

from cluster.ray_settings import configure_ray_data
from cluster.session import connected
from cluster.streaming import stream_rows
from jobs.config import JobConfig
from jobs.console import signals
from jobs.console.step_progress import Steps
from jobs.maintenance.sweep import existing_output
from pipeline_ops.output.commit_log import commit_unit, sweep
from pipeline_ops.output.compaction import Compaction, Merge, compacted, merge_files, plan_compactions
from pipeline_ops.storage.store import Store
from pipeline_ops.writing.commit_record import WrittenFile


def compact(job: JobConfig, target_bytes: int, *, quiet: bool = False) -> dict[str, Any]:
    """Merges files of up to half of `target_bytes` into files of up to that size.

    Returns:
        files_before and files_after (labeled files of the whole output), merged (number of files merged into others),
        bytes_before, bytes_after, commits (current ones afterwards), seconds and output.

    Raises:
        UserError: there is no output to compact.
        LeaseError: another run holds the lease.
    """
    started = time.monotonic()
    with Steps("compact", quiet=quiet) as steps, existing_output(job) as (ledger, lease):
        store = job.output_store
        sweep(store, ledger, lease.confirm)  # delete replaced records before their successors are replaced
        before = [file for commit in ledger.commits.values() for file in commit.files]
        compactions = plan_compactions(ledger.commits.values(), target_bytes)
        merged = sum(len(merge.files) for compaction in compactions for merge in compaction.merges)
        steps.say(f"{len(before):,} files, {merged:,} of them small enough to be merged")
        if compactions:
            steps.begin("starting Ray")
            # closed before Ray is shut down, as in run()
            with connected(), closing(_merged(store, compactions, steps)) as finished:
                for compaction, files in finished:
                    signals.raise_pending()
                    commit = compacted(store, compaction, files)
                    lease.check()
                    commit_unit(store, ledger, replace(commit, term=lease.term, run="compact"))
            sweep(store, ledger, lease.confirm)
    after = [file for commit in ledger.current.values() for file in commit.files]
    return {
        "files_before": len(before),
        "files_after": len(after),
        "merged": merged,
        "bytes_before": sum(file.bytes for file in before),
        "bytes_after": sum(file.bytes for file in after),
        "commits": len(ledger.current),
        "seconds": round(time.monotonic() - started, 2),
        "output": store.path,
    }


def merge_row(row: pa.Table, store: Store) -> pa.Table:
    """Runs one merge on Ray; columns in: unit, order, merge (JSON of a Merge), out: unit, order, written (JSON of files)."""
    fields = json.loads(row["merge"][0].as_py())
    merge = Merge(fields["path"], tuple(WrittenFile(**file) for file in fields["files"]))
    written = [asdict(file) for file in merge_files(store, merge)]
    return pa.table({"unit": row["unit"], "order": row["order"], "written": [json.dumps(written)]})


def _merged(
    store: Store, compactions: list[Compaction], steps: Steps
) -> Generator[tuple[Compaction, list[WrittenFile]], None, None]:
    """Yields (compaction, files of its merges, in order) as soon as all of them are written."""
    import ray.data

    by_unit = {compaction.unit: compaction for compaction in compactions}
    rows = [
        {"unit": compaction.unit, "order": order, "merge": json.dumps(asdict(merge))}
        for compaction in compactions
        for order, merge in enumerate(compaction.merges)
    ]
    configure_ray_data(1)
    done: dict[str, dict[int, list[WrittenFile]]] = defaultdict(dict)
    merged = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        merge_row,  # pyright: ignore[reportArgumentType]
        fn_kwargs={"store": store},
        batch_size=1,
        batch_format="pyarrow",
        num_cpus=1,
    )
    steps.begin("merging", len(rows), items="merges")
    written_bytes = 0
    with closing(stream_rows(merged)) as finished:
        for row in finished:
            parts = done[row["unit"]]
            parts[row["order"]] = files = [WrittenFile(**file) for file in json.loads(row["written"])]
            written_bytes += sum(file.bytes for file in files)
            steps.add(1, f"{written_bytes / 1e6:,.1f} MB written")
            compaction = by_unit[row["unit"]]
            if len(parts) == len(compaction.merges):
                yield compaction, [file for order in sorted(parts) for file in parts[order]]
