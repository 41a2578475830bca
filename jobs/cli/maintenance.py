"""Maintenance commands: compact, sweep, join, split, schema."""

import sys
from enum import StrEnum
from typing import Annotated

import typer

from jobs.cli.options import AsJson, JobFile, Overrides, Quiet, Target, emit, examples, load_light_job

app = typer.Typer()


@app.command(
    "compact",
    epilog=examples(
        "label-corpus compact job.yaml",
        "label-corpus compact job.yaml --target-bytes 134217728",
    ),
)
def compact_command(
    job: Target,
    overrides: Overrides = None,
    target_bytes: Annotated[int, typer.Option("--target-bytes", min=1, help="target size of merged files")] = 256 * 2**20,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Merge small files of each partition."""
    from jobs.maintenance.compact import compact
    from jobs.number_format import byte_size, counted
    from jobs.results.open_output import job_at

    result = compact(job_at(job, overrides), target_bytes, quiet=quiet)
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
def sweep_command(job: Target, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Delete files that no commit references, except those that a recent version of the table names."""
    from jobs.maintenance.sweep import sweep_line, sweep_output
    from jobs.results.open_output import job_at

    found = job_at(job, overrides)
    result = sweep_output(found)
    emit(result, sweep_line(result, found.output.keep_versions_days), as_json=as_json)


@app.command(
    "join",
    epilog=examples(
        "label-corpus join quality.yaml topic.yaml --output joined/",
        "label-corpus join labeled/ topics/ --names quality,topic --output joined/",
    ),
)
def join_command(
    outputs: Annotated[
        list[str],
        typer.Argument(metavar="A B...", help="job files or folders with labels of the same input; storage.KEY=VALUE"),
    ],
    output: Annotated[str, typer.Option("--output", metavar="OUT", help="the folder of the joined rows")],
    names: Annotated[
        str | None,
        typer.Option("--names", metavar="NAME,NAME", help="of the models, which their columns begin with; default: folders'"),
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Make one table of outputs over the same input, such as of a model that came later.

    Of A all columns are taken, of the others those of their models. The next join takes what has changed since.
    """
    from jobs.maintenance.join import join, join_lines
    from jobs.results.open_output import find_labeled
    from pipeline_ops.storage.store import Store

    settings = [one for one in outputs if one.startswith("storage.") and "=" in one]
    labeled = [find_labeled(one, settings) for one in outputs if one not in settings]
    store = Store(output, labeled[0].store.config)
    result = join(labeled, store, None if names is None else names.split(","), quiet=quiet)
    lines = join_lines(result)
    if not (result["complete"] or sys.stderr.isatty()):  # in a log, too, what it waits for
        print(*lines[1:], sep="\n", file=sys.stderr, flush=True)
    emit(result, *lines, as_json=as_json, quiet=quiet, ok=result["complete"])


@app.command(
    "split",
    epilog=examples(
        "label-corpus split job.yaml 4       # job-parts/part-00000-of-00004.yaml, ...",
        "label-corpus split job.yaml 16 -o parts/",
    ),
)
def split_command(
    job: JobFile,
    number: Annotated[int, typer.Argument(metavar="N", help="how many parts, 2 or more")],
    overrides: Overrides = None,
    folder: Annotated[
        str | None, typer.Option("--output", "-o", metavar="FOLDER", help="of the job files; default: JOB-parts")
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Write job files for N disjoint parts of the input, for several drivers or clusters.

    Run each. Which part a file is in depends on its path alone, so files that arrive later are in one part, too.

    Outputs of parts are folders of the job's: with JOB, status, verify, report, show, evaluate and labels() go by all of them.
    """
    from jobs.maintenance.split import split, split_lines

    load_light_job(job, overrides)  # no model is loaded here
    result = split(job, number, folder, overrides or ())
    emit(result, *split_lines(result), as_json=as_json, quiet=quiet)


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
