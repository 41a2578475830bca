"""The sub-commands for models: train, benchmark."""

import shlex
from typing import Annotated

import typer

from jobs.cli.options import AsJson, Overrides, Quiet, emit, examples

app = typer.Typer()

EVERY_MODE = {"output", "quiet", "as_json"}
OPTIONS_OF = {  # of a mode of the benchmark, named by its option; "" without one
    "gpu": {"only", "tiny", "limit"},
    "scaling": {"size", "actors", "units", "unit_seconds", "cores", "moved_bytes", "per_process"},
    "host_ceiling": {"size", "model", "corpus", "text_column", "seconds", "repeat", "batch_tokens"},
    "": {"size", "model", "corpus", "text_column", "seconds", "repeat", "batch_tokens", "contender", "dtype"},
}


@app.command(
    "train",
    epilog=examples(
        "label-corpus train train.yaml",
        "label-corpus train train.yaml training.epochs=1 training.max_documents=2000",
        "label-corpus train train.yaml input.corrections=review.jsonl",
    ),
)
def train_command(
    settings: Annotated[str, typer.Argument(metavar="TRAIN.yaml", help="the training file")],
    overrides: Overrides = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Fine-tune a classifier on a labeled corpus."""
    from jobs.config import load_config
    from jobs.number_format import counted, duration, percent
    from jobs.start.train import TrainConfig, train

    command = shlex.join(["label-corpus", "train", settings, *(overrides or [])])
    result = train(load_config(TrainConfig, settings, overrides or []), quiet=quiet, command=command)
    emit(
        result,
        f"{result['output']}: {percent(result['accuracy'])} of {counted(result['held_out_documents'], 'held-out document')}"
        f" right, where {result['baseline']['label']!r} for all gives {percent(result['baseline']['accuracy'])}; trained on"
        f" {result['train_documents']:,} in {duration(result['seconds'])}",
        f"next: label-corpus init CORPUS --model {shlex.quote(result['output'])}",
        as_json=as_json,
        quiet=quiet,
    )


@app.command(
    "benchmark",
    epilog=examples(
        "label-corpus benchmark",
        "label-corpus benchmark --size tiny",
        "label-corpus benchmark --model my-classifier --corpus reviews.parquet",
        "label-corpus benchmark --gpu --output results/",
    ),
)
def benchmark_command(
    context: typer.Context,
    model: Annotated[
        str | None, typer.Option("--model", help="local folder; default: a BERT of 22M parameters, made here")
    ] = None,
    corpus: Annotated[str | None, typer.Option("--corpus", help="local Parquet or JSON Lines; default: made here")] = None,
    text_column: Annotated[str, typer.Option("--text-column", help="of --corpus")] = "text",
    seconds: Annotated[float, typer.Option("--seconds", min=1, help="that the bare model takes for the corpus made here")] = 60,
    repeat: Annotated[int, typer.Option("--repeat", min=1, help="rounds")] = 3,
    contender: Annotated[
        list[str] | None,
        typer.Option("--contender", help="limit, job, job-on-ray; repeatable; default: the first two"),
    ] = None,
    dtype: Annotated[str, typer.Option("--dtype", help="of the job and the bare model")] = "auto",
    batch_tokens: Annotated[int | None, typer.Option("--batch-tokens", min=1, help="as compute.batch_tokens")] = None,
    size: Annotated[str, typer.Option("--size", help="full, or tiny: everything in seconds, to try the command")] = "full",
    output: Annotated[str | None, typer.Option("--output", help="folder for the results: JSON, a plot")] = None,
    host_ceiling: Annotated[bool, typer.Option("--host-ceiling", help="what all but the model allows")] = False,
    scaling: Annotated[
        bool, typer.Option("--scaling", help="how many GPUs one job can feed, with classifiers that sleep")
    ] = False,
    actors: Annotated[list[int] | None, typer.Option("--actors", min=1, max=1024, help="for --scaling; repeatable")] = None,
    units: Annotated[int | None, typer.Option("--units", min=1, help="for --scaling; default: 16 per actor")] = None,
    unit_seconds: Annotated[
        float | None, typer.Option("--unit-seconds", min=0.01, help="for --scaling: for which a classifier sleeps per unit")
    ] = None,
    cores: Annotated[
        int | None, typer.Option("--cores", min=1, help="for --scaling: of a machine to pretend, with units of full size")
    ] = None,
    moved_bytes: Annotated[
        int | None, typer.Option("--moved-bytes", min=1, help="for --cores: of each unit's text; default: all 32 MiB")
    ] = None,
    per_process: Annotated[
        int, typer.Option("--per-process", min=1, help="for --scaling: classifiers that one process answers for")
    ] = 1,
    gpu: Annotated[
        bool, typer.Option("--gpu", help="what one GPU does, phase by phase, and which defaults that contradicts")
    ] = False,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="PHASE", help="for --gpu: such as facts; repeatable")
    ] = None,
    tiny: Annotated[bool, typer.Option("--tiny", help="for --gpu: a rehearsal in a minute, without a GPU too")] = False,
    limit: Annotated[
        float | None, typer.Option("--limit", min=1, help="for --gpu: seconds for all phases; default: 500")
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Measure the job against the bare model on this machine."""
    _refuse_ignored_options(context)
    if gpu:
        from jobs.gpu_benchmark import mode

        result = mode.measure(only=only, tiny=tiny, limit=limit or mode.LIMIT_SECONDS, output=output)
        if not quiet:
            mode.print_result(result)
        return emit(mode.summary_of(result), as_json=as_json, shown=not quiet, ok=result["ok"])
    from jobs.benchmark import modes
    from jobs.benchmark.report import print_result, save
    from jobs.benchmark.setup import DEFAULT_CONTENDERS, Options

    chosen = tuple(contender) if contender else DEFAULT_CONTENDERS
    options = Options(model, corpus, text_column, seconds, repeat, chosen, dtype, batch_tokens, size, quiet)
    if scaling:
        result = modes.scaling(options, actors, units, unit_seconds, cores, moved_bytes, per_process)
    else:
        result = modes.host_ceiling(options) if host_ceiling else modes.measure_contenders(options)
    if not quiet:
        print_result(result)
    if output:
        save(result, output)
    emit(result, as_json=as_json, shown=not quiet)


def _refuse_ignored_options(context: typer.Context) -> None:
    """Refuses an option that the chosen mode of the benchmark would ignore.

    Raises:
        UserError: such an option is given; it names the options of the mode, or the mode that the option is for.
    """
    from pipeline_ops.schema.errors import UserError

    flags = {parameter.name: parameter.opts[0] for parameter in context.command.params}
    given = [name for name in flags if _is_given(context, name)]
    mode = next((name for name in OPTIONS_OF if name in given), "")
    known = OPTIONS_OF[mode] | EVERY_MODE
    for name in given:
        if mode and name not in {mode, *known}:
            options = ", ".join(flag for option, flag in flags.items() if option in known)
            raise UserError(f"{flags[name]}: no effect with {flags[mode]}, whose options are {options}")
        if name not in {mode, *known}:
            owner = next(flags[owner] for owner, options in OPTIONS_OF.items() if name in options)
            raise UserError(f"{flags[name]}: no effect without {owner}; leave it out, or add {owner}")
    if "moved_bytes" in given and "cores" not in given:
        raise UserError("--moved-bytes: no effect without --cores; leave it out, or add --cores")


def _is_given(context: typer.Context, name: str | None) -> bool:
    source = context.get_parameter_source(name or "")
    return source is not None and source.name == "COMMANDLINE"
