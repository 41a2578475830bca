"""The `label-corpus` command: gathers the sub-commands; heavy imports wait until one of them runs.

Exit codes: 0 complete, 1 incomplete or failed, 2 a user's mistake, 3 another run holds the lease, 130 interrupted by Ctrl-C,
143 ended by SIGTERM. Logs and progress go to stderr; the last line on stdout is one JSON object.
"""

import os
import signal
import sys
import traceback
from typing import Annotated, Any

import typer

from jobs import cluster_commands, stopping
from jobs.arguments import JobFile, LogFormat, LogFormatOption, Overrides, Quiet, emit, load_light_job
from jobs.stopping import INTERRUPTED, TERMINATED

DEMO_FOLDER = "~/.cache/label-corpus/demo"

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="Label text corpora.")
app.add_typer(cluster_commands.app)


@app.command("run")
def run_command(
    job: JobFile,
    overrides: Overrides = None,
    quiet: Quiet = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="take up what earlier runs have set aside")] = False,
    log_format: LogFormatOption = LogFormat.text,
) -> None:
    """Label what is not labelled yet."""
    if log_format is LogFormat.json:
        from jobs.logs import to_json

        to_json()
    from jobs.label_corpus import run

    as_json = log_format is LogFormat.json
    try:
        summary = run(load_light_job(job, overrides), quiet=quiet, retry_failed=retry_failed, as_json=as_json)
    except KeyboardInterrupt:
        if as_json:  # typer would say so in a line that is no JSON
            raise SystemExit(INTERRUPTED) from None
        raise
    emit(summary, ok=not summary["files_incomplete"] and not summary["units_failed"])


@app.command("plan")
def plan_command(
    job: JobFile,
    overrides: Overrides = None,
    quiet: Quiet = False,
    cluster: Annotated[
        str | None, typer.Option("--cluster", metavar="NxGPU", help="what it would take there: 64xH100, 16xCPU (cores)")
    ] = None,
    rate: Annotated[
        float | None, typer.Option("--rate", help="for --cluster: tokens/s of one GPU, as `benchmark` or a run has measured")
    ] = None,
    price: Annotated[float | None, typer.Option("--price", help="for --cluster: of one GPU for an hour")] = None,
) -> None:
    """Show what a run would do; with --cluster what it would take."""
    from jobs.estimate import plan_on, show_estimate, target_of
    from jobs.plan import plan, show

    target = target_of(cluster, rate, price)
    loaded = load_light_job(job, overrides)
    summary = plan(loaded) if target is None else plan_on(loaded, target)
    if not quiet:
        show(summary)
        if target is not None:
            show_estimate(summary["estimate"])
    emit(summary)


@app.command("verify")
def verify_command(
    job: JobFile,
    overrides: Overrides = None,
    deep: Annotated[bool, typer.Option("--deep", help="read every labelled file: bytes, rows, keys, schemas")] = False,
    quiet: Quiet = False,
) -> None:
    """Recount the input against the commits and the files."""
    from jobs.config import load_job
    from jobs.verify import show, verify

    report = verify(load_job(job, overrides), deep=deep, quiet=quiet)
    show(report)
    emit(report, ok=report["ok"])


@app.command("sweep")
def sweep_command(job: JobFile, overrides: Overrides = None) -> None:
    """Remove files that no commit names."""
    from jobs.config import load_job
    from jobs.sweep import sweep_output

    emit(sweep_output(load_job(job, overrides)))


@app.command("compact")
def compact_command(
    job: JobFile,
    overrides: Overrides = None,
    target_bytes: Annotated[int, typer.Option("--target-bytes", min=1, help="size that merged files come near")] = 256 * 2**20,
    quiet: Quiet = False,
) -> None:
    """Merge small labelled files of a partition."""
    from jobs.compact import compact
    from jobs.config import load_job

    emit(compact(load_job(job, overrides), target_bytes, quiet=quiet))


@app.command("inspect")
def inspect_command(
    text: Annotated[str, typer.Argument(help="the text")],
    model: Annotated[str, typer.Option("--model", help="hub id, local folder, or folder on object storage")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY.SUB=VALUE]...", help="e.g. model.max_length=128")
    ] = None,
    pair: Annotated[str | None, typer.Option("--pair", help="the second text, for models that read two")] = None,
    attention: Annotated[bool, typer.Option("--attention", help="shade the text by how much the head looks at it")] = False,
    plot: Annotated[str | None, typer.Option("--plot", help="draw the attention into this .png or .svg")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object instead of tables")] = False,
) -> None:
    """Show each step for one text: tokens, ids, mask, logits, scores, label."""
    from jobs.attention import check_picture
    from jobs.config import check_config, override
    from jobs.inspect import InspectConfig, inspect_text, plot_attention, show

    settings: dict[str, Any] = {"model": {"path": model}}
    for setting in overrides or []:
        override(settings, setting)
    config = check_config(InspectConfig, settings)
    if plot is not None:
        check_picture(plot)
    steps = inspect_text(text, config, pair=pair, attention=attention or plot is not None)
    if plot is not None:
        plot_attention(steps, plot)
    if as_json:
        emit(steps)
    else:
        show(steps)


