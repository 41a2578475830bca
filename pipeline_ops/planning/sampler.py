"""The input that is left to label -> documents, characters and tokens of all of it, from a sample read in seconds.

A small input is read whole. Of any other a seeded uniform sample is drawn: DRAWS times a file with the probability of its share
of the stored bytes, a place in it, and the records that begin in the next WINDOW_BYTES. Totals are ratio estimates (Cochran,
Sampling Techniques, chapter 6): what was found per byte, times the bytes that are left; their errors follow from how the draws
differ. Compressed line files, CSV, and ROW_FORMATS are drawn from near their beginnings: any other place would cost reading up
to there.
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline_ops.inputs.input_files import InputFile
from pipeline_ops.line_formats import line_records
from pipeline_ops.line_formats.csv_header import csv_header
from pipeline_ops.line_formats.csv_syntax import CsvSyntax, csv_syntax
from pipeline_ops.line_formats.decoding import decoding_of, open_lines
from pipeline_ops.models.config import JobModel, distinct_tokenizations, tokenization_ids
from pipeline_ops.planning.work_plan import EXPANSION, is_compressed
from pipeline_ops.reading.documents import decode_texts
from pipeline_ops.reading.reader import documents_of_rows, parse_block, read_pieces, wanted_columns
from pipeline_ops.reading.spans import ReadSettings, Span
from pipeline_ops.row_formats.parquet_files import STREAMED_ROW_GROUP_BYTES
from pipeline_ops.row_formats.row_files import ROW_FORMATS, RowBlock, open_row_file
from pipeline_ops.schema.errors import UserError, is_store_fault
from pipeline_ops.schema.failures import Failure
from pipeline_ops.schema.units import Range, Reject
from pipeline_ops.tokenizing.encoding import Encodings, encode_isolating_failures
from pipeline_ops.tokenizing.sequences import TextEncoder

EXACT_BYTES = 8 * 2**20  # decompressed, about: up to this an input is read whole, which takes seconds
EXACT_FILES = 1000
DRAWS, LEAST_DRAWS = 192, 24
QUICK_BYTES, QUICK_DRAWS = 2**20, 24  # for a look of a second
WINDOW_BYTES = 32 * 2**10
PREFIX_BYTES = 4 * 2**20  # decompressed, of a file that is drawn from near its beginning
HELD_BEGINNINGS = 16  # of such files
DRAWN_BYTES = 2**30  # after so much, no more than LEAST_DRAWS are drawn
MAX_SAMPLED_RECORD_BYTES = 32 * 2**20
STANDARD_ERRORS = 2.0  # an interval reaches so far to each side: about 95 % of all samples

Measures = dict[str, float]


@dataclass(frozen=True)
class Estimate:
    """A number of the whole input and its standard error; 0: counted."""

    value: float
    error: float = 0.0

    @property
    def interval(self) -> tuple[float, float]:
        reach = STANDARD_ERRORS * self.error
        return max(self.value - reach, 0.0), self.value + reach


@dataclass(frozen=True)
class Draw:
    """Records of one place: they fill `read_bytes` of the `window_bytes` that were meant, both as stored."""

    measures: Measures
    read_bytes: float
    window_bytes: float


@dataclass
class Sample:
    """What was read of the input that is left."""

    stored_bytes: float  # of all that is left
    draws: list[Draw] = field(default_factory=list)
    counted: Measures | None = None  # all of it has been read
    documents: int = 0  # that were read
    files: set[str] = field(default_factory=set)
    partition_values: dict[str, set[Any]] = field(default_factory=dict)  # of output.partition_by columns that the input has
    unreadable: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def exact(self) -> bool:
        return self.counted is not None and not self.unreadable

    def total(self, name: str) -> Estimate:
        """Of the whole input that is left.

        Args:
            name: documents, rejected, characters, text_bytes; truncated: documents, by one of the models; tokens: of all
                models together, special ones included; tokens_0, tokens_1, …: by tokenization (models.tokenization_ids).
        """
        if self.counted is not None or not self.draws:
            return Estimate((self.counted or {}).get(name, 0.0))
        windows = np.array([draw.window_bytes for draw in self.draws])
        found = np.array([draw.measures.get(name, 0.0) for draw in self.draws]) / windows
        read = np.array([draw.read_bytes for draw in self.draws]) / windows
        ratio = float(found.sum() / max(read.sum(), 1e-12))
        value, count = self.stored_bytes * ratio, len(self.draws)
        residuals = self.stored_bytes * (found - ratio * read) / max(read.mean(), 1e-12)
        # of a single draw nothing is known but its value
        return Estimate(value, float(np.sqrt(residuals @ residuals / (count - 1) / count)) if count > 1 else value)


@dataclass(frozen=True)
class RemainingFile:
    """What is left of a file: ranges of rows (typed rows) or of bytes, and about how many stored bytes these are."""

    file: InputFile
    ranges: tuple[Range, ...]
    size: float


def draw_sample(
    tasks: Sequence[Sequence[Span]], models: Sequence[JobModel], settings: ReadSettings, seed: int = 0, *, quick: bool = False
) -> Sample:
    """Reads and tokenizes a sample of what is left, or all of it if that is little.

    Args:
        tasks: as work_plan.Plan has them.
        quick: read and draw an eighth of what is read and drawn otherwise.

    Raises:
        UserError: nothing of what was drawn can be read.
        StoreError: the object store fails.
    """
    began = time.monotonic()
    left = _remaining_files(tasks, settings)
    sampler = _Sampler(models, settings, Sample(sum(file.size for file in left)))
    decompressed = sum(file.size * (EXPANSION if is_compressed(file.file) else 1) for file in left)
    if decompressed <= (QUICK_BYTES if quick else EXACT_BYTES) and len(left) <= EXACT_FILES:
        sampler.count(left)
    else:
        sampler.draw(left, np.random.default_rng(seed), QUICK_DRAWS if quick else DRAWS)
    sample = sampler.sample
    if sample.unreadable and not sample.documents:
        raise UserError(f"input.path: nothing that was sampled can be read; {sample.unreadable[0]}")
    sample.seconds = time.monotonic() - began
    return sample


def _remaining_files(tasks: Sequence[Sequence[Span]], settings: ReadSettings) -> list[RemainingFile]:
    ranges: dict[str, list[Range]] = defaultdict(list)
    files: dict[str, InputFile] = {}
    for task in tasks:
        for span in task:
            files[span.file.path] = span.file
            ranges[span.file.path] += span.ranges
    return [
        RemainingFile(file, tuple(ranges[path]), _remaining_bytes(file, ranges[path], settings)) for path, file in files.items()
    ]


def _remaining_bytes(file: InputFile, ranges: Sequence[Range], settings: ReadSettings) -> float:
    """Stored bytes of what is left of a file, about."""
    size = file.stored.size
    if file.format == "parquet":
        rows = sum(part.stop_row - part.start_row for part in ranges if part.stop_row is not None)
        last = next((part.start_row for part in ranges if part.stop_row is None), None)
        if last == rows:  # the ranges are all of the file
            return float(size)
        num_rows = _footer(file, settings).num_rows
        return size * min((rows + (num_rows - last if last is not None else 0)) / max(num_rows, 1), 1.0)
    if file.format in ROW_FORMATS:
        return float(size)
    if file.compression is not None:
        return max(size - ranges[0].start_byte / EXPANSION, 0.05 * size)
    left = float(sum(stop - start for start, stop in _byte_ranges(file, ranges)))
    return left if left > 0 else 0.05 * size  # more is decoded than stored where it is compressed whatever the name says


def _byte_ranges(file: InputFile, ranges: Sequence[Range]) -> list[tuple[int, int]]:
    return [(part.start_byte, file.stored.size if part.stop_byte is None else part.stop_byte) for part in ranges]


def _footer(file: InputFile, settings: ReadSettings) -> pq.FileMetaData:
    with settings.store.open(file.stored, sequential=False) as source:
        return pq.read_metadata(source)


class _Sampler:
    """Holds the tokenizers, and fills a sample."""

    def __init__(self, models: Sequence[JobModel], settings: ReadSettings, sample: Sample):
        self.settings, self.sample = settings, sample
        self.encoders = [
            TextEncoder(model.tokenizer, with_type_ids=False, pairs=model.facts.pairs, windows=model.facts.windows)
            for model in distinct_tokenizations(models)
        ]
        self.tokenization_ids = tokenization_ids(models)
        self.bytes_read = 0
        self.footers: dict[str, pq.FileMetaData] = {}
        self.beginnings: dict[str, RowBlock] = {}
        self.plain: dict[str, bool] = {}

    def count(self, files: Sequence[RemainingFile]) -> None:
        """Reads all of them."""
        self.sample.counted = self.measure_spans([Span(left.file, left.ranges) for left in files])
        self.sample.files = {left.file.path for left in files}

    def draw(self, files: Sequence[RemainingFile], random: np.random.Generator, draws: int) -> None:
        weights = np.array([file.size for file in files])
        if not weights.sum():
            return
        for number, index in enumerate(random.choice(len(files), draws, p=weights / weights.sum())):
            if number >= LEAST_DRAWS and self.bytes_read > DRAWN_BYTES:
                break
            left = files[index]
            try:
                self.sample.draws.append(self.draw_from(left, random))
                self.sample.files.add(left.file.path)
            except Exception as error:  # a broken file can make the parsers raise anything
                if is_store_fault(error):
                    raise
                self.sample.unreadable.append(f"{left.file.path}: {type(error).__name__}: {' '.join(str(error).split())}")

    def draw_from(self, left: RemainingFile, random: np.random.Generator) -> Draw:
        file = left.file
        if file.format == "parquet":
            return self.draw_rows(left, random)
        if file.format in ROW_FORMATS:
            return self.draw_first_rows(left, random)
        if file.format == "text" and self.settings.input.text_unit == "file":
            return Draw(self.measure_spans([Span(file, left.ranges)]), left.size, left.size)
        if file.format != "csv" and self.is_plain(file):
            return self.draw_lines(left, random)
        return self.draw_near_beginning(left, random)

    def is_plain(self, file: InputFile) -> bool:
        """Whether any place in a file can be read, whatever its name says of it."""
        if file.path not in self.plain:
            self.plain[file.path] = decoding_of(file, self.settings.input, self.settings.store).is_plain
        return self.plain[file.path]

    def draw_rows(self, left: RemainingFile, random: np.random.Generator) -> Draw:
        """Rows of one row group from a random row on."""
        file, kept = left.file, self.settings.output.input_columns()
        footer = self.footers.setdefault(file.path, self.footers.get(file.path) or _footer(file, self.settings))
        ranges = [(part.start_row, footer.num_rows if part.stop_row is None else part.stop_row) for part in left.ranges]
        rows = np.array([stop - start for start, stop in ranges])
        if not rows.sum():
            return Draw({}, left.size, left.size)
        place = int(random.integers(rows.sum()))
        which = int(np.searchsorted(np.cumsum(rows), place, side="right"))
        row = ranges[which][0] + place - int(rows[:which].sum())
        begins = np.cumsum([0, *(footer.row_group(index).num_rows for index in range(footer.num_row_groups))])
        index = int(np.searchsorted(begins, row, side="right")) - 1
        group, begin = footer.row_group(index), int(begins[index])
        columns = [group.column(number) for number in range(group.num_columns)]
        if kept is not None:
            wanted = {*kept, *self.settings.input.text_columns}
            columns = [column for column in columns if column.path_in_schema.split(".", 1)[0] in wanted]
        group_bytes = max(sum(column.total_uncompressed_size for column in columns), 1)
        self.bytes_read += group_bytes
        first, last = max(begin, ranges[which][0]), min(begin + group.num_rows, ranges[which][1])
        count = min(max(int(WINDOW_BYTES / group_bytes * group.num_rows), 1), last - first)
        # a large row group can only be decoded from its start
        start = first if group_bytes > STREAMED_ROW_GROUP_BYTES else min(row, last - count)
        window = count * file.stored.size / footer.num_rows
        return Draw(self.measure_spans([Span(file, (Range(start, start + count),))]), window, window)

    def draw_first_rows(self, left: RemainingFile, random: np.random.Generator) -> Draw:
        """Rows from a random one on of those near the beginning of what is left."""
        block = self.beginning_of(left)
        rows = 0 if block is None else block.stop_row - block.start_row
        if block is None or not rows:
            return Draw({}, left.size, left.size)
        stored = block.stored[1] - block.stored[0]
        count = min(max(int(WINDOW_BYTES / max(block.table.nbytes, 1) * rows), 1), rows)
        start = block.start_row + int(random.integers(rows - count + 1))
        window = stored * count / rows
        return Draw(
            self.measure([documents_of_rows(left.file, block.slice(start, start + count), self.settings)]), window, window
        )

    def beginning_of(self, left: RemainingFile) -> RowBlock | None:
        """The first rows of what is left; the same again costs nothing for some of the files: a batch may be much larger."""
        if left.file.path in self.beginnings:
            return self.beginnings[left.file.path]
        with open_row_file(left.file, self.settings.store) as source:
            block = next(source.read_blocks(left.ranges[0], PREFIX_BYTES, wanted_columns(self.settings)), None)
            self.bytes_read += source.bytes_read
        if block is not None and len(self.beginnings) < HELD_BEGINNINGS:
            copied = block.table.take(np.arange(block.table.num_rows))  # what it is a slice of is freed
            self.beginnings[left.file.path] = replace(block, table=copied)
        return block

    def draw_lines(self, left: RemainingFile, random: np.random.Generator) -> Draw:
        ranges = _byte_ranges(left.file, left.ranges)
        sizes = np.array([stop - start for start, stop in ranges], float)
        start, stop = ranges[int(random.choice(len(ranges), p=sizes / sizes.sum()))]
        window = min(WINDOW_BYTES, stop - start)
        place = start + int(random.integers(stop - start - window + 1))
        with self.settings.store.open(left.file.stored, sequential=False) as source:
            # the record at this place began before it, unless a record begins right here
            begin = max(place - 1, start)
            source.seek(begin)
            need, data = WINDOW_BYTES + 2**14, b""
            while True:
                data += source.read(min(need, stop - begin) - len(data))
                at_end = begin + len(data) >= stop or len(data) < need
                skipped = 0 if place == start else data.find(b"\n") + 1 or (len(data) if at_end else -1)
                found = None
                if skipped >= 0:
                    found = _records_beginning_in(data[skipped:], 0, place + window - begin - skipped, None, at_end)
                if found is not None:
                    break
                if need > MAX_SAMPLED_RECORD_BYTES:
                    raise OSError(f"a record at byte {place} has no end within {MAX_SAMPLED_RECORD_BYTES} bytes")
                need *= 2
        self.bytes_read += len(data)
        block = line_records.RecordBlock(found, 0, 0, begin + skipped, last=False)
        return Draw(self.measure([parse_block(left.file, block, [], self.settings)]), len(found), window)

    def draw_near_beginning(self, left: RemainingFile, random: np.random.Generator) -> Draw:
        file, config, store = left.file, self.settings.input, self.settings.store
        header, first = csv_header(file, config, store) if file.format == "csv" else ([], 0)
        with open_lines(file, config, store) as stream:
            data = stream.read(PREFIX_BYTES)
            at_end = len(data) < PREFIX_BYTES
            stored = file.stored.size if at_end else min(stream.tell_stored(), file.stored.size)
        self.bytes_read += len(data)
        data = data[first:]
        if not data:
            return Draw({}, left.size, left.size)
        per_byte = stored / len(data)
        window = min(WINDOW_BYTES, len(data))
        for place in (int(random.integers(len(data) - window + 1)), 0):
            # the prefix ends within a record: then those at the beginning are taken
            found = _records_beginning_in(data, place, place + window, csv_syntax(file, config), at_end, first == 0)
            if found is not None:
                block = line_records.RecordBlock(found, 0, 0, max(first, 1) if place else first, last=False)
                measures = self.measure([parse_block(file, block, header, self.settings)])
                return Draw(measures, len(found) * per_byte, window * per_byte)
        raise OSError(f"a record near the beginning has no end within {PREFIX_BYTES} bytes")

    def measure_spans(self, spans: list[Span]) -> Measures:
        def readable() -> Iterator[tuple[pa.Table, list[Reject]]]:
            for part in read_pieces(spans, self.settings):
                if isinstance(part, Failure):
                    self.sample.unreadable.append(f"{part.where}: {part.message}")
                else:
                    yield part.documents, part.rejects

        return self.measure(readable())

    def measure(self, parts: Iterable[tuple[pa.Table, list[Reject]]]) -> Measures:
        """Counts documents and rejects, and tokenizes."""
        found: Measures = defaultdict(float)
        for table, rejects in parts:
            found["rejected"] += len(rejects)
            found["documents"] += table.num_rows + len(rejects)
            if not table.num_rows:
                continue
            texts = [decode_texts(table.column(name))[0] for name in self.settings.input.text_columns]
            for text in texts:
                found["characters"] += pc.sum(pc.utf8_length(text)).as_py()
                found["text_bytes"] += pc.sum(pc.binary_length(text)).as_py()
            columns, truncated = [text.to_pylist() for text in texts], np.zeros(table.num_rows, bool)
            for number, encoder in enumerate(self.encoders):
                encodings, failed = encode_isolating_failures(partial(_encode_rows, encoder, columns), table.num_rows)
                tokens = int(encodings.lengths.sum())
                found["rejected"] += len(failed)
                found[f"tokens_{number}"] += tokens
                found["tokens"] += tokens * self.tokenization_ids.count(number)
                good = np.ones(table.num_rows, bool)
                good[list(failed)] = False
                truncated[good] |= encodings.truncated
            found["truncated"] += int(truncated.sum())
            self.sample.documents += table.num_rows
            for column in {*self.settings.output.partition_columns()} & {*table.column_names}:
                self.sample.partition_values.setdefault(column, set()).update(pc.unique(table.column(column)).to_pylist())
        return found


def _encode_rows(encoder: TextEncoder, columns: Sequence[list[str]], rows: slice) -> Encodings:
    return encoder.encode([column[rows] for column in columns])


def _records_beginning_in(
    data: bytes, begin: int, stop: int, syntax: CsvSyntax | None, at_end: bool, begins_file: bool = False
) -> bytes | None:
    """The records of `data`, which begins with one, that begin in [begin, stop); None: the last has no end in it."""
    if stop <= 0:
        return b""
    ends = line_records.record_ends(data, syntax, at_end=at_end, begins_file=begins_file)
    if not at_end and (not len(ends) or ends[-1] < stop):
        return None
    starts = np.concatenate([[0], ends[:-1]])
    first, last = np.searchsorted(starts, begin), np.searchsorted(starts, stop)
    return data[int(starts[first]) : int(ends[last - 1])] if first < last else b""
