"""`label-corpus review`: draw the sample, and write it as a page and a spreadsheet."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.session import secret_values
from jobs.console.step_progress import Steps
from jobs.number_format import counted
from jobs.results.open_output import model_of
from jobs.results.show import check_label
from jobs.reviewing.documents import check_reviewable, read_sample
from jobs.reviewing.page import page_of
from jobs.reviewing.rows import LabeledRows
from jobs.reviewing.sampling import Request, draw_sample
from jobs.reviewing.spreadsheet import sheet_of
from jobs.reviewing.uncertainty import certainty_of
from pipeline_ops.analysis.aligned_rows import Side
from pipeline_ops.output.labeled_output import Labeled
from pipeline_ops.schema.errors import UserError

MAX_DOCUMENTS = 10_000  # of a page
PAGE_SUFFIX = ".html"


@dataclass(frozen=True)
class Files:
    """The local files that a review writes."""

    page: str
    sheet: str

    @staticmethod
    def at(path: str | None, labeled: Labeled) -> "Files":
        """The page at `path`, or else named after the output's folder, in the working folder, and the spreadsheet beside it.

        Raises:
            UserError: the name is no page's, its folder does not exist, or one of the files is there: it may be filled in.
        """
        if path is None:
            path = f"review-{labeled.path.rstrip('/').rsplit('/', 1)[-1]}{PAGE_SUFFIX}"
        if not path.endswith(PAGE_SUFFIX):
            raise UserError(f"--output: invalid value {path!r}; expected a file name that ends in {PAGE_SUFFIX}")
        files = Files(path, path.removesuffix(PAGE_SUFFIX) + ".csv")
        folder = os.path.dirname(path) or "."
        if not os.path.isdir(folder):
            raise UserError(f"--output: there is no folder {folder!r}; give a file in an existing one")
        for file in (files.sheet, files.page):
            if os.path.lexists(file):
                raise UserError(f"--output: {file!r} exists, and may hold corrections; give another name, or delete it")
        return files


def review(
    labeled: Labeled,
    request: Request,
    output: str | None = None,
    *,
    model: str | None = None,
    other: Labeled | None = None,
    model_b: str | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Draw a sample of an output's documents and write it for review.

    Args:
        output: the page's path; None: as Files.at.
        model: which model's labels, if the output has several.
        other: the output whose labels differ in `request.disagreements`.
        model_b: which model's labels of `other`; None: the same name.

    Returns:
        page, spreadsheet, sample (its id), sampled (number of documents to review), documents (of the output), strata, and of
        `uncertain` the measure.

    Raises:
        UserError: nothing, or nothing sensible, is asked for; there is no such model or label; no document matches; the files
            are there already.
        OSError: a labeled file cannot be read.
    """
    files = Files.at(output, labeled)
    side = Side(labeled, model_of(labeled, model)[0])
    check_reviewable(side)
    if request.label is not None:
        check_label(labeled, side.model, request.label)
    certainty = certainty_of(side.head, side.columns) if request.uncertain else None
    rows = LabeledRows(side, request.seed, request.label, certainty, None if other is None else _side_of(other, model, model_b))
    with Steps("review", quiet=quiet) as steps:
        steps.begin("reading the labels", len(rows.files), item="file")
        strata = draw_sample(rows.batches(lambda file: steps.add()), rows.names, request)
        if other is not None and not rows.compared:
            raise UserError(
                f"--disagreements: {other.path!r} has labeled none of these documents; give an output of the same input"
            )
        if not strata:
            raise UserError(_none_found(labeled, request))
        count = sum(stratum.sampled for stratum in strata)
        if count > MAX_DOCUMENTS:
            raise UserError(f"{count:,} documents are too many for a page, which holds {MAX_DOCUMENTS:,}; ask for fewer")
        steps.begin(f"reading {counted(count, 'document')}")
        sample = read_sample(side, rows, strata, request.seed, secret_values())
    name = os.path.basename(files.page).removesuffix(PAGE_SUFFIX)
    _write(files.page, page_of(sample, name))
    _write(files.sheet, sheet_of(sample))
    return {
        "page": files.page,
        "spreadsheet": files.sheet,
        "sample": sample.id,
        "sampled": count,
        "documents": sample.documents,
        "strata": {stratum.name: {"documents": stratum.documents, "sampled": stratum.sampled} for stratum in strata},
        **({} if certainty is None else {"uncertain_by": certainty.name}),
        **({} if other is None else {"compared": rows.compared}),
        "output": labeled.path,
    }


def _side_of(other: Labeled, model: str | None, model_b: str | None) -> Side:
    asked = model if model_b is None else model_b
    return Side(other, "" if "" in other.columns.by_model() else model_of(other, asked)[0])


def _none_found(labeled: Labeled, request: Request) -> str:
    label = "" if request.label is None else f" with the label {request.label!r}"
    if request.disagreements and sum(commit.labeled for commit in labeled.commits):
        return f"--disagreements: no document{label} of {labeled.path!r} has another label there"
    if label:
        return f"--label: {labeled.path!r} has no document{label}"
    return f"{labeled.path!r} has no labeled documents; run the job first"


def _write(path: str, content: bytes) -> None:
    try:
        Path(path).write_bytes(content)
    except OSError as error:
        raise UserError(f"--output: {path!r} cannot be written: {error.strerror}; give a file in a writable folder") from error
