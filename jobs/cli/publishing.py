"""Commands that put labels where people query them: publish."""

from typing import Annotated

import typer

from jobs.cli.options import AsJson, Overrides, Quiet, Target, emit, examples

app = typer.Typer()


@app.command(
    "publish",
    epilog=examples(
        "label-corpus publish job.yaml",
        "label-corpus publish labeled/ output.table=delta",
        "label-corpus publish job.yaml --hub user/name --private",
    ),
)
def publish_command(
    job: Target,
    overrides: Overrides = None,
    hub: Annotated[
        str | None, typer.Option("--hub", metavar="USER/NAME", help="as a dataset on the Hugging Face hub instead")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="--hub: nobody else sees the dataset")] = False,
    branch: Annotated[str, typer.Option("--branch", metavar="NAME", help="--hub: branch of the dataset")] = "main",
    replace: Annotated[bool, typer.Option("--replace", help="--hub: take the place of another job's labels")] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Publish the labels as a Delta or Iceberg table: what is committed since the last version.

    A job with output.table does so itself, every output.publish_seconds and at its end.

    With --hub they become a dataset on the Hugging Face hub, with a card; given again, only what is new is uploaded.
    """
    if hub is not None:
        from jobs.publishing.hub import publish_lines, publish_to_hub

        result = publish_to_hub(job, overrides or [], hub, private=private, branch=branch, replace=replace, quiet=quiet)
        emit(result, *publish_lines(result), as_json=as_json, quiet=quiet)
        return
    from jobs.publishing.publish import publish, publish_line
    from jobs.results.open_output import job_at
    from pipeline_ops.schema.errors import UserError

    if private or branch != "main" or replace:
        raise UserError("publish: --private, --branch and --replace are for --hub user/name; give it, or leave them out")
    result = publish(job_at(job, overrides))
    emit(result, publish_line(result), as_json=as_json, quiet=quiet)
