"""Files that cannot be read: the rest of each comes as a failure, what was read before and all other files as ever."""

import gzip
import json
import lzma
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.attempts import AttemptCounts
from pipeline_ops.inputs.listing import find_inputs
from pipeline_ops.line_formats import line_records
from pipeline_ops.output.commit_log import gaps
from pipeline_ops.reading.reader import read_units
from pipeline_ops.reading.spans import ReadSettings, Span
from pipeline_ops.reading.unit_sizes import UnitSizes
from pipeline_ops.schema.failures import MAX_TRIES, WORKER_DIED, Failure
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.schema.units import END_OF_FILE, Piece, Range, Unit
from pipeline_ops.storage.config import StorageConfig
from pipeline_ops.storage.store import Store
from tests.support.corpora import write_jsonl, write_parquet
from tests.support.reading_path import (
    MEBIBYTE,
    Result,
    input_of,
    prepare,
    read_path,
    read_spans,
    spans_of,
    try_path,
    try_spans,
    write_rows,
)

ROWS = [{"id": f"{row:05}", "text": f"text {row} {row * 7919 % 1000}"} for row in range(3000)]
DEADLY = "this kills"


class Killed(BaseException):
    """Stands for the end of a process."""


def pieces_of(result: Result, path: Path) -> list[Piece]:
    """What was read of a file, and then what failed of it."""
    failed = [piece for failure in result.failures for piece in failure.pieces]
    return [piece for piece in [*result.pieces, *failed] if piece.path == str(path)]


