"""`label-corpus publish`: bring the output's table to its commits by hand, as a run does when it starts and when it ends."""

import time
from typing import Any

from jobs.config import JobConfig
from jobs.number_format import counted
from jobs.publishing.existing_output import existing_output
from pipeline_ops.schema.errors import UserError
from pipeline_ops.tables.input_table import table_words


def publish(job: JobConfig) -> dict[str, Any]:
    """Publish the committed files of an output as the newest version of its table.

    Returns:
        format and version of the table, added and removed (numbers of files in this version), files and rows (of the whole
        table), seconds and output.

    Raises:
        UserError: the job has no table, or there is no output, or the table cannot be written.
        LeaseError: another run holds the lease.
    """
    started = time.monotonic()
    if job.output.table == "none":
        raise UserError(
            "output.table: is none, so there is no table to publish; set it to delta or iceberg, in the job file or as"
            " output.table=delta on the command line, or give --hub user/name"
        )
    with existing_output(job, "publish") as output:
        published = output.publication
        files = [file for commit in output.ledger.current.values() for file in commit.files]
        version = output.publisher.version() or {"format": job.output.table.capitalize(), "version": None}
    return {
        **version,
        "added": published.added if published else 0,
        "removed": published.removed if published else 0,
        "files": len(files),
        "rows": sum(file.rows for file in files),
        "seconds": round(time.monotonic() - started, 2),
        "output": job.output_store.path,
    }


def publish_line(result: dict[str, Any]) -> str:
    """The result for people."""
    if result["version"] is None:
        return f"nothing to publish: no document is labeled; in {result['output']}"
    changed = f"{counted(result['added'], 'file')} added, {result['removed']:,} removed"
    there = f"{counted(result['rows'], 'row')} in {counted(result['files'], 'file')}"
    return f"{table_words(result)}: {changed}; {there}, in {result['output']}"
