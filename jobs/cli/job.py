"""Commands of a job: plan, run, verify."""

import shlex
import sys
from contextlib import nullcontext
from dataclasses import replace
from typing import Annotated

import typer

from jobs.cli.options import (
    AsJson,
    JobFile,
    LogFormat,
    LogFormatOption,
    Overrides,
    Quiet,
    Target,
    emit,
    examples,
    load_light_job,
)
from jobs.console.signals import interrupted_run

app = typer.Typer()


@app.command(
    "plan",
    epilog=examples(
        "label-corpus plan job.yaml",
        "label-corpus plan job.yaml model.max_length=128",
        "label-corpus plan job.yaml --cluster 64xH100 --price 2.5",
    ),
)
def plan_command(
    job: JobFile,
    overrides: Overrides = None,
    quiet: Quiet = False,
    cluster: Annotated[
        str | None, typer.Option("--cluster", metavar="NxGPU", help="estimate time and cost there: 64xH100, 16xCPU (cores)")
    ] = None,
    rate: Annotated[
        float | None, typer.Option("--rate", help="for --cluster: tokens/s of one GPU, as measured by `benchmark` or a run")
    ] = None,
    price: Annotated[float | None, typer.Option("--price", help="for --cluster: price of one GPU hour")] = None,
    check_model: Annotated[
        bool, typer.Option("--check-model", help="load the model here, and try whether its answers depend on padding")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what a run would do; with --cluster, estimate its time and cost."""
    from jobs.config import load_job
    from jobs.console.plan_table import print_plan
    from jobs.run.estimate import plan_on, print_estimate, target_of
    from jobs.run.plan import plan
    from pipeline_ops.schema.errors import UserError

    target = target_of(cluster, rate, price)
    if check_model and target is not None:
        raise UserError("--check-model: it looks at the model on this machine; leave --cluster out")
    loaded = load_job(job, overrides) if check_model else load_light_job(job, overrides)
    summary = plan(loaded, check_model=check_model) if target is None else plan_on(loaded, target)
    if not quiet:
        print_plan(summary)
        if target is not None:
            print_estimate(summary["estimate"])
    emit(summary, as_json=as_json, shown=not quiet)


@app.command(
    "run",
    epilog=examples(
        "label-corpus run job.yaml",
        "label-corpus run job.yaml compute.unit_bytes=8000000",
        "label-corpus run job.yaml --limit 500     # a trial: OUTPUT-trial/",
        "label-corpus run job.yaml --retry-failed --log-format json",
        "label-corpus run job.yaml --timings     # where its seconds go",
    ),
)
def run_command(
    job: JobFile,
    overrides: Overrides = None,
    quiet: Quiet = False,
    limit: Annotated[
        int | None,
        typer.Option("--limit", metavar="N", min=1, help="a trial: only the first N documents, into OUTPUT-trial"),
    ] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="retry units that earlier runs quarantined")] = False,
    log_format: LogFormatOption = LogFormat.text,
    no_report: Annotated[bool, typer.Option("--no-report", help="do not update OUTPUT/_report/report.html")] = False,
    timings: Annotated[
        bool, typer.Option("--timings", help="show seconds and CPU by phase and process; with --quiet in the JSON line only")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Label the documents that are not labeled yet."""
    from jobs.timings.timings import JOB_FILE, timings_of_command

    measured = timings_of_command(sampled=timings)
    if log_format is LogFormat.json:
        from jobs.console.json_logging import to_json

        to_json()
    from jobs.console.run_summary import run_lines
    from jobs.console.timings_table import shown_timings
    from jobs.label_corpus import run
    from jobs.results.reading_snippets import print_snippets_of
    from pipeline_ops.storage.store import Store

    json_lines = log_format is LogFormat.json
    arguments = [job, *(overrides or ())]
    trial = [] if limit is None else ["--limit", str(limit)]
    try:
        with shown_timings(measured, quiet=quiet) if timings else nullcontext():
            measured.begin(JOB_FILE)
            loaded = load_light_job(job, overrides)
            result = run(
                loaded,
                quiet=quiet,
                retry_failed=retry_failed,
                as_json=json_lines,
                report=not no_report,
                limit=limit,
                timings=measured,
            )
        if timings:
            result = replace(result, timings=measured.to_dict())
    except (KeyboardInterrupt, SystemExit) as stop:
        raise interrupted_run(stop, shlex.join(["label-corpus", "run", *arguments, *trial])) from None
    if result.labeled and sys.stderr.isatty() and not (quiet or as_json or json_lines):
        print_snippets_of(Store(result.output, loaded.storage))
    lines = run_lines(result, shlex.join(arguments))
    emit(result.to_dict(), *lines, as_json=as_json or json_lines, quiet=quiet, ok=result.complete)


@app.command(
    "verify",
    epilog=examples(
        "label-corpus verify job.yaml",
        "label-corpus verify job.yaml --deep",
    ),
)
def verify_command(
    job: Target,
    overrides: Overrides = None,
    deep: Annotated[bool, typer.Option("--deep", help="read every labeled file: bytes, rows, keys, schemas")] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Check the commits and files against a recount of the input."""
    from jobs.maintenance.verify import print_report, verify
    from jobs.number_format import counted
    from jobs.results.open_output import job_at

    report = verify(job_at(job, overrides), deep=deep, quiet=quiet)
    print_report(report)
    verdict = "verified: each is in the output once" if report["ok"] else "not verified"
    counts = f"{report['labeled']:,} labeled, {report['rejected']:,} rejected"
    if report["removed"]:
        counts += f", with those of {counted(len(report['removed']), 'file')} no longer in the input"
    if deep:
        counts += f"; {counted(report['files_read'], 'file')} read"
    emit(report, f"{counted(report['documents'], 'document')}: {verdict}; {counts}", as_json=as_json, ok=report["ok"])
