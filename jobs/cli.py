"""The `label-corpus` command: gathers the sub-commands; heavy imports wait until one of them runs.

Exit codes: 0 complete, 1 incomplete or failed, 2 a user's mistake, 3 another run holds the lease, 130 interrupted by Ctrl-C,
143 ended by SIGTERM. Logs and progress go to stderr; the last line on stdout is one JSON object.
"""

import json
import os
import signal
import sys
import traceback
from typing import Annotated, Any

import typer

from jobs import stopping
from jobs.stopping import INTERRUPTED, TERMINATED

DEMO_FOLDER = "~/.cache/label-corpus/demo"

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="Label text corpora.")

JobFile = Annotated[str, typer.Argument(metavar="JOB.yaml", help="the job file")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY.SUB=VALUE]...", help="settings that replace the file's")]
Address = Annotated[
    str | None,
    typer.Option("--address", help="the dashboard, http://HEAD:8265; default: RAY_API_SERVER_ADDRESS, then RAY_ADDRESS"),
]
WorkingDir = Annotated[str | None, typer.Option("--working-dir", help="folder that travels, JOB.yaml in it")]
ShipCode = Annotated[bool, typer.Option("--ship-code", help="for clusters that have only the dependencies")]
Image = Annotated[str | None, typer.Option("--image", help="container image in which the nodes run it, by podman")]
RuntimeEnv = Annotated[str | None, typer.Option("--runtime-env", help="YAML with more of Ray's runtime_env")]
Env = Annotated[list[str] | None, typer.Option("--env", metavar="NAME", help="environment variable that travels; repeatable")]
Python = Annotated[str, typer.Option("--python", help="the interpreter on the cluster")]
DriverCPUs = Annotated[
    float | None, typer.Option("--entrypoint-num-cpus", min=0, help="for the driver, which then may leave the head")
]
DriverGPUs = Annotated[float | None, typer.Option("--entrypoint-num-gpus", min=0)]
DriverMemory = Annotated[int | None, typer.Option("--entrypoint-memory", min=0, help="bytes")]
DriverResources = Annotated[str | None, typer.Option("--entrypoint-resources", metavar="JSON", help='such as {"driver": 1}')]
Quiet = Annotated[bool, typer.Option("--quiet", help="no progress on stderr")]


def _emit(result: dict[str, Any], *, ok: bool = True) -> None:
    sys.stderr.flush()
    print(json.dumps(result), flush=True)
    if not ok:
        raise typer.Exit(1)


def _emit_end(result: dict[str, Any]) -> None:
    """Prints what came of a job on a cluster, and ends as it has ended, if it has."""
    _emit(result)
    raise typer.Exit(result.get("exit_code") or 0)


def _load_job(path: str, overrides: list[str] | None) -> Any:
    """The job of a command that loads no model in its own process."""
    from jobs.config import load_job
    from pipeline_ops.models import without_torch

    job = load_job(path, overrides)
    if not any(model.trust_remote_code for model in job.named_models().values()):  # code of the model's may ask for torch
        without_torch()
    return job


@app.command("run")
def run_command(
    job: JobFile,
    overrides: Overrides = None,
    quiet: Quiet = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="take up what earlier runs have set aside")] = False,
) -> None:
    """Label what is not labelled yet."""
    from jobs.label_corpus import run

    summary = run(_load_job(job, overrides), quiet=quiet, retry_failed=retry_failed)
    _emit(summary, ok=not summary["files_incomplete"] and not summary["units_failed"])


@app.command("plan")
def plan_command(job: JobFile, overrides: Overrides = None, quiet: Quiet = False) -> None:
    """Show what a run would do."""
    from jobs.plan import plan, show

    summary = plan(_load_job(job, overrides))
    if not quiet:
        show(summary)
    _emit(summary)


@app.command("verify")
def verify_command(
    job: JobFile,
    overrides: Overrides = None,
    deep: Annotated[bool, typer.Option("--deep", help="read every labelled file: bytes, rows, keys, schemas")] = False,
) -> None:
    """Recount the input against the commits and the files."""
    from jobs.config import load_job
    from jobs.verify import show, verify

    report = verify(load_job(job, overrides), deep=deep)
    show(report)
    _emit(report, ok=report["ok"])


