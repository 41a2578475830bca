"""The input that is left -> a sample of it, by reading a little, in seconds and in bounded memory.

Small inputs are read whole. Of others a seeded sample is drawn: a file with the probability of its share of the bytes, a place
in it, and the records that begin in the next WINDOW_BYTES there. Files of another format or compression are a stratum of their
own. Compressed line files, and CSV, are drawn from near their beginnings: anything further back would cost reading up to there.
"""

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline_ops.models.config import JobModel, distinct_tokenizations, tokenization_ids
from pipeline_ops.planning.estimators import Measures, Sample, Stratum
from pipeline_ops.planning.work_plan import EXPANSION
from pipeline_ops.reading import line_records as records
from pipeline_ops.reading.input_schema import csv_delimiter, csv_header
from pipeline_ops.reading.inputs import InputFile
from pipeline_ops.reading.reader import ReadSettings, Span, parse_block, read_pieces
from pipeline_ops.reading.row_groups import STREAMED_ROW_GROUP_BYTES
from pipeline_ops.reading.text_columns import decode_texts
from pipeline_ops.schema.errors import UserError, is_store_fault
from pipeline_ops.schema.failures import Failure
from pipeline_ops.schema.units import Range, Reject
from pipeline_ops.storage.files import open_to_read
from pipeline_ops.tokenizing.encoding import Encodings, encode_isolating_failures
from pipeline_ops.tokenizing.sequences import TextEncoder

EXACT_BYTES = 8 * 2**20  # decompressed, about: up to this an input is read whole, which takes seconds
EXACT_FILES = 1000
DRAWS, LEAST_DRAWS = 192, 24  # of all strata; of each
WINDOW_BYTES = 32 * 2**10
PREFIX_BYTES = 4 * 2**20  # of a compressed file, decompressed: tells how far it is compressed, too
READ_BYTES = 2**30  # after so much, no more than LEAST_DRAWS are drawn
MOST_RECORD_BYTES = 32 * 2**20


@dataclass(frozen=True)
class RemainingFile:
    """What is left of a file: ranges of rows (Parquet) or of bytes, and the stored bytes that they are, about."""

    file: InputFile
    ranges: tuple[Range, ...]
    size: float


def draw_sample(tasks: Sequence[Sequence[Span]], models: Sequence[JobModel], settings: ReadSettings, seed: int = 0) -> Sample:
    """Reads and tokenizes a little of what is left, or all of it if that is little.

    Args:
        tasks: as planning.Plan has them.

    Raises:
        UserError: nothing of what was drawn can be read.
        StoreError: the object store is at fault.
    """
    return _Sampler(models, settings, seed).run(_left_of(tasks, settings))


def _left_of(tasks: Sequence[Sequence[Span]], settings: ReadSettings) -> list[RemainingFile]:
    ranges: dict[str, list[Range]] = defaultdict(list)
    files: dict[str, InputFile] = {}
    for task in tasks:
        for span in task:
            files[span.file.path] = span.file
            ranges[span.file.path] += span.ranges
    return [RemainingFile(file, tuple(ranges[path]), _size_left(file, ranges[path], settings)) for path, file in files.items()]


def _size_left(file: InputFile, ranges: Sequence[Range], settings: ReadSettings) -> float:
    """Stored bytes of what is left of a file, about."""
    size = file.stored.size
    if file.format == "parquet":
        rows = sum((part.stop_row or 0) - part.start_row for part in ranges if part.stop_row is not None)
        last = [part.start_row for part in ranges if part.stop_row is None]
        if last and rows == last[0]:
            return float(size)  # all of it, cut into units
        num_rows = _metadata(file, settings).num_rows
        return size * min((rows + (num_rows - last[0] if last else 0)) / max(num_rows, 1), 1.0)
    if file.compression is not None:
        return max(size - ranges[0].start_byte / EXPANSION, 0.05 * size)
    return float(sum(stop - start for start, stop in _bytes_left(file, ranges)))


