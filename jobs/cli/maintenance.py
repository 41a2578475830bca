"""Maintenance commands: compact, sweep, schema."""

from enum import StrEnum
from typing import Annotated

import typer

from jobs.cli.options import AsJson, JobFile, Overrides, Quiet, emit, examples

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
    as_json: AsJson = False,
) -> None:
    """Merge small files of each partition."""
    from jobs.config import load_job
    from jobs.maintenance.compact import compact
    from jobs.number_format import byte_size, counted

    result = compact(load_job(job, overrides), target_bytes, quiet=quiet)
    files = f"{counted(result['files_before'], 'file')}, now {result['files_after']:,}"
    sizes = f"{byte_size(result['bytes_before'])}, now {byte_size(result['bytes_after'])}"
    emit(result, f"{files}; {sizes}; in {result['output']}", as_json=as_json, quiet=quiet)


@app.command(
    "sweep",
    epilog=examples(
        "label-corpus sweep job.yaml",
        "label-corpus sweep job.yaml output.path=s3://bucket/labeled",
    ),
)
def sweep_command(job: JobFile, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Delete files that no commit references."""
    from jobs.config import load_job
    from jobs.maintenance.sweep import sweep_output
    from jobs.number_format import byte_size, counted

    result = sweep_output(load_job(job, overrides))
    removed = f"{counted(result['removed'], 'file')} deleted, {byte_size(result['bytes'])}, in {result['output']}"
    emit(result, removed, as_json=as_json)


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
