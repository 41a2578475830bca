"""The first documents of a listing, for a trial: as few bytes are read as hold them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow.parquet as pq

from pipeline_ops.inputs.config import InputConfig
from pipeline_ops.inputs.input_files import InputFile
from pipeline_ops.line_formats.csv_header import csv_header
from pipeline_ops.line_formats.csv_syntax import csv_syntax
from pipeline_ops.line_formats.decoding import open_lines
from pipeline_ops.line_formats.line_records import RecordBlock, is_document, read_record_blocks, split_records
from pipeline_ops.planning.work_plan import automatic_unit_bytes
from pipeline_ops.row_formats.row_files import ROW_FORMATS, open_row_file
from pipeline_ops.schema.errors import is_store_fault
from pipeline_ops.schema.units import END_OF_FILE
from pipeline_ops.storage.store import Store
from pipeline_ops.writing.commit_record import Commit

BLOCK_BYTES = 256 * 2**10  # no larger than automatic units, so that of a broken file no more documents are read than counted


@dataclass(frozen=True)
class FirstDocuments:
    """The beginning of a listing, cut behind a document.

    Attributes:
        files: the listing's first ones; of the last one maybe only the first rows (InputFile.stop_row).
        documents: rejects included.
        bytes: decompressed; of Parquet all columns'.
    """

    files: list[InputFile]
    documents: int
    bytes: int

    def holds(self, commits: Iterable[Commit]) -> bool:
        """Whether all committed rows are among these, of files that have not changed since."""
        stops = {(file.path, file.stored.identity): file.stop_row or END_OF_FILE for file in self.files}
        pieces = (piece for commit in commits for piece in commit.pieces)
        return all(piece.stop_row <= stops.get((piece.path, piece.identity), -1) for piece in pieces)

    def unit_bytes(self, given: int | None) -> int:
        """Bytes per unit for these documents alone: small units, so that a trial ends soon.

        Args:
            given: by the job, for all documents.
        """
        automatic = automatic_unit_bytes(self.bytes)
        return automatic if given is None else min(given, automatic)


def first_documents(files: Sequence[InputFile], limit: int, config: InputConfig, store: Store) -> FirstDocuments:
    """The first `limit` documents of the files, in their order; all, if they have fewer.

    A file that cannot be read is kept whole, with the documents that stand before the damage: its reader says why.

    Raises:
        StoreError: the object store kept failing.
    """
    taken, documents, num_bytes = [], 0, 0
    for file in files:
        if documents >= limit:
            break
        beginning = _beginning(file, limit - documents, config, store)
        taken += beginning.files
        documents += beginning.documents
        num_bytes += beginning.bytes
    return FirstDocuments(taken, documents, num_bytes)


def _beginning(file: InputFile, limit: int, config: InputConfig, store: Store) -> FirstDocuments:
    """first_documents() of one file."""
    documents = num_bytes = 0
    try:
        if file.format == "parquet":
            return _beginning_of_parquet(file, limit, store)
        if file.format in ROW_FORMATS:
            with open_row_file(file, store) as source:
                for block in source.read_blocks(file.rows, BLOCK_BYTES):
                    if block.stop_row >= limit:
                        there = file if block.last and block.stop_row == limit else replace(file, stop_row=limit)
                        rows = block.stop_row - block.start_row
                        part = block.table.nbytes * (limit - block.start_row) // rows
                        return FirstDocuments([there], limit, num_bytes + part)
                    documents = block.stop_row
                    num_bytes += block.table.nbytes
            return FirstDocuments([file], documents, num_bytes)
        if file.format == "text" and config.text_unit == "file":
            return FirstDocuments([file], 1, file.stored.size)
        for block, which in document_blocks(file, config, store, BLOCK_BYTES):
            here = np.flatnonzero(which)
            if documents + len(here) >= limit:
                rows = int(here[limit - documents - 1]) + 1
                if block.last and rows == block.num_rows:
                    return FirstDocuments([file], limit, block.stop_byte)
                ends = block.record_ends(csv_syntax(file, config))
                stop_byte = block.start_byte + int(ends[rows - 1])
                return FirstDocuments([replace(file, stop_row=block.start_row + rows, stop_byte=stop_byte)], limit, stop_byte)
            documents += len(here)
            num_bytes = block.stop_byte
    except Exception as error:  # a broken file can make the parsers raise anything
        if is_store_fault(error):
            raise
    return FirstDocuments([file], documents, num_bytes)


def _beginning_of_parquet(file: InputFile, limit: int, store: Store) -> FirstDocuments:
    with store.open(file.stored, sequential=False) as source:
        footer = pq.read_metadata(source)
    num_bytes = sum(footer.row_group(number).total_byte_size for number in range(footer.num_row_groups))
    if footer.num_rows <= limit:
        return FirstDocuments([file], footer.num_rows, num_bytes)
    return FirstDocuments([replace(file, stop_row=limit)], limit, num_bytes * limit // footer.num_rows)


def document_blocks(
    file: InputFile, config: InputConfig, store: Store, block_bytes: int
) -> Iterator[tuple[RecordBlock, list[bool]]]:
    """(block of records, which of them are documents) of a line file's rows that are to be labeled, from front to back.

    Blank lines are documents in text, but not in JSON Lines and CSV.
    """
    syntax = csv_syntax(file, config)
    start = csv_header(file, config, store)[1] if file.format == "csv" else 0
    with open_lines(file, config, store, start) as stream:
        for block in read_record_blocks(
            stream, target_bytes=block_bytes, syntax=syntax, start_byte=start, stop_byte=file.stop_byte
        ):
            yield block, [is_document(record, file.format) for record in split_records(block, syntax)]
