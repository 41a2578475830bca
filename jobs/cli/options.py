"""What sub-commands share: their arguments and options, and how they print their last line."""

import json
import sys
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

SETTING = "KEY.SUB=VALUE"
JOB_FILE = "JOB.yaml"
JobFile = Annotated[str, typer.Argument(metavar=JOB_FILE, help="the job file")]
Target = Annotated[str, typer.Argument(metavar="JOB.yaml|OUTPUT", help="the job file, or the output's folder")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar=SETTING, help="settings that replace the file's")]
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
Entrypoint = Annotated[
    str | None,
    typer.Option("--entrypoint", metavar="FILE.yaml", help="what the driver needs: num_cpus, num_gpus, memory, resources"),
]
AsJson = Annotated[bool, typer.Option("--json", help="print the JSON line on a terminal as well")]
Quiet = Annotated[bool, typer.Option("--quiet", help="no progress on stderr")]


class Command(TyperCommand):
    """A command whose answer to an unknown option names what may be meant: a setting, or the commands that have the option."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # pyright: ignore[reportIncompatibleMethodOverride]
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            if hasattr(error, "possibilities"):  # NoSuchOption, which typer does not export
                self._add_hint(error, getattr(ctx.find_root().command, "commands", {}))
            raise

    def _add_hint(self, error: Any, commands: Mapping[str, Any]) -> None:
        """Adds to the error the setting of this name, else the commands with this option, else a setting that resembles it.

        An option of this command's that resembles it comes before such a setting; --help is on typer's line above.
        """
        option = error.option_name
        error.possibilities = [name for name in error.possibilities or [] if name != "--help"]
        others = [name for name, command in commands.items() if any(option in one.opts for one in command.params)]
        setting = self._setting_like(option, exactly=bool(others or error.possibilities))
        if setting is not None:
            error.message += f"; write {setting}=VALUE"
        elif others:
            error.message += f"; it is an option of {', '.join(others)}"
        if setting is not None or others:
            error.possibilities = None

    def _setting_like(self, option: str, *, exactly: bool) -> str | None:
        """The setting that may be meant, of those that change what this command does; None if there is none."""
        metavars = {parameter.metavar for parameter in self.params}
        if SETTING not in metavars:
            return None
        from jobs.config import JobConfig, setting_like
        from jobs.results.open_output import FolderConfig
        from jobs.start.inspect import InspectConfig
        from jobs.start.train import TrainConfig

        kinds = {"train": TrainConfig, "inspect": InspectConfig, "init": JobConfig}
        kind = JobConfig if JOB_FILE in metavars else FolderConfig  # labels that exist are what their job has made them
        return setting_like(kinds.get(self.name or "", kind), option, exactly=exactly)


class LogFormat(StrEnum):
    """What a run's lines on stderr are."""

    text = "text"  # for people
    json = "json"  # an object each


LogFormatOption = Annotated[LogFormat, typer.Option("--log-format", help="of a run's lines on stderr")]


def examples(*lines: str) -> str:
    """The epilog of a command's --help; lines of at most 76 characters stay whole on a terminal of 80."""
    return "\n".join(["Examples:", *lines]).replace("[", r"\[")  # which is rich's markup


def emit(
    result: dict[str, Any], *lines: str, as_json: bool = False, shown: bool = False, quiet: bool = False, ok: bool = True
) -> None:
    """Ends a command: with one JSON object on stdout, or on a terminal with what a person reads.

    Args:
        lines: for a person, three at the most; if stdout is no terminal they go to stderr, if that is one.
        as_json: the option --json.
        shown: the result has been shown on stderr already.
        quiet: nothing for a person beside the JSON object.
        ok: else it ends with exit code 1.
    """
    sys.stderr.flush()
    seen_on_stderr = sys.stderr.isatty()
    if sys.stdout.isatty() and not as_json and (lines or (shown and seen_on_stderr)):
        for line in lines:
            print(line, flush=True)
    else:
        if seen_on_stderr and not as_json and not quiet:
            for line in lines:
                print(line, file=sys.stderr, flush=True)
        print(json.dumps(result), flush=True)
    if not ok:
        raise typer.Exit(1)


def emit_end(result: dict[str, Any], *, as_json: bool) -> None:
    """Prints the result of a job on a cluster, and exits with its code if it has ended."""
    emit(result, f"{result['submission_id']} at {result['address']}: {result['status']}", as_json=as_json)
    raise typer.Exit(result.get("exit_code") or 0)


def load_light_job(path: str, overrides: list[str] | None) -> Any:
    """The job of a command that loads no model in its own process."""
    from jobs.config import load_job
    from pipeline_ops.models.resolve import block_torch_import

    job = load_job(path, overrides)
    if not any(model.trust_remote_code for model in job.named_models().values()):  # code of the model's may ask for torch
        block_torch_import()
    return job
