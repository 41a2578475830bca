"""The sub-commands about what a job has labelled: evaluate."""

from typing import Annotated

import typer

from jobs.arguments import Overrides, Quiet, emit

Target = Annotated[str, typer.Argument(metavar="JOB.yaml|OUTPUT", help="the job file, or the output's folder")]

app = typer.Typer()


@app.command("evaluate")
def evaluate_command(
    target: Target,
    truth: Annotated[str, typer.Option("--truth", metavar="COLUMN", help="the input's column that says what is right")],
    overrides: Overrides = None,
    model: Annotated[str | None, typer.Option("--model", metavar="NAME", help="whose labels, where there are several")] = None,
    quiet: Quiet = False,
) -> None:
    """Compare the labels with a column that says what is right."""
    from jobs.evaluate import evaluate, keep, line_of
    from jobs.evaluation_tables import show
    from jobs.outputs import find_labelled

    labelled = find_labelled(target, overrides)
    result = evaluate(labelled, truth, model, quiet=quiet)
    keep(result, labelled)
    if not quiet:
        show(result)
    emit(line_of(result))
