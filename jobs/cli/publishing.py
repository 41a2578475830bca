"""Commands that put labels where people query them: publish."""

import typer

from jobs.cli.options import AsJson, Overrides, Quiet, Target, emit, examples

app = typer.Typer()


@app.command(
    "publish",
    epilog=examples(
        "label-corpus publish job.yaml",
        "label-corpus publish labeled/ output.table=delta",
    ),
)
def publish_command(job: Target, overrides: Overrides = None, quiet: Quiet = False, as_json: AsJson = False) -> None:
    """Publish the labels as a Delta or Iceberg table: what is committed since the last version.

    A job with output.table does so itself, every output.publish_seconds and at its end.
    """
    from jobs.publishing.publish import publish, publish_line
    from jobs.results.open_output import job_at

    result = publish(job_at(job, overrides))
    emit(result, publish_line(result), as_json=as_json, quiet=quiet)
