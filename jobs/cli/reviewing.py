"""The command `review`: documents for a person to correct."""

from typing import Annotated

import typer

from jobs.cli.options import AsJson, Overrides, Quiet, Target, emit, examples
from jobs.number_format import counted

app = typer.Typer()
DISAGREEMENTS = 200  # unless --limit says how many
SHOWN_STRATA = 4


@app.command(
    "review",
    epilog=examples(
        "label-corpus review job.yaml --uncertain 100 --random 100",
        "label-corpus review labeled/ --per-label 20 --output check.html",
        "label-corpus review labeled/ --label refund --random 50",
        "label-corpus review new/ --disagreements old/ --limit 100",
    ),
)
def review_command(
    target: Target,
    overrides: Overrides = None,
    uncertain: Annotated[
        int | None, typer.Option("--uncertain", min=1, metavar="N", help="the N that the model is least sure of")
    ] = None,
    disagreements: Annotated[
        str | None,
        typer.Option("--disagreements", metavar="B", help="random ones with another label in output B, a job file or folder"),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", "-n", min=1, metavar="N", help=f"disagreements, at most; {DISAGREEMENTS} unless given"),
    ] = None,
    random: Annotated[int | None, typer.Option("--random", min=1, metavar="N", help="N random ones of all others")] = None,
    per_label: Annotated[
        int | None, typer.Option("--per-label", min=1, metavar="N", help="in place of --random: N random ones of each label")
    ] = None,
    label: Annotated[str | None, typer.Option("--label", metavar="NAME", help="only documents with this label")] = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="NAME", help="which model's labels, if the output has several")
    ] = None,
    model_b: Annotated[
        str | None, typer.Option("--model-b", metavar="NAME", help="which model's labels in B, if its name differs")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="of the random choice")] = 0,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FILE.html", help="the page; default: review-OUTPUT.html, here"),
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Write a page, and a CSV file, to confirm or correct the labels of some documents.

    The page needs no server: open it in a browser, and export the result as JSON Lines.
    """
    from jobs.results.open_output import find_labeled
    from jobs.reviewing.review import review
    from jobs.reviewing.sampling import Request
    from pipeline_ops.schema.errors import UserError

    if not (uncertain or disagreements or random or per_label):
        raise UserError(
            "review: which documents? Give --random N, --per-label N, --uncertain N or --disagreements B; they can be combined"
        )
    if per_label and (random or label is not None):
        other = "--random" if random else "--label"
        raise UserError(f"--per-label: does not go with {other}: it takes {per_label} of each label; leave one of the two out")
    if disagreements is None and (limit is not None or model_b is not None):
        option = "--model-b" if model_b is not None else "--limit"
        raise UserError(f"{option}: applies to --disagreements B, which is missing")
    of_other = (limit or DISAGREEMENTS) if disagreements else 0
    request = Request(uncertain or 0, of_other, random or 0, per_label or 0, label, seed)
    other = None if disagreements is None else find_labeled(disagreements, overrides)
    found = review(find_labeled(target, overrides), request, output, model=model, other=other, model_b=model_b, quiet=quiet)
    strata = [f"{one['sampled']:,} of {one['documents']:,} {name}" for name, one in found["strata"].items()]
    more = [f"and {len(strata) - SHOWN_STRATA} more"] if len(strata) > SHOWN_STRATA else []
    emit(
        found,
        f"{found['page']}: {counted(found['sampled'], 'document')} to review: {', '.join(strata[:SHOWN_STRATA] + more)}",
        f"{found['spreadsheet']}: the same for a spreadsheet; fill in its column `corrected`",
        as_json=as_json,
        quiet=quiet,
    )
