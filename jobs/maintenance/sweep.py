"""`label-corpus sweep`: delete the files that no commit names, as a run does when it starts and when it ends."""

import time
from typing import Any

from jobs.config import JobConfig
from jobs.publishing.existing_output import existing_output
from pipeline_ops.output.commit_log import sweep


def sweep_output(job: JobConfig) -> dict[str, Any]:
    """Delete unreferenced files and superseded records.

    Returns:
        removed (number of files), bytes, seconds and output.
    """
    started = time.monotonic()
    with existing_output(job, "sweep") as output:
        garbage = sweep(job.output_store, output.ledger, output.lease.confirm)
    return {
        "removed": len(garbage),
        "bytes": sum(file.size for file in garbage),
        "seconds": round(time.monotonic() - started, 2),
        "output": job.output_store.path,
    }
