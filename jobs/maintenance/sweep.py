"""`label-corpus sweep`: removes what no commit names, without labeling, as a run does when it starts and when it ends."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jobs.config import JobConfig
from pipeline_ops.output.commit_log import Ledger, read_ledger, sweep, write_pack
from pipeline_ops.output.lease import Lease, acquire, check_free
from pipeline_ops.schema.errors import UserError, as_user_error, store_errors
from pipeline_ops.storage.files import full_path


@contextmanager
def holding(job: JobConfig) -> Iterator[tuple[str, Ledger, Lease]]:
    """An output that is there already: its full path, its records and its lease, for the time of the block.

    Raises:
        UserError: there is no output, or it cannot be read or written.
        LeaseError: another run writes to it.
    """
    output = full_path(job.output.path)
    try:
        seen = check_free(output, job.storage)
        ledger = read_ledger(output, job.storage)
        if seen is None and not ledger.commits:
            raise UserError(f"output.path: {output!r} holds no labels; run the job first")
        lease = acquire(output, job.storage, job.output.lease_seconds, seen, pack_term=ledger.pack_term)
    except store_errors() as error:
        raise as_user_error("output.path", output, "read or written", error) from error
    interrupted = False
    try:
        with lease.renewed():
            if lease.must_fence:
                write_pack(ledger, lease.term, output, job.storage)
            yield output, ledger, lease
    except BaseException as error:
        interrupted = not isinstance(error, Exception)
        raise
    finally:
        lease.release(interrupted=interrupted)


def sweep_output(job: JobConfig) -> dict[str, Any]:
    """Removes unreferenced files, and records that no longer count.

    Returns:
        removed (files), bytes, and output.
    """
    started = time.monotonic()
    with holding(job) as (output, ledger, lease):
        garbage = sweep(output, ledger, job.storage, lease.confirm)
    return {
        "removed": len(garbage),
        "bytes": sum(file.size for file in garbage),
        "seconds": round(time.monotonic() - started, 2),
        "output": output,
    }