def _bytes_left(file: InputFile, ranges: Sequence[Range]) -> list[tuple[int, int]]:
    return [(part.start_byte, file.stored.size if part.stop_byte is None else part.stop_byte) for part in ranges]


def _metadata(file: InputFile, settings: ReadSettings) -> pq.FileMetaData:
    with open_to_read(file.stored, settings.storage, sequential=False) as source:
        return pq.read_metadata(source)


def _is_small(files: Sequence[RemainingFile], size: float) -> bool:
    """Whether files of one kind are read whole."""
    is_compressed = files[0].file.format == "parquet" or files[0].file.compression is not None
    return size * (EXPANSION if is_compressed else 1) <= EXACT_BYTES and len(files) <= EXACT_FILES


class _Sampler:
    """Holds the tokenizers, and what has been read so far."""

    def __init__(self, models: Sequence[JobModel], settings: ReadSettings, seed: int):
        self.settings, self.random = settings, np.random.default_rng(seed)
        self.encoders = [
            TextEncoder(
                model.tokenizer_json,
                with_type_ids=False,
                pairs=model.facts.pairs,
                windows=model.facts.windows,
            )
            for model in distinct_tokenizations(models)
        ]
        self.readings = tokenization_ids(models)
        self.tables: list[pa.Table] = []
        self.lengths: list[list[np.ndarray]] = [[] for _ in self.encoders]
        self.unreadable: list[str] = []
        self.read: set[str] = set()
        self.bytes_read = 0
        self.footers: dict[str, pq.FileMetaData] = {}

    def run(self, left: Sequence[RemainingFile]) -> Sample:
        began = time.monotonic()
        kinds: dict[tuple[str, str | None], list[RemainingFile]] = defaultdict(list)
        for file in left:
            kinds[file.file.format, file.file.compression].append(file)
        sizes = {kind: sum(file.size for file in files) for kind, files in kinds.items()}
        small = {kind for kind, files in kinds.items() if _is_small(files, sizes[kind])}
        large = sum(size for kind, size in sizes.items() if kind not in small)
        strata = []
        for kind, files in kinds.items():
            if kind in small:
                strata.append(Stratum(sizes[kind], counted=self.count(files)))
            else:
                draws = max(LEAST_DRAWS, round(DRAWS * sizes[kind] / large)) if sizes[kind] else 0
                strata.append(Stratum(sizes[kind], self.draw(files, draws)))
        if self.unreadable and not self.tables:
            raise UserError(f"input.path: nothing that was sampled can be read; {self.unreadable[0]}")
        groups = sum(footer.num_row_groups for footer in self.footers.values())
        sizes = sum(file.file.stored.size for file in left if file.file.path in self.footers)
        return Sample(
            tuple(strata),
            documents=sum(table.num_rows for table in self.tables),
            files=len(self.read),
            tables=tuple(self.tables),
            lengths=tuple(np.concatenate(parts) if parts else np.empty(0, np.int32) for parts in self.lengths),
            unreadable=tuple(self.unreadable),
            row_groups_per_byte=groups / sizes if sizes else 0.0,
            seconds=time.monotonic() - began,
        )

    def count(self, files: Sequence[RemainingFile]) -> Measures:
        """Reads all of them."""
        counted: Measures = defaultdict(float)
        for left in files:
            for name, value in self.measure(self.parts(left.file, left.ranges)).items():
                counted[name] += value
            self.read.add(left.file.path)
        return counted

    def draw(self, files: Sequence[RemainingFile], count: int) -> list[tuple[Measures, float, float]]:
        """Stratum.draws."""
        draws = []
        weights = np.array([file.size for file in files])
        for number, index in enumerate(
            self.random.choice(len(files), count, p=weights / (weights.sum() or 1)) if count else ()
        ):
            if number >= LEAST_DRAWS and self.bytes_read > READ_BYTES:
                break
            left = files[index]
            try:
                draws.append(self.draw_of(left))
                self.read.add(left.file.path)
            except Exception as error:  # a broken file can make the parsers raise anything
                if is_store_fault(error):
                    raise
                self.unreadable.append(f"{left.file.path}: {type(error).__name__}: {' '.join(str(error).split())}")
        return draws

    def draw_of(self, left: RemainingFile) -> tuple[Measures, float, float]:
        """(what was found, in how many stored bytes, of how many that were meant)."""
        file = left.file
        if file.format == "parquet":
            return self.draw_rows(left)
        if file.format == "text" and self.settings.input.text_unit == "file":
            return self.measure(self.parts(file, left.ranges)), left.size, left.size
        if file.compression is None and file.format != "csv":
            return self.draw_lines(left)
        return self.draw_near_beginning(left)

    def draw_rows(self, left: RemainingFile) -> tuple[Measures, float, float]:
        file = left.file
        if file.path not in self.footers:
            self.footers[file.path] = _metadata(file, self.settings)
        footer = self.footers[file.path]
        if not footer.num_rows:
            return {}, left.size, left.size
        ranges = [(part.start_row, footer.num_rows if part.stop_row is None else part.stop_row) for part in left.ranges]
        rows = np.array([stop - start for start, stop in ranges])
        place = int(self.random.integers(max(rows.sum(), 1)))
        which = int(np.searchsorted(np.cumsum(rows), place, side="right"))
        row = ranges[which][0] + place - int(rows[:which].sum())
        begin = 0
        group = footer.row_group(0)
        for index in range(footer.num_row_groups):
            group = footer.row_group(index)
            if row < begin + group.num_rows:
                break
            begin += group.num_rows
        wanted = (*(self.settings.output.input_columns() or ()), *self.settings.input.text_columns)
        columns = [group.column(index) for index in range(group.num_columns)]
        if self.settings.output.input_columns() is not None:
            columns = [column for column in columns if column.path_in_schema.split(".", 1)[0] in wanted]
        group_bytes = max(sum(column.total_uncompressed_size for column in columns), 1)
        self.bytes_read += group_bytes
        first, last = max(begin, ranges[which][0]), min(begin + group.num_rows, ranges[which][1])
        count = min(max(int(WINDOW_BYTES / group_bytes * group.num_rows), 1), last - first)
        # a large row group can only be decoded from its start
        start = first if group_bytes > STREAMED_ROW_GROUP_BYTES else min(row, last - count)
        meant = count * file.stored.size / footer.num_rows
        return self.measure(self.parts(file, (Range(start, start + count),))), meant, meant

    def draw_lines(self, left: RemainingFile) -> tuple[Measures, float, float]:
        parts = _bytes_left(left.file, left.ranges)
        sizes = np.array([stop - start for start, stop in parts], float)
        start, stop = parts[int(self.random.choice(len(parts), p=sizes / sizes.sum()))]
        meant = min(WINDOW_BYTES, stop - start)
        place = start + int(self.random.integers(stop - start - meant + 1))
        with open_to_read(left.file.stored, self.settings.storage, sequential=False) as source:
            # the record that the place is in began before it, unless the place is a record's begin
            begin = max(place - 1, start)
            source.seek(begin)
            need, data, skipped = WINDOW_BYTES + 2**14, b"", -1
            while True:
                more = source.read(min(need, stop - begin) - len(data))
                data += more
                at_end = not more or begin + len(data) >= stop
                skipped = 0 if place == start else data.find(b"\n") + 1 or (len(data) if at_end else -1)
                if skipped >= 0:
                    found = _records(data[skipped:], 0, place + meant - begin - skipped, None, ",", at_end)
                    if found is not None:
                        break
                if need > MOST_RECORD_BYTES:
                    raise OSError(f"a record at byte {place} has no end within {MOST_RECORD_BYTES} bytes")
                need *= 2
        self.bytes_read += len(data)
        block = records.RecordBlock(found, 0, 0, begin + skipped, last=False)
        return self.measure([parse_block(left.file, block, [], self.settings)]), len(found), meant

    def draw_near_beginning(self, left: RemainingFile) -> tuple[Measures, float, float]:
        file, config, storage = left.file, self.settings.input, self.settings.storage
        quote = config.quote if file.format == "csv" else None
        delimiter = csv_delimiter(file, config)
        header, first = csv_header(file, config, storage) if file.format == "csv" else ([], 0)
        with open_to_read(file.stored, storage, sequential=file.compression is not None) as source:
            stream = source if file.compression is None else pa.CompressedInputStream(pa.PythonFile(source), file.compression)
            data = bytes(stream.read(PREFIX_BYTES))
            at_end = len(data) < PREFIX_BYTES
            stored = file.stored.size if at_end else min(source.tell(), file.stored.size)
        self.bytes_read += len(data)
        data = data[first:]
        if not data:
            return {}, left.size, left.size
        per_byte = stored / len(data)
        meant = min(WINDOW_BYTES, len(data))
        place = int(self.random.integers(len(data) - meant + 1))
        found = _records(data, place, place + meant, quote, delimiter, at_end)
        if found is None:  # the last of them is not finished: those from the beginning are
            place = 0
            found = _records(data, 0, meant, quote, delimiter, at_end)
        if found is None:
            raise OSError(f"a record near the beginning has no end within {PREFIX_BYTES} bytes")
        block = records.RecordBlock(found, 0, 0, max(first, 1) if place else first, last=False)
        return self.measure([parse_block(file, block, header, self.settings)]), len(found) * per_byte, meant * per_byte

    def parts(self, file: InputFile, ranges: Sequence[Range]) -> Iterator[tuple[pa.Table, list[Reject]]]:
        for part in read_pieces([Span(file, tuple(ranges))], self.settings):
            if isinstance(part, Failure):
                self.unreadable.append(f"{part.where}: {part.message}")
            else:
                yield part[1], part[2]

    def measure(self, parts: Any) -> Measures:
        """Counts documents and rejects, and tokenizes."""
        found: dict[str, float] = defaultdict(float)
        for table, rejects in parts:
            found["rejected"] += len(rejects)
            found["documents"] += table.num_rows + len(rejects)
            if not table.num_rows:
                continue
            texts = [decode_texts(table.column(name))[0] for name in self.settings.input.text_columns]
            for text in texts:
                found["characters"] += pc.sum(pc.utf8_length(text)).as_py()
                found["text_bytes"] += pc.sum(pc.binary_length(text)).as_py()
            columns, cut = [text.to_pylist() for text in texts], np.zeros(table.num_rows, bool)
            for reading, encoder in enumerate(self.encoders):
                read, failed = encode_isolating_failures(partial(_encode_rows, encoder, columns), table.num_rows)
                found["rejected"] += len(failed)
                found[f"tokens_{reading}"] += int(read.lengths.sum())
                found["tokens"] += int(read.lengths.sum()) * self.readings.count(reading)
                good = np.ones(table.num_rows, bool)
                good[list(failed)] = False
                cut[good] |= read.truncated
                self.lengths[reading].append(read.lengths)
            found["truncated"] += int(cut.sum())
            kept = self.settings.output.input_columns()
            unwanted = [name for name in self.settings.input.text_columns if kept is not None and name not in kept]
            self.tables.append(table.drop_columns(unwanted))
        return found


def _encode_rows(encoder: TextEncoder, columns: Sequence[list[str]], rows: slice) -> Encodings:
    return encoder.encode([column[rows] for column in columns])


def _records(data: bytes, begin: int, stop: int, quote: str | None, delimiter: str, at_end: bool) -> bytes | None:
    """The records of `data`, which begins with one, that begin in [begin, stop); None: the last has no end in it."""
    if stop <= 0:
        return b""
    ends = records.record_ends(data, quote, delimiter, at_end=at_end)
    if not at_end and (not len(ends) or ends[-1] < stop):
        return None
    starts = np.concatenate([[0], ends[:-1]])
    first, last = np.searchsorted(starts, begin), np.searchsorted(starts, stop)
    return data[int(starts[first]) : int(ends[last - 1])] if first < last else b""
