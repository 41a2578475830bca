"""What a person reads at the end of a run, in place of its JSON line."""

import shlex

from jobs.number_format import clock, counted, number
from jobs.run.result import RunResult
from pipeline_ops.tables.input_table import table_words


def run_lines(result: RunResult, job_file: str) -> list[str]:
    """The result of a run in three lines: what there is and where, speed and time, and what may be done next.

    Args:
        job_file: for the command of the last line, with overrides.
    """
    outcome = "incomplete" if not result.complete else "trial" if result.trial else "done"
    trial = f" --limit {result.limit}" if result.trial else ""
    rejected = f", {result.rejected:,} rejected" if result.rejected else ""
    failed = f", {counted(result.units_failed, 'unit')} failed" if result.units_failed else ""
    table = f", {table_words(result.table)}" if result.table is not None else ""
    lines = [
        f"{outcome}: {counted(result.documents, 'document')}, {result.labeled:,} labeled{rejected}{failed}, in"
        f" {result.output}{table}"
    ]
    rate = result.labeling_documents_per_second
    if rate is not None:
        this_run = (
            "" if result.documents_run == result.documents else f"this run: {counted(result.documents_run, 'document')}, "
        )
        startup = f", {clock(result.startup_seconds)} of it start-up" if result.startup_seconds is not None else ""
        lines.append(
            f"{this_run}{number(rate)} documents/s with {counted(result.classifiers, 'classifier')};"
            f" {clock(result.elapsed)} in all{startup}"
        )
    if result.units_failed:
        lines.append(f"next: label-corpus run {job_file}{trial} --retry-failed")
    elif result.files_mostly_rejected and not result.files_incomplete:
        shown = shlex.quote(result.output) if result.trial else job_file
        lines.append(f"next: label-corpus show {shown} --rejects")
    elif not result.complete:
        lines.append(f"next: label-corpus run {job_file}{trial}")
    elif result.trial:
        lines.append(f"look at {result.report or result.output}; label the whole: label-corpus run {job_file}")
    else:
        lines.append(f"next: label-corpus report {job_file} --open")
    return lines