@app.command("train")
def train_command(
    settings: Annotated[str, typer.Argument(metavar="TRAIN.yaml", help="the training file")],
    overrides: Overrides = None,
    quiet: Quiet = False,
) -> None:
    """Fine-tune a classifier on a labelled corpus."""
    from jobs.config import load_config
    from jobs.train import TrainConfig, train

    emit(train(load_config(TrainConfig, settings, overrides or []), quiet=quiet))


@app.command("demo")
def demo_command(
    folder: Annotated[str, typer.Option("--folder", help="where the corpus, the model and the labels go")] = DEMO_FOLDER,
    fresh: Annotated[bool, typer.Option("--fresh", help="train the model again")] = False,
) -> None:
    """Train a small classifier and label real text with it, all on this machine."""
    from jobs.demo import demo, show

    result = demo(folder, fresh)
    show(result)
    emit({key: value for key, value in result.items() if key != "confusion"}, ok=result["verified"])


@app.command("benchmark")
def benchmark_command(
    model: Annotated[
        str | None, typer.Option("--model", help="local folder; default: a BERT of 22M parameters, made here")
    ] = None,
    corpus: Annotated[str | None, typer.Option("--corpus", help="local Parquet or JSON Lines; default: made here")] = None,
    text_column: Annotated[str, typer.Option("--text-column", help="of --corpus")] = "text",
    seconds: Annotated[float, typer.Option("--seconds", min=1, help="that the bare model takes for the corpus made here")] = 60,
    repeat: Annotated[int, typer.Option("--repeat", min=1, help="rounds")] = 3,
    contender: Annotated[
        list[str] | None, typer.Option("--contender", help="limit, job, job-s3, pipeline[-best], ray-data[-best]; repeatable")
    ] = None,
    dtype: Annotated[str, typer.Option("--dtype", help="of the job and the bare model")] = "auto",
    batch_tokens: Annotated[int | None, typer.Option("--batch-tokens", min=1, help="as compute.batch_tokens")] = None,
    size: Annotated[str, typer.Option("--size", help="full, or tiny: everything in seconds, to try the command")] = "full",
    output: Annotated[str | None, typer.Option("--output", help="folder for benchmark.json and benchmark.png")] = None,
    host_ceiling: Annotated[bool, typer.Option("--host-ceiling", help="what all but the model allows")] = False,
    scaling: Annotated[
        bool, typer.Option("--scaling", help="how many GPUs one job can feed, with classifiers that sleep")
    ] = False,
    actors: Annotated[list[int] | None, typer.Option("--actors", min=1, max=1024, help="for --scaling; repeatable")] = None,
    units: Annotated[int | None, typer.Option("--units", min=1, help="for --scaling; default: 16 per actor")] = None,
    unit_seconds: Annotated[
        float | None, typer.Option("--unit-seconds", min=0.01, help="for --scaling: for which a classifier sleeps per unit")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Measure the job against the bare model and its peers."""
    from jobs.benchmark import modes
    from jobs.benchmark.course import CONTENDERS, Options
    from jobs.benchmark.report import save, show

    chosen = tuple(contender) if contender else CONTENDERS
    options = Options(model, corpus, text_column, seconds, repeat, chosen, dtype, batch_tokens, size, quiet)
    if scaling:
        result = modes.scaling(options, actors, units, unit_seconds)
    else:
        result = modes.host_ceiling(options) if host_ceiling else modes.compare_contenders(options)
    if not quiet:
        show(result)
    if output:
        save(result, output)
    emit(result)


def main(*command: str) -> None:
    """Runs the command line, behind `command`, and turns what it raises into a line on stderr and an exit code."""
    from cluster.session import quiet_environment

    quiet_environment()
    stopping.install()
    code: Any
    try:
        app([*command, *sys.argv[1:]], prog_name="label-corpus")
        code = 0
    except SystemExit as stop:
        code = stop.code
        if code == INTERRUPTED:  # typer's own answer to Ctrl-C
            _say("interrupted; run it again to continue", code)
        if code in (TERMINATED, signal.SIGTERM):  # the latter from Ray's own handler, while it starts
            code = TERMINATED
            _say("ended by SIGTERM; run it again to continue", code)
    except Exception as error:
        code = _explain(error)
    sys.stdout.flush()
    sys.stderr.flush()
    # Ray's and torch's threads have nothing left to do; waiting for them costs a second
    os._exit(code if isinstance(code, int) else int(code is not None))


def _say(message: str, code: int, error: Exception | None = None) -> None:
    """Why the command ends with that exit code; `error` with its traceback."""
    from jobs import logs

    if logs.is_json():
        logs.say_error(message, code, error)
        return
    if error is not None:
        traceback.print_exception(error)
    print(f"label-corpus: {message}", file=sys.stderr, flush=True)


def _explain(error: Exception) -> int:
    """Prints `error`, in one line where it needs no more; returns the exit code."""
    from cluster.submission import ClusterError
    from pipeline_ops.lease import LeaseError
    from pipeline_ops.schema import UserError
    from pipeline_ops.store_errors import is_store_failure

    if isinstance(error, UserError | LeaseError):
        code = 2 if isinstance(error, UserError) else 3
        _say(str(error), code)
        return code
    if isinstance(error, stopping.LeftRunning | ClusterError):
        code = error.code if isinstance(error, stopping.LeftRunning) else 1
        _say(str(error), code)
        return code
    what = " ".join(str(error).split()) or type(error).__name__
    _say(f"failed: {what}; run it again to continue", 1, None if is_store_failure(error) else error)
    return 1


if __name__ == "__main__":
    main()
