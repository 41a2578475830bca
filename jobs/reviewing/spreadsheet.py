"""The sample as a CSV file for spreadsheets, with a column `corrected` to fill in."""

import csv
import io

from jobs.reviewing.documents import Sample, SampledDocument
from pipeline_ops.schema.review_format import SHEET_COLUMNS, label_cell, spreadsheet_cell

CELL_CHARACTERS = 32_000  # Excel's limit is 32,767


def sheet_of(sample: Sample) -> bytes:
    """The file's content: SHEET_COLUMNS, UTF-8 with a byte order mark, by which Excel knows the encoding."""
    names = [name for name in SHEET_COLUMNS if name != "text_pair" or len(sample.text_columns) > 1]
    written = io.StringIO(newline="")
    writer = csv.DictWriter(written, names)
    writer.writeheader()
    sample_id = sample.id
    for document in sample.reviewed:
        writer.writerow(_row(document) | {"documents": sample.documents, "sample": sample_id, "model": sample.model})
    return written.getvalue().encode("utf-8-sig", "replace")


def _row(document: SampledDocument) -> dict[str, str | int | float]:
    stratum, texts = document.stratum, [_cell(text) for text in document.texts]
    return {
        "corrected": "",
        "predicted": spreadsheet_cell(label_cell(document.predicted)),
        "score": document.score,
        **dict(zip(("text", "text_pair"), texts, strict=False)),
        "source_file": spreadsheet_cell(document.source_file),
        "source_row": document.source_row,
        "stratum": spreadsheet_cell(stratum.name),
        "stratum_documents": stratum.documents,
        "stratum_sampled": stratum.sampled,
    }


def _cell(text: str) -> str:
    return spreadsheet_cell(text if len(text) <= CELL_CHARACTERS else text[:CELL_CHARACTERS].rstrip() + "…")
