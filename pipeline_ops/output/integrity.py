"""Check committed files against their commit: bytes, pages, rows, keys, columns, metadata."""

import json
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from pipeline_ops.output.committed_files import column_of, read_written, read_written_bytes
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.schema.units import Piece, row_of
from pipeline_ops.storage.store import Store
from pipeline_ops.tables.table_types import united_type
from pipeline_ops.writing.commit_record import Commit, WrittenFile
from pipeline_ops.writing.unit_files import METADATA_KEY, column_statistics


@dataclass
class VerifyState:
    """Metadata, column types and schemas of the files checked so far, with which later files must agree."""

    metadata: bytes | None = None
    added_types: dict[str, pa.DataType] = field(default_factory=dict)  # of the columns that labeling adds
    columns: dict[str, dict[str, pa.DataType]] = field(default_factory=dict)  # by input file, of all its rows together
    widened: set[str] = field(default_factory=set)  # input files whose rows stand in files of different columns
    documents: int = 0


def check_commit(
    store: Store,
    commit: Commit,
    output: OutputConfig,
    state: VerifyState,
    on_file: Callable[[WrittenFile], None] = lambda file: None,
    known_broken: Container[str] = (),
) -> Iterator[str]:
    """Reads all files of a commit; yields one line, the path first, for each violation.

    Checked: the bytes are those that were written; Parquet pages have their checksums; the rows are as many as the commit
    says, and its statistics are those of their values; each (source_file, source_row) occurs once and lies in the commit's
    pieces; each misfit is of a labeled row; metadata, and the type of each column, are those of the other files. Columns, and
    fields of objects, that the sample lacked stand in some files only: that is no violation, and noted in `state.widened`.
    Since pieces of different commits do not overlap (jobs/maintenance/verify.py), keys are unique in the whole output.

    Args:
        on_file: called with each file before it is read.
        known_broken: paths of files that are not read, as what is wrong with them is known.
    """
    rows: dict[str, list[np.ndarray]] = {}
    for file in commit.files:
        if file.path in known_broken:
            continue
        on_file(file)
        try:
            table = read_written(store, file)
        except OSError as error:
            yield str(error)
            continue
        sources = column_of(table, output.source_file_column, file.path).cast(pa.string())
        numbers = column_of(table, output.source_row_column, file.path).cast(pa.int64())
        if sources.null_count or numbers.null_count:
            yield f"{file.path}: rows without a source"
            continue
        encoded = sources.combine_chunks().dictionary_encode()
        codes, values = encoded.indices.to_numpy(), numbers.to_numpy()
        for code, source in enumerate(encoded.dictionary.to_pylist()):
            rows.setdefault(source, []).append(values[codes == code])
        statistics = column_statistics(table, output) if file.statistics else {}
        if any(statistics.get(column) != known for column, known in file.statistics.items()):
            yield f"{file.path}: its commit has statistics of other values"
        yield from _check_schema(file.path, table, set(encoded.dictionary.to_pylist()), output, state)
    labeled = {source: list(parts) for source, parts in rows.items()}
    for file in commit.line_files():
        if file.path in known_broken:
            continue
        on_file(file)
        try:
            found = _rows_of_lines(read_written_bytes(store, file))
        except OSError as error:
            yield str(error)
            continue
        for source, numbers in found.items():
            if file == commit.rejects_file:
                rows.setdefault(source, []).append(numbers)
            elif len(stray := np.setdiff1d(numbers, np.concatenate(labeled.get(source, [numbers[:0]])))):
                yield f"{file.path}: {row_of(source, stray[0])} is not labeled in unit {commit.unit}"
    for source, parts in rows.items():
        found = np.concatenate(parts)
        state.documents += len(found)
        yield from _check_keys(source, found, [piece for piece in commit.pieces if piece.path == source], commit.unit)


def _rows_of_lines(content: bytes) -> dict[str, np.ndarray]:
    """{source_file: each source_row, int64} of a file of rejects or misfits."""
    found: dict[str, list[int]] = {}
    for line in content.splitlines():
        record = json.loads(line)
        found.setdefault(record["source_file"], []).append(record["source_row"])
    return {source: np.array(numbers, np.int64) for source, numbers in found.items()}


def _check_keys(source: str, found: np.ndarray, pieces: list[Piece], unit: str) -> Iterator[str]:
    unique, counts = np.unique(found, return_counts=True)
    if (counts > 1).any():
        yield f"{row_of(source, unique[counts > 1][0])} stands {counts.max()} times in unit {unit}"
    inside = np.zeros(len(unique), bool)
    for piece in pieces:
        inside |= (unique >= piece.start_row) & (unique < piece.stop_row)
    if not inside.all():
        yield f"{row_of(source, unique[~inside][0])} is in unit {unit}, which does not cover it"


def _check_schema(path: str, table: pa.Table, sources: set[str], output: OutputConfig, state: VerifyState) -> Iterator[str]:
    metadata = (table.schema.metadata or {}).get(METADATA_KEY)
    if metadata is None:
        yield f"{path}: no metadata about the model that labeled it"
    elif state.metadata is None:
        state.metadata = metadata
    elif metadata != state.metadata:
        ours, theirs = json.loads(metadata), json.loads(state.metadata)
        differing = sorted(key for key in {*ours, *theirs} if ours.get(key) != theirs.get(key))
        yield f"{path}: metadata unlike that of the other files: {', '.join(differing)}"
    for name in output.added_columns().values():
        if name in output.partition_columns():
            continue
        if name not in table.column_names:
            yield f"{path}: no column {name!r}"
            continue
        data_type = table.schema.field(name).type
        if state.added_types.setdefault(name, data_type) != data_type:
            yield f"{path}: column {name!r} is {data_type}, elsewhere {state.added_types[name]}"
    types = {field.name: field.type for field in table.schema}
    for source in sources:  # other input files may have other columns
        known = state.columns.setdefault(source, types)
        for name in known.keys() & types.keys():
            if united_type(known[name], types[name]) is None:
                yield f"{path}: column {name!r} is {types[name]}, elsewhere with rows of {source} {known[name]}"
        if known != types:
            state.widened.add(source)
            state.columns[source] = (
                known
                | types
                | {name: united_type(known[name], types[name]) or known[name] for name in known.keys() & types.keys()}
            )