def check_tiles(pieces: list[Piece]) -> None:
    """The pieces lie behind one another, from the first row to the end of the file."""
    assert [piece.start_row for piece in pieces] == [0, *(piece.stop_row for piece in pieces[:-1])]
    assert [piece.last for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert gaps(pieces) == []


def with_neighbors(path: Path) -> dict[str, list[str]]:
    """Writes a file before and one behind `path`; their texts."""
    texts = {str(path.parent / name): [f"{name} {row}" for row in range(3)] for name in ("0.jsonl", "z.jsonl")}
    for name, found in texts.items():
        write_jsonl(Path(name), [{"text": text} for text in found])
    return texts


def texts_by_file(result: Result) -> dict[str, list[str]]:
    texts: dict[str, list[str]] = {}
    for document in result.documents:
        texts.setdefault(document["source_file"], []).append(document["text"])
    return texts


def failed_whole(path: Path) -> tuple[Any, ...]:
    """The rows and bytes of the only piece of a file that failed from its beginning."""
    return (str(path), 0, END_OF_FILE, True, 0, END_OF_FILE)


def place(piece: Piece) -> tuple[Any, ...]:
    return (piece.path, piece.start_row, piece.stop_row, piece.last, piece.start_byte, piece.stop_byte)


@pytest.mark.parametrize("name", ["a.csv.gz", "a.txt.zst", "a.tsv.bz2", "a.jsonl.zst"])
@pytest.mark.parametrize("share", [0.5, 0.99])
def test_read_of_a_truncated_stream_gives_what_comes_before_and_a_failure(tmp_path: Path, name: str, share: float) -> None:
    path = write_rows(tmp_path / name, ROWS)
    expected = read_path(path, unit_bytes=10_000)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    neighbors = with_neighbors(path)
    result = try_path(tmp_path, unit_bytes=10_000)
    (failure,) = result.failures
    assert str(path) in failure.message
    assert (failure.step, failure.store) == ("read", False)
    check_tiles(pieces_of(result, path))
    texts = texts_by_file(result)
    before = texts.pop(str(path), [])
    assert before == expected.column("text")[: len(before)]
    assert texts == neighbors


@pytest.mark.parametrize("name", ["a.jsonl.zst", "a.csv.zst"])
def test_read_of_a_stream_broken_in_the_middle_fails_from_that_row_on(tmp_path: Path, name: str) -> None:
    rng = random.Random(0)
    rows = [{"id": f"{row:05}", "text": rng.randbytes(500).hex()} for row in range(4 * line_records.STREAM_CHUNK_BYTES // 1000)]
    path = write_rows(tmp_path / name, rows)
    whole, expected = path.read_bytes(), read_path(path, unit_bytes=10**6)
    middle = len(whole) * 3 // 4
    damage = b"\xff" * 2**18  # two blocks: within one, other bytes may be decoded to other text
    path.write_bytes(whole[:middle] + damage + whole[middle + len(damage) :])
    neighbors = with_neighbors(path)
    result = try_path(tmp_path, unit_bytes=10**6)
    (failure,) = result.failures
    check_tiles(pieces_of(result, path))
    (rest,) = failure.pieces
    assert len(rows) // 4 < rest.start_row < len(rows)
    assert failure.where == f"{path} from row {rest.start_row}"
    texts = texts_by_file(result)
    assert texts.pop(str(path)) == expected.column("text")[: rest.start_row]
    assert texts == neighbors
    # once it is whole again, a later run continues exactly there
    path.write_bytes(whole)
    files, settings = prepare(path, unit_bytes=10**6)
    (gap,) = gaps([piece for piece in result.pieces if piece.path == str(path)])
    assert (gap.start_row, gap.start_byte) == (rest.start_row, rest.start_byte)
    assert read_spans([Span(files[0], (gap,))], settings).column("text") == expected.column("text")[rest.start_row :]


@pytest.mark.parametrize("damage", ["cut off", "empty", "other bytes"])
def test_read_of_a_broken_parquet_fails_whole_and_the_others_are_read(tmp_path: Path, damage: str) -> None:
    path = write_parquet(tmp_path / "a.parquet", ROWS[:50])
    data = path.read_bytes()
    path.write_bytes({"cut off": data[:-100], "empty": b"", "other bytes": b"x" * len(data)}[damage])
    neighbors = with_neighbors(path)
    result = try_path(tmp_path)
    (failure,) = result.failures
    assert [place(piece) for piece in failure.pieces] == [failed_whole(path)]
    assert str(path) in failure.message
    assert texts_by_file(result) == neighbors


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.parquet", "a.jsonl.zst"])
def test_read_of_a_file_that_is_not_what_its_suffix_says_fails_with_its_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b'{"text": "a"}\n' * 100)
    storage, config = StorageConfig(), input_of(tmp_path / name)
    settings = ReadSettings(config, storage, OutputConfig(path="out"), pa.schema([]), UnitSizes(MEBIBYTE), "fingerprint")
    files, _ = find_inputs(config, Store(config.path))
    result = try_spans(spans_of(files), settings)
    (failure,) = result.failures
    assert name in failure.message
    assert result.units == []


def test_read_of_a_flipped_byte_in_parquet_fails_from_its_rows_on_instead_of_giving_other_text(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"text": [f"text {row}" for row in range(2000)]})
    settings: dict[str, Any] = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    pq.write_table(table, path, row_group_size=500, write_page_checksum=True, **settings)
    data = bytearray(path.read_bytes())
    data[data.index(b"text 1000") + 1] ^= 1
    path.write_bytes(data)
    result = try_path(path, unit_bytes=1)
    (failure,) = result.failures
    assert str(path) in failure.message
    check_tiles(pieces_of(result, path))
    assert result.column("text") == [f"text {row}" for row in range(1000)]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.csv", "a.parquet", "a.txt"])
@pytest.mark.parametrize("change", ["gone", "grown", "same size"])
def test_read_of_a_file_that_changed_since_it_was_listed_fails_whole(tmp_path: Path, name: str, change: str) -> None:
    path = write_rows(tmp_path / name, ROWS[:20])
    neighbors = with_neighbors(path)
    files, settings = prepare(tmp_path)
    path.unlink()
    if change != "gone":
        other = [{**row, "text": row["text"].replace("text", "tent")} for row in ROWS[: 20 if change == "same size" else 30]]
        write_rows(path, other)
    result = try_spans(spans_of(files), settings)
    (failure,) = result.failures
    assert [place(piece) for piece in failure.pieces] == [failed_whole(path)]
    assert str(path) in failure.message
    assert failure.store is False
    assert texts_by_file(result) == neighbors


def test_read_of_an_object_that_changed_or_went_since_it_was_listed_fails_whole_and_the_others_are_read() -> None:
    """Small objects are fetched together."""
    storage, folder = StorageConfig(), "memory://reading-failures"
    Store(folder, storage).put_many({f"{name}.jsonl": b'{"text": "%s"}\n' % name.encode() for name in "abcd"})
    try:
        files, settings = prepare(folder)
        Store(folder, storage).put_many({"b.jsonl": b'{"text": "another"}\n'})
        Store(folder, storage).delete(["c.jsonl"])
        result = try_spans(spans_of(files), settings)
    finally:
        Store(folder, storage).delete(f"{name}.jsonl" for name in "abd")
    assert result.column("text") == ["a", "d"]
    assert [failure.where for failure in result.failures] == [f"{folder}/b.jsonl", f"{folder}/c.jsonl"]
    assert [failure.error for failure in result.failures] == ["OSError", "FileNotFoundError"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_read_of_some_rows_of_a_file_that_is_gone_fails_with_these_only(tmp_path: Path, name: str) -> None:
    path = write_rows(tmp_path / name, ROWS[:20])
    files, settings = prepare(path)
    path.unlink()
    ends = (100, 200, 300) if name == "a.jsonl" else (0, None, 0)
    ranges = (Range(2, 5, ends[0], ends[1]), Range(9, None, ends[2], None))
    (failure,) = try_spans([Span(files[0], ranges)], settings).failures
    assert [place(piece)[1:] for piece in failure.pieces] == [
        (2, 5, False, ends[0], ends[1] or 0),
        (9, END_OF_FILE, True, ends[2], END_OF_FILE),
    ]


def deadly_files(folder: Path, deaths: dict[str, int]) -> None:
    """Four files of 40 rows; `deaths`: the row of a file that ends the process at work on it."""
    for name in ("a.jsonl", "b.jsonl", "c.jsonl", "d.jsonl"):
        texts = [DEADLY if deaths.get(name) == row else f"{name} {row:10}" for row in range(40)]
        write_jsonl(folder / name, [{"text": text} for text in texts])


def read_with_deaths(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[list[list[Unit | Failure]], AttemptCounts]:
    """What each process gave, until one of them has read to the end; the first one is given nothing, as by read_task."""
    read_record_blocks, attempts = line_records.read_record_blocks, AttemptCounts()

    def cut_or_die(*arguments: Any, **settings: Any) -> Iterator[line_records.RecordBlock]:
        for block in read_record_blocks(*arguments, **settings):
            if DEADLY.encode() in block.data:
                raise Killed
            yield block

    files, settings = prepare(folder, unit_bytes=300)
    monkeypatch.setattr(line_records, "read_record_blocks", cut_or_die)
    processes: list[list[Unit | Failure]] = []
    while len(processes) < 50:
        processes.append([])
        try:
            for done in read_units(spans_of(files), settings, attempts if len(processes) > 1 else None):
                processes[-1].append(done if isinstance(done, Failure) else done[0])
        except Killed:
            continue
        return processes, attempts
    raise AssertionError("it goes on for ever")


@pytest.mark.parametrize("deaths", [{"b.jsonl": 0}, {"b.jsonl": 25}, {"b.jsonl": 39}, {"a.jsonl": 3}, {"d.jsonl": 12}])
def test_read_by_processes_that_die_gives_the_deadly_file_up_and_the_others_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deaths: dict[str, int]
) -> None:
    deadly_files(tmp_path, deaths)
    processes, _ = read_with_deaths(tmp_path, monkeypatch)
    assert len(processes) == 1 + MAX_TRIES + 1
    *died, last = processes
    assert all(found == last[: len(found)] for found in died)  # what has gone on to the next stage stays true
    (failure,) = [done for done in last if isinstance(done, Failure)]
    assert (failure.error, failure.step) == (WORKER_DIED, "read")
    pieces = [piece for done in last for piece in done.pieces]
    ((name, row),) = deaths.items()
    (rest,) = failure.pieces
    assert rest.path == str(tmp_path / name)
    assert rest.start_row <= row
    assert row - rest.start_row < 10, "what comes before the deadly part is read"
    for other in ("a.jsonl", "b.jsonl", "c.jsonl", "d.jsonl"):
        check_tiles([piece for piece in pieces if piece.path == str(tmp_path / other)])


def test_read_with_several_deadly_files_gives_each_up_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that was given up is not tried again because another one kills."""
    deadly_files(tmp_path, {"a.jsonl": 20, "b.jsonl": 0, "d.jsonl": 39})
    processes, _ = read_with_deaths(tmp_path, monkeypatch)
    assert len(processes) == 1 + 3 * MAX_TRIES + 1
    *died, last = processes
    assert all(found == last[: len(found)] for found in died)
    failures = [done for done in last if isinstance(done, Failure)]
    assert [failure.pieces[0].path[-7:] for failure in failures] == ["a.jsonl", "b.jsonl", "d.jsonl"]
    check_tiles([piece for done in last for piece in done.pieces if piece.path.endswith("a.jsonl")])


def test_read_by_processes_that_die_while_units_wait_to_be_taken_gives_nothing_up(tmp_path: Path) -> None:
    """A reader may wait for hours until somebody takes what it has read; its node's death then says nothing about the file."""
    deadly_files(tmp_path, {})
    files, settings = prepare(tmp_path, unit_bytes=300)
    expected, attempts = read_spans(spans_of(files), settings).units, AttemptCounts()
    for taken in [*range(MAX_TRIES + 2), *[3] * (MAX_TRIES + 2)]:
        units = [done for done, _ in zip(read_units(spans_of(files), settings, attempts), range(taken), strict=False)]
        assert len(units) == taken
    assert try_spans(spans_of(files), settings, attempts).units == expected


def test_read_of_harmless_files_after_deaths_gives_the_same_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deadly_files(tmp_path, {})
    files, settings = prepare(tmp_path, unit_bytes=300)
    attempts = AttemptCounts()
    for _ in range(MAX_TRIES + 2):  # nothing is given up for having been read often
        assert try_spans(spans_of(files), settings, attempts).units == read_spans(spans_of(files), settings).units


@pytest.mark.parametrize("name", ["a.csv.gz", "a.jsonl.gz", "a.txt.gz", "a.txt.xz", "a.json.gz"])
@pytest.mark.parametrize("unit_bytes", [300, 10**6])
def test_whole_records_before_the_cut_of_a_small_compressed_file_are_read(tmp_path: Path, name: str, unit_bytes: int) -> None:
    """A quoted field with a newline in it is cut as well, and no part of it becomes a document or a reject."""
    rng = random.Random(3)
    rows = [{"id": str(row), "text": f"{rng.randbytes(40).hex()} and more"} for row in range(60)]
    lines = [json.dumps(row) for row in rows]
    content = {
        "csv": "id,text\n" + "".join(f'{row["id"]},"{row["text"]}\n{row["text"]}"\n' for row in rows),
        "jsonl": "\n".join(lines),
        "txt": "\n".join(row["text"] for row in rows),
        "json": f"[{','.join(lines)}]",
    }[name.split(".")[1]]
    data = (gzip if name.endswith("gz") else lzma).compress(content.encode())
    path = tmp_path / name
    path.write_bytes(data)
    expected = read_path(path).column("text")
    path.write_bytes(data[: len(data) * 2 // 3])
    result = try_path(path, unit_bytes=unit_bytes)
    (failure,) = result.failures
    assert "truncated: it ends within a frame; fetch the file again" in failure.message
    texts = [document["text"] for document in result.documents]
    assert texts == expected[: len(texts)]
    assert 15 < len(texts) < 50
    assert (failure.pieces[0].start_row, result.rejects) == (len(texts), [])


def test_cut_file_that_is_one_document_is_no_shorter_document(tmp_path: Path) -> None:
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(random.Random(3).randbytes(4000).hex().encode())[:-100])
    result = try_path(tmp_path, text_unit="file")
    assert (result.documents, len(result.failures)) == ([], 1)
