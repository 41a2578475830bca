"""Commands on an output: status, show, report, evaluate, compare."""

import os
import sys
import webbrowser
from enum import StrEnum
from functools import partial
from typing import Annotated

import typer

from jobs.cli.options import AsJson, Overrides, Quiet, Target, emit, examples
from jobs.number_format import counted

app = typer.Typer()


@app.command(
    "status",
    epilog=examples(
        "label-corpus status job.yaml",
        "label-corpus status job.yaml --watch",
        "label-corpus status s3://bucket/labeled/   # from any machine",
    ),
)
def status_command(
    target: Target,
    overrides: Overrides = None,
    keep_watching: Annotated[bool, typer.Option("--watch", help="until the run has ended, or Ctrl-C")] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Show the progress of a job and how its last run ended, from its output alone."""
    from jobs.results.open_output import store_of
    from jobs.results.status import status
    from jobs.results.status_view import print_status, watch

    look = partial(status, store_of(target, overrides))
    found = watch(look, quiet=quiet) if keep_watching else look()
    if not quiet:
        print_status(found)
    emit(found, as_json=as_json, shown=not quiet)


Corrections = Annotated[
    list[str] | None,
    typer.Option("--corrections", metavar="FILE", help="reviewed documents: .jsonl, .csv, a folder or glob; repeatable"),
]


class Sort(StrEnum):
    """The order in which documents are shown."""

    input = "input"
    lowest = "lowest"  # score first
    highest = "highest"


@app.command(
    "show",
    epilog=examples(
        "label-corpus show job.yaml --label refund --sort lowest",
        "label-corpus show labeled/ --source batch-7.jsonl --max-score 0.5",
        "label-corpus show labeled/ --rejects",
        "label-corpus show labeled/ -n 1000 --columns id,label | jq .id",
    ),
)
def show_command(
    target: Target,
    overrides: Overrides = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, metavar="N", help="how many, at most")] = 20,
    label: Annotated[str | None, typer.Option("--label", metavar="NAME", help="only documents with this label")] = None,
    min_score: Annotated[float | None, typer.Option("--min-score", metavar="X", help="only scores from X on")] = None,
    max_score: Annotated[float | None, typer.Option("--max-score", metavar="X", help="only scores up to X")] = None,
    source: Annotated[
        str | None, typer.Option("--source", metavar="FILE", help="only documents of this input file; its name is enough")
    ] = None,
    sort: Annotated[Sort, typer.Option("--sort", help="by the input's order, or by score")] = Sort.input,
    model: Annotated[
        str | None, typer.Option("--model", metavar="NAME", help="whose labels and scores, if the output has several models")
    ] = None,
    columns: Annotated[str | None, typer.Option("--columns", metavar="A,B", help="only these columns")] = None,
    rejects: Annotated[bool, typer.Option("--rejects", help="rejected documents, with reasons")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON Lines on a terminal too")] = False,
) -> None:
    """Print documents by label, score or source file.

    On a terminal a table, texts shortened to its width; elsewhere JSON Lines, a document each with all its columns.
    """
    from cluster.session import secret_values
    from jobs.results.documents_table import print_json_lines, print_table, with_source
    from jobs.results.open_output import find_labeled, model_of
    from jobs.results.reading_snippets import shown_columns
    from jobs.results.show import Choice, find_documents, find_rejects, none_found_line
    from pipeline_ops.schema.errors import UserError

    if rejects and (label, min_score, max_score, model, columns, sort) != (None, None, None, None, None, Sort.input):
        raise UserError("--rejects: rejected documents have no labels; of the other options, --source and --limit go with it")
    labeled = find_labeled(target, overrides)
    choice = Choice(limit, label, model, min_score, max_score, source, sort.value)
    wanted = None if columns is None else [name.strip() for name in columns.split(",")]
    as_table = sys.stdout.isatty() and not as_json
    if as_table and not rejects and wanted is None:
        names = labeled.columns
        labels = shown_columns(labeled, None if model is None else model_of(labeled, model)[0])
        wanted = [names.source_file_column, names.source_row_column, *labels]
    documents = find_rejects(labeled, choice) if rejects else find_documents(labeled, choice, wanted)
    none_found = none_found_line(labeled, choice, rejects=rejects)
    if not as_table:
        try:
            if not print_json_lines(documents, secret_values()):
                print(none_found, file=sys.stderr)
            sys.stdout.flush()
        except BrokenPipeError:  # `| head` has read enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    found = list(documents)
    if rejects:
        found = [with_source(one, "source_file", "source_row") for one in found]
    elif columns is None:
        found = [with_source(one, labeled.columns.source_file_column, labeled.columns.source_row_column) for one in found]
    if found:
        source_columns = labeled.record["config"]["input"]
        texts = {"detail", source_columns["text_column"], source_columns["text_pair_column"]}
        shown = list(found[0]) if columns else sorted(found[0], key=texts.__contains__)  # the texts take the width that is left
        print_table(found, shown, texts, secret_values())
    more = f"; there may be more: -n {10 * limit}" if len(found) == limit else ""
    count = counted(len(found), "reject" if rejects else "document")
    print(f"{count}{more}" if found else none_found, file=sys.stderr)


@app.command(
    "report",
    epilog=examples(
        "label-corpus report job.yaml --open",
        "label-corpus report s3://bucket/labeled/",
    ),
)
def report_command(
    target: Target,
    overrides: Overrides = None,
    open_page: Annotated[bool, typer.Option("--open", help="open it in the browser; local outputs only")] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Write an HTML report: labels, scores, documents, speed, files, runs."""
    from jobs.report.publish import make_report
    from jobs.results.open_output import find_labeled
    from jobs.results.reading_snippets import print_snippets
    from pipeline_ops.schema.errors import UserError
    from pipeline_ops.storage.paths import is_local

    labeled = find_labeled(target, overrides)
    if open_page and not is_local(labeled.path):
        raise UserError(
            f"--open: {labeled.path!r} is not a local output; leave the option out and open the page from the bucket"
        )
    path = make_report(labeled, (lambda text: None) if quiet else (lambda text: print(text, file=sys.stderr)))
    if open_page and not webbrowser.open(f"file://{path}"):
        print(f"cannot open a browser here; the page is {path}", file=sys.stderr)
    if sys.stderr.isatty() and not (quiet or as_json):
        print_snippets(labeled)
    documents = sum(commit.documents for commit in labeled.commits)
    emit(
        {"report": path, "documents": documents, "output": labeled.path},
        f"{path}: the report on {counted(documents, 'document')}",
        as_json=as_json,
        quiet=quiet,
    )


@app.command(
    "evaluate",
    epilog=examples(
        "label-corpus evaluate job.yaml --truth label",
        "label-corpus evaluate labeled/ --truth topic --model topics",
        "label-corpus evaluate job.yaml --corrections review.jsonl",
    ),
)
def evaluate_command(
    target: Target,
    overrides: Overrides = None,
    truth: Annotated[
        str | None,
        typer.Option("--truth", metavar="COLUMN", help="input column with the true labels; without: which may be one"),
    ] = None,
    corrections: Corrections = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="NAME", help="which model's labels, if the output has several")
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Compare the labels with true labels: in a column of the input, or those of reviewed documents."""
    from jobs.report.publish import make_report
    from jobs.results.evaluate import evaluate, missing_truth_error, save_evaluation, truncated_summary
    from jobs.results.evaluation_tables import print_evaluation
    from jobs.results.open_output import find_labeled
    from jobs.reviewing.reviewed_accuracy import evaluate_reviewed

    _refuse_two_truths(truth, corrections)
    labeled = find_labeled(target, overrides)
    if corrections:
        result = evaluate_reviewed(labeled, corrections, model)
    elif truth is None:
        raise missing_truth_error(labeled, model, target)
    else:
        result = evaluate(labeled, truth, model, quiet=quiet)
    save_evaluation(result, labeled)
    path = make_report(labeled, lambda text: None)
    if not quiet:
        print_evaluation(result)
    emit({**truncated_summary(result), "report": path}, f"report: {path}", as_json=as_json, quiet=quiet)


@app.command(
    "compare",
    epilog=examples(
        "label-corpus compare old.yaml new.yaml --html changes.html",
        "label-corpus compare old/ new/ --truth category   # which is right more often",
        "label-corpus compare old/ new/ --corrections review.jsonl",
        "label-corpus compare s3://bucket/labeled-v1/ s3://bucket/labeled-v2/",
    ),
)
def compare_command(
    a: Annotated[str, typer.Argument(metavar="A", help="the job file, or the output's folder")],
    b: Annotated[str, typer.Argument(metavar="B", help="another job file or output, over the same input")],
    overrides: Overrides = None,
    truth: Annotated[
        str | None,
        typer.Option("--truth", metavar="COLUMN", help="input column with the true labels, to compare accuracies"),
    ] = None,
    corrections: Corrections = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="NAME", help="which model's labels, if the output has several")
    ] = None,
    model_b: Annotated[
        str | None, typer.Option("--model-b", metavar="NAME", help="which model's labels in B, if its name differs")
    ] = None,
    html: Annotated[str | None, typer.Option("--html", metavar="FILE", help="also write a self-contained HTML page")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="no tables on stderr")] = False,
    as_json: AsJson = False,
) -> None:
    """Compare two outputs over the same input, with each other and with the truth."""
    from jobs.results.compare import compare
    from jobs.results.comparison_tables import print_comparison, progress
    from jobs.results.open_output import find_labeled

    _refuse_two_truths(truth, corrections)
    outputs = [find_labeled(target, overrides) for target in (a, b)]
    with progress(quiet) as on_part:
        result = compare(*outputs, truth=truth, corrections=corrections or (), model=model, model_b=model_b, on_part=on_part)
    if html is not None:
        from jobs.report.comparison import write_page

        write_page(result, html)
    if not quiet:
        print_comparison(result)
    page = [] if html is None else [f"written: {html}"]
    emit(result, *page, as_json=as_json, shown=not quiet)


def _refuse_two_truths(truth: str | None, corrections: list[str] | None) -> None:
    from pipeline_ops.schema.errors import UserError

    if truth is not None and corrections:
        raise UserError("--truth: no effect with --corrections, which hold the true labels; give one of the two")