@app.command("sweep")
def sweep_command(job: JobFile, overrides: Overrides = None) -> None:
    """Remove files that no commit names."""
    from jobs.config import load_job
    from jobs.sweep import sweep_output

    _emit(sweep_output(load_job(job, overrides)))


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

    _emit(compact(load_job(job, overrides), target_bytes, quiet=quiet))


@app.command("submit")
def submit_command(
    job: JobFile,
    overrides: Overrides = None,
    address: Address = None,
    follow: Annotated[bool, typer.Option("--follow", help="show the log, and end as the job ends")] = False,
    check: Annotated[bool, typer.Option("--check", help="look for input and model from here first, as plan does")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="take up what earlier runs have set aside")] = False,
    tick: Annotated[str | None, typer.Option("--tick", help="the time this run is for, part of its id; default: now")] = None,
    working_dir: WorkingDir = None,
    ship_code: ShipCode = False,
    image: Image = None,
    runtime_env: RuntimeEnv = None,
    env: Env = None,
    python: Python = "python",
    entrypoint_num_cpus: DriverCPUs = None,
    entrypoint_num_gpus: DriverGPUs = None,
    entrypoint_memory: DriverMemory = None,
    entrypoint_resources: DriverResources = None,
) -> None:
    """Run the job on a Ray cluster."""
    from jobs.submit import SubmitOptions, entrypoint_request, submit

    request = entrypoint_request(entrypoint_num_cpus, entrypoint_num_gpus, entrypoint_memory, entrypoint_resources)
    options = SubmitOptions(address, working_dir, image, runtime_env, tuple(env or ()), python, ship_code, request)
    if check:
        from jobs.plan import prepare

        prepare(_load_job(job, overrides), leased=False)
    flags = ("--retry-failed",) if retry_failed else ()
    _emit_end(submit(job, overrides or [], options, tick=tick, follow_it=follow, run_flags=flags))


@app.command("schedule")
def schedule_command(
    job: JobFile,
    overrides: Overrides = None,
    cron: Annotated[
        str | None,
        typer.Option("--cron", help="minute hour day month weekday, such as '0 2 * * *'; of six, the first is seconds"),
    ] = None,
    timezone: Annotated[str, typer.Option("--timezone", help="of --cron, such as Europe/Berlin")] = "UTC",
    once: Annotated[bool, typer.Option("--once", help="one tick, this minute's; ends as its run ends")] = False,
    list_ticks: Annotated[bool, typer.Option("--list", help="what was done about each tick")] = False,
    check_health: Annotated[bool, typer.Option("--health", help="exit with 0 if a scheduler is alive, else with 1")] = False,
    address: Address = None,
    working_dir: WorkingDir = None,
    ship_code: ShipCode = False,
    image: Image = None,
    runtime_env: RuntimeEnv = None,
    env: Env = None,
    python: Python = "python",
    entrypoint_num_cpus: DriverCPUs = None,
    entrypoint_num_gpus: DriverGPUs = None,
    entrypoint_memory: DriverMemory = None,
    entrypoint_resources: DriverResources = None,
) -> None:
    """Run the job on a Ray cluster at the ticks of a cron."""
    from jobs.history import health, history, show, show_health
    from jobs.packing import SubmitOptions
    from jobs.schedule import run_once, schedule
    from jobs.submit import entrypoint_request
    from pipeline_ops.schema import UserError

    if [cron is not None, once, list_ticks, check_health].count(True) != 1:
        raise UserError("give one of --cron '0 2 * * *', --once, --list and --health")
    if list_ticks:
        told = history(_load_job(job, overrides))
        show(told)
        return _emit(told)
    if check_health:
        told = health(_load_job(job, overrides))
        show_health(told)
        return _emit(told, ok=told["healthy"])
    request = entrypoint_request(entrypoint_num_cpus, entrypoint_num_gpus, entrypoint_memory, entrypoint_resources)
    options = SubmitOptions(address, working_dir, image, runtime_env, tuple(env or ()), python, ship_code, request)
    if cron is None:
        told, code = run_once(job, overrides or [], options)
    else:
        told, code = schedule(job, overrides or [], options, cron, timezone)
    _emit(told)
    raise typer.Exit(code)


