"""`label-corpus sweep`: delete the files that no commit names, as a run does when it starts and when it ends."""

import time
from typing import Any

from jobs.config import JobConfig
from jobs.number_format import byte_size, counted
from jobs.publishing.existing_output import existing_output
from pipeline_ops.output.commit_log import garbage_files, sweep


def sweep_output(job: JobConfig) -> dict[str, Any]:
    """Delete unreferenced files and superseded records.

    Returns:
        removed (number of files), bytes, kept and kept_bytes (files of labels that no commit names, but a version of the table
        of the last output.keep_versions_days), seconds and output.
    """
    started = time.monotonic()
    with existing_output(job, "sweep") as output:
        garbage = sweep(job.output_store, output.ledger, output.lease.confirm, output.publisher.kept_files)
        kept = garbage_files(job.output_store, output.ledger, set)
    return {
        "removed": len(garbage),
        "bytes": sum(file.size for file in garbage),
        "kept": len(kept),
        "kept_bytes": sum(file.size for file in kept),
        "seconds": round(time.monotonic() - started, 2),
        "output": job.output_store.path,
    }


def sweep_line(result: dict[str, Any], days: float) -> str:
    """The result for people.

    Args:
        days: output.keep_versions_days.
    """
    line = f"{counted(result['removed'], 'file')} deleted, {byte_size(result['bytes'])}, in {result['output']}"
    if not result["kept"]:
        return line
    kept = f"{counted(result['kept'], 'file')}, {byte_size(result['kept_bytes'])}"
    return f"{line}; kept: {kept}, which versions of the table of the last {days:g} days name (output.keep_versions_days)"
