"""Maintenance commands: compact, sweep, schema."""

from enum import StrEnum
from typing import Annotated

import typer

from jobs.cli.options import JobFile, Overrides, Quiet, emit, examples

app = typer.Typer()


@app.command(
    "compact",
    epilog=examples(
        "label-corpus compact job.yaml",
        "label-corpus compact job.yaml --target-bytes 134217728",
    ),
)
def compact_command(
    job: JobFile,
    overrides: Overrides = None,
    target_bytes: Annotated[int, typer.Option("--target-bytes", min=1, help="target size of merged files")] = 256 * 2**20,
    quiet: Quiet = False,
) -> None:
    """Merge small files of each partition."""
    from jobs.config import load_job
    from jobs.maintenance.compact import compact

    emit(compact(load_job(job, overrides), target_bytes, quiet=quiet))


@app.command(
    "sweep",
    epilog=examples(
        "label-corpus sweep job.yaml",
        "label-corpus sweep job.yaml output.path=s3://bucket/labeled",
    ),
)
def sweep_command(job: JobFile, overrides: Overrides = None) -> None:
    """Delete files that no commit references."""
    from jobs.config import load_job
    from jobs.maintenance.sweep import sweep_output

    emit(sweep_output(load_job(job, overrides)))


class FileKind(StrEnum):
    """The file that a schema describes."""

    job = "job"
    train = "train"


@app.command(
    "schema",
    epilog=examples(
        "label-corpus schema > job.schema.json",
        "label-corpus schema train > train.schema.json",
    ),
)
def schema_command(
    kind: Annotated[FileKind, typer.Argument(metavar="KIND", help="job or train")] = FileKind.job,
) -> None:
    """Print the JSON Schema of a job or training file, for editors.

    An editor that knows YAML takes it from the first line of the file: `# yaml-language-server: $schema=job.schema.json`
    """
    from jobs.start.json_schema import schema_of

    emit(schema_of(kind.value))
