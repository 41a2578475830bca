"""The sub-commands that send jobs to a Ray cluster: submit, schedule, jobs."""

from typing import Annotated

import typer

from jobs.cli.options import (
    Address,
    AsJson,
    Entrypoint,
    Env,
    Image,
    JobFile,
    LogFormat,
    LogFormatOption,
    Overrides,
    Python,
    RuntimeEnv,
    ShipCode,
    WorkingDir,
    emit,
    emit_end,
    examples,
    load_light_job,
)

app = typer.Typer()


@app.command(
    "submit",
    epilog=examples(
        "label-corpus submit job.yaml --address http://HEAD:8265 --follow",
        "label-corpus submit job.yaml --working-dir . --env HF_TOKEN",
    ),
)
def submit_command(
    job: JobFile,
    overrides: Overrides = None,
    address: Address = None,
    follow: Annotated[bool, typer.Option("--follow", help="show the log, and end as the job ends")] = False,
    check: Annotated[bool, typer.Option("--check", help="check input and model from here first, as plan does")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="take up what earlier runs have quarantined")] = False,
    log_format: LogFormatOption = LogFormat.text,
    tick: Annotated[str | None, typer.Option("--tick", help="the time this run is for, part of its id; default: now")] = None,
    working_dir: WorkingDir = None,
    ship_code: ShipCode = False,
    image: Image = None,
    runtime_env: RuntimeEnv = None,
    env: Env = None,
    python: Python = "python",
    entrypoint: Entrypoint = None,
    as_json: AsJson = False,
) -> None:
    """Run the job on a Ray cluster."""
    from jobs.remote.runtime_env import SubmitOptions, entrypoint_request
    from jobs.remote.submit import submit

    request = entrypoint_request(entrypoint)
    flags = (*(("--retry-failed",) if retry_failed else ()), *_log_flags(log_format))
    options = SubmitOptions(address, working_dir, image, runtime_env, tuple(env or ()), python, ship_code, request, flags)
    if check:
        from jobs.run.prepare import prepare

        prepare(load_light_job(job, overrides), leased=False)
    emit_end(submit(job, overrides or [], options, tick=tick, follow_it=follow), as_json=as_json)


@app.command(
    "schedule",
    epilog=examples(
        "label-corpus schedule job.yaml --cron '0 2 * * *' --timezone Europe/Berlin",
        "label-corpus schedule job.yaml --list",
        "label-corpus schedule job.yaml --cron '0 2 * * *' --kubernetes --image IMAGE",
    ),
)
def schedule_command(
    job: JobFile,
    overrides: Overrides = None,
    cron: Annotated[
        str | None,
        typer.Option("--cron", help="minute hour day month weekday, such as '0 2 * * *'; of six, the first is seconds"),
    ] = None,
    timezone: Annotated[str, typer.Option("--timezone", help="of --cron, such as Europe/Berlin")] = "UTC",
    once: Annotated[bool, typer.Option("--once", help="one tick, this minute's; ends as its run ends")] = False,
    list_ticks: Annotated[bool, typer.Option("--list", help="the newest ticks and their runs")] = False,
    check_health: Annotated[bool, typer.Option("--health", help="exit with 0 if a scheduler is alive, else with 1")] = False,
    log_format: LogFormatOption = LogFormat.text,
    kubernetes: Annotated[
        bool, typer.Option("--kubernetes", help="print a CronJob for this --cron in place of running; needs --image")
    ] = False,
    name: Annotated[str | None, typer.Option("--name", help="--kubernetes: of the schedule; default: from JOB.yaml")] = None,
    namespace: Annotated[str, typer.Option("--namespace", help="--kubernetes")] = "default",
    kubectl_image: Annotated[
        str | None, typer.Option("--kubectl-image", help="--kubernetes: with kubectl, sh, sed and awk, and its tag")
    ] = None,
    rayjob: Annotated[
        str | None,
        typer.Option("--rayjob", metavar="FILE", help="--kubernetes: your copy of manifests/rayjob.yaml"),
    ] = None,
    address: Address = None,
    working_dir: WorkingDir = None,
    ship_code: ShipCode = False,
    image: Image = None,
    runtime_env: RuntimeEnv = None,
    env: Env = None,
    python: Python = "python",
    entrypoint: Entrypoint = None,
    as_json: AsJson = False,
) -> None:
    """Run the job on a Ray cluster at the ticks of a cron.

    With --kubernetes nothing is submitted: the last lines on stdout are manifests, for `kubectl apply -f -`.
    """
    from jobs.remote.runtime_env import SubmitOptions, entrypoint_request
    from jobs.remote.schedule import run_once, schedule
    from jobs.remote.schedule_status import health, history, print_health, print_history
    from pipeline_ops.schema.errors import UserError

    if [cron is not None, once, list_ticks, check_health].count(True) != 1:
        raise UserError("give one of --cron '0 2 * * *', --once, --list and --health")
    if list_ticks:
        found = history(load_light_job(job, overrides))
        print_history(found)
        return emit(found, as_json=as_json, shown=True)
    if check_health:
        found = health(load_light_job(job, overrides))
        print_health(found)
        return emit(found, as_json=as_json, shown=True, ok=found["healthy"])
    if kubernetes:
        if cron is None or image is None:
            raise UserError("--kubernetes: needs --cron and --image, the image made from cluster/Dockerfile with its tag")
        from cluster.manifests import KUBECTL_IMAGE
        from jobs.remote.kubernetes import kubernetes_manifests

        places = {"name": name, "namespace": namespace, "kubectl_image": kubectl_image or KUBECTL_IMAGE, "rayjob_file": rayjob}
        print(kubernetes_manifests(job, overrides, cron, timezone, image, **places), end="")
        return
    if name or kubectl_image or rayjob or namespace != "default":
        raise UserError("--name, --namespace, --kubectl-image and --rayjob are for --kubernetes")
    request = entrypoint_request(entrypoint)
    options = SubmitOptions(
        address, working_dir, image, runtime_env, tuple(env or ()), python, ship_code, request, _log_flags(log_format)
    )
    if cron is None:
        result, code = run_once(job, overrides or [], options)
    else:
        result, code = schedule(job, overrides or [], options, cron, timezone)
    emit(result, as_json=as_json, shown=True)
    raise typer.Exit(code)


@app.command(
    "jobs",
    epilog=examples(
        "label-corpus jobs --address http://HEAD:8265",
        "label-corpus jobs --follow ID",
        "label-corpus jobs --stop ID",
    ),
)
def jobs_command(
    address: Address = None,
    stop: Annotated[str | None, typer.Option("--stop", metavar="ID", help="stop this job by SIGTERM, and wait")] = None,
    follow: Annotated[
        str | None, typer.Option("--follow", metavar="ID", help="show this job's log, and end as it ends")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show, stop or follow the jobs of a Ray cluster."""
    from jobs.remote.submissions import follow_job, list_jobs, print_jobs, stop_job

    if follow is not None:
        if stop is not None:
            raise typer.BadParameter("give one of --stop and --follow")
        emit_end(follow_job(address, follow), as_json=as_json)
        return
    result = list_jobs(address) if stop is None else stop_job(address, stop)
    print_jobs(result)
    emit(result, as_json=as_json, shown=True)


def _log_flags(log_format: LogFormat) -> tuple[str, ...]:
    """For the run, where it is not the default."""
    return () if log_format is LogFormat.text else ("--log-format", log_format.value)
