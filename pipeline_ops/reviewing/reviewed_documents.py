"""The reviewed documents in an output: what it says of them now. Reads only the commits that have some of them."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipeline_ops.output.labeled_output import Labeled, read_batches
from pipeline_ops.reviewing.corrections import Correction, Source, is_same_text, newest_by
from pipeline_ops.schema.errors import UserError
from pipeline_ops.writing.commit_record import Commit


@dataclass(frozen=True)
class ReviewedDocuments:
    """Reviewed documents that an output has labels of, and the others."""

    found: list[Correction]
    table: pa.Table  # the rows of `found`, in the same order
    gone: list[Correction]  # no longer labeled: their row or file is not in the output, or rejected
    changed: list[Correction]  # the row holds another text by now


def find_reviewed(labeled: Labeled, corrections: Iterable[Correction], columns: Sequence[str]) -> ReviewedDocuments:
    """Look up the reviewed documents in an output by source_file and source_row; of each its last correction counts.

    Args:
        corrections: those without a source are left out.
        columns: to read of the documents, beside the source.

    Raises:
        OSError: a labeled file cannot be read.
    """
    newest = newest_by(lambda one: one.source, corrections)
    names, text_column = labeled.columns, labeled.record["config"]["input"]["text_column"]
    source = [names.source_file_column, names.source_row_column]
    wanted = list(dict.fromkeys([*source, *columns, text_column]))  # null where the output has kept no text
    rows_of: dict[str, list[int]] = defaultdict(list)
    for path, row in sorted(newest):
        rows_of[path].append(row)
    paths = pa.array(sorted(rows_of), pa.string())
    rows = pa.array(sorted({row for _, row in newest}), pa.int64())
    files = [file for commit in labeled.commits if _has_some(commit, rows_of) for file in commit.files]
    parts: list[pa.Table] = []
    for _, tables in read_batches(labeled.store, files, wanted, labeled.partition_types):
        for table in tables:
            at_path = pc.is_in(table.column(source[0]).cast(pa.string()), paths)
            near = table.filter(pc.and_(at_path, pc.is_in(table.column(source[1]).cast(pa.int64()), rows)))
            places = [place for place, one in enumerate(_sources(near, source)) if one in newest]
            parts.append(near.take(pa.array(places, pa.int64())))
    if not any(part.num_rows for part in parts):
        return ReviewedDocuments([], pa.table({name: pa.nulls(0) for name in wanted}), [*newest.values()], [])
    table = pa.concat_tables(parts, promote_options="permissive")
    sources, texts = _sources(table, source), table.column(text_column).to_pylist()
    is_same = [text is None or is_same_text(str(text), newest[one].text) for one, text in zip(sources, texts, strict=True)]
    return ReviewedDocuments(
        found=[newest[one] for one, same in zip(sources, is_same, strict=True) if same],
        table=table.filter(pa.array(is_same)),
        gone=[one for key, one in newest.items() if key not in {*sources}],
        changed=[newest[one] for one, same in zip(sources, is_same, strict=True) if not same],
    )


def check_found(documents: ReviewedDocuments, output: str, key: str) -> None:
    """Raises UserError if an output has none of the reviewed documents.

    Args:
        key: the option that names the corrections.
    """
    if documents.found:
        return
    missing = [*documents.changed, *documents.gone]
    if not missing or missing[0].source is None:
        raise UserError(f"{key}: no document has a source_file and a source_row, by which it is looked up; export it with them")
    path, row = missing[0].source
    why = "its row holds another text by now" if documents.changed else "it is not labeled there"
    raise UserError(
        f"{key}: {output!r} has none of the {len(missing):,} documents: the first is row {row:,} of {path}, and {why}; give the"
        " corrections of this input"
    )


def _sources(table: pa.Table, columns: Sequence[str]) -> list[Source]:
    files, rows = (table.column(name).to_pylist() for name in columns)
    return list(zip(files, rows, strict=True))


def _has_some(commit: Commit, rows_of: Mapping[str, Sequence[int]]) -> bool:
    """Whether a commit covers some of these rows, which are sorted by file."""
    for piece in commit.pieces:
        rows = rows_of.get(piece.path, ())
        place = bisect_left(rows, piece.start_row)
        if place < len(rows) and rows[place] < piece.stop_row:
            return True
    return False
