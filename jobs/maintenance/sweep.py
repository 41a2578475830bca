"""`label-corpus sweep`: delete the files that no commit names, as a run does when it starts and when it ends."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jobs.config import JobConfig
from pipeline_ops.joining.parts import parts_of
from pipeline_ops.output.commit_log import Ledger, read_ledger, sweep
from pipeline_ops.output.lease import Lease, check_free, hold_lease
from pipeline_ops.schema.errors import UserError, store_access


@contextmanager
def existing_output(job: JobConfig) -> Iterator[tuple[Ledger, Lease]]:
    """Hold the lease of an output that has labels; yields its ledger and the lease.

    Raises:
        UserError: there is no output, or it cannot be read or written.
        LeaseError: another run holds the lease.
    """
    store = job.output_store
    with store_access("output.path", store.path, "read"):
        seen = check_free(store)
        ledger = read_ledger(store)
        parts = parts_of(store)
    if parts:
        raise UserError(f"output.path: {store.path!r} holds the parts of a split job; give one at a time, as {parts[0].name}")
    if seen is None and not ledger.commits:
        raise UserError(f"output.path: {store.path!r} holds no labels; run the job first")
    with hold_lease(store, job.output.lease_seconds, seen, ledger) as lease:
        yield ledger, lease


def sweep_output(job: JobConfig) -> dict[str, Any]:
    """Delete unreferenced files and superseded records.

    Returns:
        removed (number of files), bytes, seconds and output.
    """
    started = time.monotonic()
    with existing_output(job) as (ledger, lease):
        garbage = sweep(job.output_store, ledger, lease.confirm)
    return {
        "removed": len(garbage),
        "bytes": sum(file.size for file in garbage),
        "seconds": round(time.monotonic() - started, 2),
        "output": job.output_store.path,
    }
