"""The `label-corpus` command: registers the sub-commands, each of which does its heavy imports when it runs.

Exit codes: 0 complete, 1 incomplete or failed, 2 a user's mistake, 3 another run holds the lease, 130 interrupted by Ctrl-C,
143 ended by SIGTERM. Logs and progress go to stderr; the last line on stdout is one JSON object.
"""

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated, NoReturn

import typer

from jobs.cli import clusters, job, labels, maintenance, models, publishing, reviewing, start
from jobs.cli.options import Command, examples
from jobs.console import signals
from jobs.console.signals import INTERRUPTED, TERMINATED

# panels of --help, in this order
PANELS = (
    ("Start here", start.app),
    ("The job", job.app),
    ("The labels", labels.app),
    ("The labels", publishing.app),
    ("The labels", reviewing.app),
    ("Models", models.app),
    ("Clusters", clusters.app),
    ("Housekeeping", maintenance.app),
)

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    epilog=examples(
        "label-corpus init reviews/     # profiles the corpus and writes job.yaml",
        "label-corpus plan job.yaml",
        "label-corpus run job.yaml",
        "label-corpus run --help        # each command has examples",
    ),
)
for panel, commands in PANELS:
    for command in commands.registered_commands:
        command.rich_help_panel = panel
        command.cls = Command
    app.add_typer(commands)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"label-corpus {version('label-corpus')}")
        raise typer.Exit


@app.callback()
def options(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="print the version, and exit")
    ] = False,
) -> None:
    """Put a label on every document of a text corpus."""


def main() -> NoReturn:
    """Run the command line as this process: its settings, its signals and its end are the command's."""
    from cluster.session import quiet_environment

    quiet_environment()
    signals.install()
    code = execute(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # skip the shutdown of Ray's and torch's threads, which takes a second
    os._exit(code)


def execute(arguments: Sequence[str]) -> int:
    """Run one command in this process and print what it prints; what it raises becomes a line on stderr.

    Signal handlers, and a connection to Ray that exists, stay as they are.

    Args:
        arguments: the words behind `label-corpus`.

    Returns:
        The exit code, see the module.
    """
    try:
        app(list(arguments), prog_name="label-corpus")
    except SystemExit as stop:
        if stop.code == INTERRUPTED:  # raised by typer on Ctrl-C
            _say("interrupted; run it again to continue", INTERRUPTED)
        if stop.code in (TERMINATED, signal.SIGTERM):  # SIGTERM: from Ray's handler, while Ray starts
            _say("ended by SIGTERM; run it again to continue", TERMINATED)
            return TERMINATED
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except Exception as error:
        return _explain(error)
    return 0


def _say(message: str, code: int, error: Exception | None = None) -> None:
    """Print why the command ends with that exit code; an `error` with its traceback."""
    from jobs.console import json_logging

    if json_logging.is_json():
        json_logging.log_error(message, code, error)
        return
    if error is not None:
        traceback.print_exception(error)
    print(f"label-corpus: {message}", file=sys.stderr, flush=True)


def _explain(error: Exception) -> int:
    """Print `error`, expected ones in one line; returns the exit code."""
    from cluster.jobs_api import ClusterError
    from pipeline_ops.output.lease import LeaseError
    from pipeline_ops.schema.errors import ReplacedError, UserError, is_store_fault

    if isinstance(error, UserError | LeaseError):
        code = 2 if isinstance(error, UserError) else 3
        _say(str(error), code)
        return code
    if isinstance(error, signals.Interrupted | ClusterError):
        code = error.code if isinstance(error, signals.Interrupted) else 1
        _say(str(error), code)
        return code
    what = " ".join(str(error).split()) or type(error).__name__
    expected = is_store_fault(error) or isinstance(error, ReplacedError)
    _say(f"failed: {what}; run it again to continue", 1, None if expected else error)
    return 1