@app.command("jobs")
def jobs_command(
    address: Address = None,
    stop: Annotated[str | None, typer.Option("--stop", metavar="ID", help="end this job in an orderly way, and wait")] = None,
    follow: Annotated[
        str | None, typer.Option("--follow", metavar="ID", help="show this job's log, and end as it ends")
    ] = None,
) -> None:
    """Show, stop or follow the jobs of a Ray cluster."""
    from jobs.jobs import follow_job, list_jobs, show, stop_job

    if follow is not None:
        if stop is not None:
            raise typer.BadParameter("give one of --stop and --follow")
        _emit_end(follow_job(address, follow))
        return
    result = list_jobs(address) if stop is None else stop_job(address, stop)
    show(result)
    _emit(result)


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
        _emit(steps)
    else:
        show(steps)


@app.command("train")
def train_command(
    settings: Annotated[str, typer.Argument(metavar="TRAIN.yaml", help="the training file")], overrides: Overrides = None
) -> None:
    """Fine-tune a classifier on a labelled corpus."""
    from jobs.config import load_config
    from jobs.train import TrainConfig, train

    _emit(train(load_config(TrainConfig, settings, overrides or [])))


@app.command("demo")
def demo_command(
    folder: Annotated[str, typer.Option("--folder", help="where the corpus, the model and the labels go")] = DEMO_FOLDER,
    fresh: Annotated[bool, typer.Option("--fresh", help="train the model again")] = False,
) -> None:
    """Train a small classifier and label real text with it, all on this machine."""
    from jobs.demo import demo, show

    result = demo(folder, fresh)
    show(result)
    _emit({key: value for key, value in result.items() if key != "confusion"}, ok=result["verified"])


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
    actors: Annotated[list[int] | None, typer.Option("--actors", min=1, max=16, help="for --scaling; repeatable")] = None,
) -> None:
    """Measure the job against the bare model and its peers."""
    from jobs.benchmark import modes
    from jobs.benchmark.course import CONTENDERS, Options
    from jobs.benchmark.report import save, show

    chosen = tuple(contender) if contender else CONTENDERS
    options = Options(model, corpus, text_column, seconds, repeat, chosen, dtype, batch_tokens, size)
    if scaling:
        result = modes.scaling(options, actors)
    else:
        result = modes.host_ceiling(options) if host_ceiling else modes.compare_contenders(options)
    show(result)
    if output:
        save(result, output)
    _emit(result)


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
            _say("interrupted; run it again to continue")
        if code in (TERMINATED, signal.SIGTERM):  # the latter from Ray's own handler, while it starts
            code = TERMINATED
            _say("ended by SIGTERM; run it again to continue")
    except Exception as error:
        code = _explain(error)
    sys.stdout.flush()
    sys.stderr.flush()
    # Ray's and torch's threads have nothing left to do; waiting for them costs a second
    os._exit(code if isinstance(code, int) else int(code is not None))


def _say(message: str) -> None:
    print(f"label-corpus: {message}", file=sys.stderr, flush=True)


def _explain(error: Exception) -> int:
    """Prints `error`, in one line where it needs no more; returns the exit code."""
    from cluster.submission import ClusterError
    from pipeline_ops.lease import LeaseError
    from pipeline_ops.schema import UserError
    from pipeline_ops.store_errors import is_store_failure

    if isinstance(error, UserError | LeaseError):
        _say(str(error))
        return 2 if isinstance(error, UserError) else 3
    if isinstance(error, stopping.LeftRunning | ClusterError):
        _say(str(error))
        return error.code if isinstance(error, stopping.LeftRunning) else 1
    if not is_store_failure(error):
        traceback.print_exception(error)
    _say(f"failed: {' '.join(str(error).split()) or type(error).__name__}; run it again to continue")
    return 1


if __name__ == "__main__":
    main()
