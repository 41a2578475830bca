"""Files -> units of documents and rejects: every format, however the file is cut, read once or continued."""

import bz2
import gzip
import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline_ops.output.commit_log import gaps, pieces_by_file
from pipeline_ops.planning.work_plan import make_plan
from pipeline_ops.reading.spans import Span, spans_from_json, spans_to_json
from pipeline_ops.schema.units import Range
from pipeline_ops.writing.commit_record import Commit
from tests.support.corpora import real_documents, write_bytes, write_jsonl, write_parquet, write_text
from tests.support.reading_path import MEBIBYTE, Result, prepare, read_path, read_spans, spans_of, try_path, write_rows
from tests.support.tiers import mostly_slow

UNIT_BYTES = (1, 7, 100, 10_000, 10**9)
LINE_FILES = (
    *("a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.jsonl.bz2", "a.jsonl.xz", "a.jsonl.zip"),
    *("a.csv", "a.csv.gz", "a.csv.lz4", "a.tsv.zst", "a.txt", "a.txt.bz2"),
)
KEPT = ["none", "first", "last", "every second", "all but one", "all"]  # of the units, by commits
ROW_FILES = ("a.arrow", "a.feather", "a.orc", "a.avro", "a.wet", "a.warc.wet.gz")


def random_rows(count: int, seed: int) -> list[dict[str, Any]]:
    """Rows of short texts, among them empty ones and such with line ends, separators and quotes."""
    rng = random.Random(seed)
    words = ["a", "word", "000", "é", "🤗", "\u2028", "\x85", "\x0c", ",", '"', "\t", "'"]
    return [{"id": f"{row:05}", "text": " ".join(rng.choices(words, k=rng.randrange(12)))} for row in range(count)]


def commit_of(result: Result, index: int) -> Commit:
    """What the commit of one of the units that were read says about its input."""
    unit, rows = result.units[index], result.tables[index].num_rows
    return Commit(unit.id, "attempt", unit.pieces, (), None, rows, 0, 0, 0, 0, {})


def check_tiles(result: Result, num_rows: int) -> None:
    pieces = result.pieces
    assert [piece.start_row for piece in pieces] == [0, *(piece.stop_row for piece in pieces[:-1])]
    assert pieces[-1].stop_row == num_rows
    assert [piece.last for piece in pieces] == [False] * (len(pieces) - 1) + [True]


@pytest.mark.parametrize("name", [*LINE_FILES, *ROW_FILES, "a.parquet", "a.ndjson", "a.json", "a.csv.bz2", "a.text"])
def test_read_of_a_format_gives_every_row_once_in_order(tmp_path: Path, name: str) -> None:
    rows = [{"id": f"{row:03}", "text": text} for row, text in enumerate(real_documents(60))]
    if ".wet" in name:
        path = write_rows(tmp_path / name, rows)
        headers = {"date": "2024-05-01T12:00:00Z", "language": "eng"}
        others = [
            {"url": f"https://example.org/{row}", "record_id": f"<urn:uuid:{row + 1}>", **headers} for row in range(len(rows))
        ]
        rows = [{"text": row["text"], **more} for row, more in zip(rows, others, strict=True)]
    elif ".txt" in name or ".text" in name:
        rows = [{"text": " ".join(row["text"].split("\n")).replace("\r", "")} for row in rows]
        path = write_text(tmp_path / name, [row["text"] for row in rows])
    else:
        path = write_rows(tmp_path / name, rows)
    result = read_path(path)
    assert result.rejects == []
    expected = [{**row, "source_file": str(path), "source_row": index} for index, row in enumerate(rows)]
    assert result.documents == expected


@pytest.mark.parametrize("name", [*LINE_FILES, *ROW_FILES])
@pytest.mark.parametrize("seed", mostly_slow([1, 2], quick=[1]))
def test_read_of_a_file_does_not_depend_on_unit_bytes(tmp_path: Path, name: str, seed: int) -> None:
    rows = random_rows(40, seed)
    path = write_rows(tmp_path / name, rows)
    for unit_bytes in UNIT_BYTES:
        result = read_path(path, unit_bytes=unit_bytes)
        assert result.column("text") == [row["text"] for row in rows]
        assert result.column("source_row") == list(range(40))
        check_tiles(result, 40)
        assert len({unit.id for unit in result.units}) == len(result.units)


@pytest.mark.parametrize("seed", [1, 2])
def test_read_of_a_damaged_file_gives_the_same_rejects_for_all_unit_bytes(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    good = [json.dumps(row) for row in random_rows(40, seed)]
    damaged = ["{broken", '{"text": 5}', '{"text": null}', "", "[]", '{"id": "x"}', '{"text": "a"} {"text": "b"}']
    lines = good + damaged
    rng.shuffle(lines)
    path = write_bytes(tmp_path / "a.jsonl.zst", "\n".join(lines).encode())
    expected = read_path(path, unit_bytes=10**9)
    assert len(expected.documents) == 40
    assert len(expected.rejects) == len(damaged) - 1  # the blank line is no document
    for unit_bytes in UNIT_BYTES:
        result = read_path(path, unit_bytes=unit_bytes)
        assert result.documents == expected.documents
        assert result.rejected == expected.rejected


def test_read_again_gives_the_same_units(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.csv.gz", random_rows(200, 3))
    assert read_path(path, unit_bytes=300).units == read_path(path, unit_bytes=300).units


def test_read_of_another_fingerprint_gives_other_units(tmp_path: Path) -> None:
    files, settings = prepare(write_rows(tmp_path / "a.jsonl", random_rows(5, 3)))
    spans = spans_of(files)
    other = type(settings)(**{**vars(settings), "fingerprint": "another"})
    assert read_spans(spans, settings).units[0].id != read_spans(spans, other).units[0].id


@pytest.mark.parametrize("name", [*LINE_FILES, *ROW_FILES, "a.parquet"])
@pytest.mark.parametrize("kept", mostly_slow(KEPT, quick=["first", "every second"]))
def test_read_after_an_interruption_gives_exactly_the_rest(tmp_path: Path, name: str, kept: str) -> None:
    rows = random_rows(90, 5)
    path = write_rows(tmp_path / name, rows)
    unit_bytes = 250
    files, settings = prepare(path, unit_bytes=unit_bytes)

    def plan_and_read(commits: dict[str, Commit], unit_bytes: int) -> Result:
        options: Any = {"text_columns": ("text",), "output": settings.output, "store": settings.store}
        plan = make_plan(files, commits, unit_bytes=unit_bytes, **options)
        results = [read_spans(list(task), settings) for task in plan.tasks]
        return Result(
            [unit for result in results for unit in result.units],
            [table for result in results for table in result.tables],
            [reject for result in results for reject in result.rejects],
        )

    first = plan_and_read({}, unit_bytes)
    assert first.column("text") == [row["text"] for row in rows]
    count = len(first.units)
    assert count > 3
    chosen = {
        "none": [],
        "first": [0],
        "last": [count - 1],
        "every second": list(range(0, count, 2)),
        "all but one": [index for index in range(count) if index != count // 2],
        "all": list(range(count)),
    }[kept]
    commits = {first.units[index].id: commit_of(first, index) for index in chosen}
    done = {row for index in chosen for row in first.tables[index]["source_row"].to_pylist()}
    rest = plan_and_read(commits, 3 * unit_bytes)

    assert sorted(rest.column("source_row")) == [row for row in range(90) if row not in done]
    assert [row["text"] for row in rest.documents] == [rows[row["source_row"]]["text"] for row in rest.documents]
    commits |= {unit.id: commit_of(rest, index) for index, unit in enumerate(rest.units)}
    assert gaps(pieces_by_file(commits.values())[str(path)]) == []


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv.gz"])
def test_read_after_an_interruption_behind_rejects_and_blank_lines_keeps_row_numbers(tmp_path: Path, name: str) -> None:
    good = [json.dumps({"text": str(row)}) if "json" in name else str(row) for row in range(30)]
    lines = [line for row, line in enumerate(good) for line in ([line, "", "\xff"] if row % 3 else [line])]
    header = ["text"] if "csv" in name else []
    path = write_bytes(tmp_path / name, "\n".join([*header, *lines]).encode("latin-1"))
    files, settings = prepare(path, unit_bytes=40)
    whole = read_spans(spans_of(files), settings)
    half = len(whole.units) // 2
    pieces = [piece for unit in whole.units[:half] for piece in unit.pieces]
    rest = read_spans([Span(files[0], tuple(gaps(pieces)))], settings)
    assert rest.documents == whole.documents[-len(rest.documents) :]
    start = rest.pieces[0].start_row
    assert rest.rejected == [(row, reason) for row, reason in whole.rejected if row >= start]


def test_read_of_one_huge_row_group_is_cut_into_row_ranges(tmp_path: Path) -> None:
    rows = random_rows(5000, 7)
    path = write_parquet(tmp_path / "a.parquet", rows, row_group_size=5000)
    files, settings = prepare(path, unit_bytes=8_000)
    options: Any = {"text_columns": ("text",), "output": settings.output, "store": settings.store}
    plan = make_plan(files, {}, unit_bytes=8_000, **options)
    results = [read_spans(list(task), settings) for task in plan.tasks]
    tables = [table for result in results for table in result.tables]
    assert max(table.num_rows for table in tables) < 2500
    assert [text for table in tables for text in table["text"].to_pylist()] == [row["text"] for row in rows]
    assert [row for table in tables for row in table["source_row"].to_pylist()] == list(range(5000))


@pytest.mark.parametrize("extra", [b"", b"\n"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.zst"])
def test_read_of_a_last_line_without_newline_gives_it(tmp_path: Path, name: str, extra: bytes) -> None:
    path = write_bytes(tmp_path / name, b'{"text": "a"}\n{"text": "b"}' + extra)
    assert read_path(path).column("text") == ["a", "b"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.csv", "a.csv.zst", "a.txt", "a.txt.bz2"])
def test_read_of_an_empty_file_gives_a_complete_piece_without_rows(tmp_path: Path, name: str) -> None:
    result = read_path(write_bytes(tmp_path / name, b""))
    assert (result.documents, result.rejects) == ([], [])
    check_tiles(result, 0)


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.csv.zst", "a.txt.bz2"])
def test_compressed_file_of_no_bytes_is_quarantined(tmp_path: Path, name: str) -> None:
    """Compressed, no documents are some bytes: a file of none was not written to its end."""
    (tmp_path / name).write_bytes(b"")
    write_bytes(tmp_path / f"b{name[1:]}", b"")
    result = try_path(tmp_path)
    assert [(failure.where, "is empty" in failure.message) for failure in result.failures] == [(str(tmp_path / name), True)]


@pytest.mark.parametrize("data", [b"text\n", b"text", b"\xef\xbb\xbftext\r\n"])
def test_read_of_a_csv_with_only_a_header_gives_a_complete_piece_without_rows(tmp_path: Path, data: bytes) -> None:
    result = read_path(write_bytes(tmp_path / "a.csv", data))
    assert (result.documents, result.rejects) == ([], [])
    check_tiles(result, 0)


def test_read_of_a_parquet_without_rows_gives_a_complete_piece_without_rows(tmp_path: Path) -> None:
    result = read_path(write_parquet(tmp_path / "a.parquet", pa.table({"text": pa.array([], pa.string())})))
    assert (result.documents, result.rejects) == ([], [])
    check_tiles(result, 0)


def test_read_of_a_file_with_only_blank_lines_completes_it(tmp_path: Path) -> None:
    result = read_path(write_bytes(tmp_path / "a.jsonl", b"\n\n \n"), unit_bytes=1)
    assert (result.documents, result.rejects) == ([], [])
    check_tiles(result, 3)


@pytest.mark.parametrize(("name", "end"), [("a.jsonl", b"\r\n"), ("a.csv", b"\r\n"), ("a.txt", b"\r\n"), ("a.jsonl", b"\n")])
def test_read_with_either_line_end_and_a_byte_order_mark_gives_the_texts(tmp_path: Path, name: str, end: bytes) -> None:
    lines = [b'{"text": "a"}', b'{"text": "b"}'] if "json" in name else [b"a", b"b"]
    header = [b"text"] if "csv" in name else []
    path = write_bytes(tmp_path / name, b"\xef\xbb\xbf" + end.join([*header, *lines]) + end)
    assert read_path(path, unit_bytes=1).column("text") == ["a", "b"]


def test_read_of_text_rejects_undecodable_lines_and_keeps_blank_ones(tmp_path: Path) -> None:
    result = read_path(write_bytes(tmp_path / "a.txt", b"a\n\xff\xfe\n\n \nb\n"))
    assert result.column("text") == ["a", "", " ", "b"]
    assert result.column("source_row") == [0, 2, 3, 4]
    assert result.rejected == [(1, "undecodable")]


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_read_of_a_text_file_as_one_document_keeps_its_lines(tmp_path: Path, name: str) -> None:
    path = write_bytes(tmp_path / name, b"\xef\xbb\xbfone\r\ntwo\n\n")
    result = read_path(path, text_unit="file")
    assert result.documents == [{"text": "one\r\ntwo\n\n", "source_file": str(path), "source_row": 0}]
    check_tiles(result, 1)


def test_read_of_text_files_as_documents_rejects_the_undecodable_one(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a.txt", b"\xff")
    write_bytes(tmp_path / "b.txt", b"")
    result = read_path(tmp_path, text_unit="file")
    assert result.column("text") == [""]
    assert [(reject.source_file, reject.reason) for reject in result.rejects] == [(f"{tmp_path}/a.txt", "undecodable")]


def test_read_of_json_separates_what_has_no_usable_text(tmp_path: Path) -> None:
    lines = [
        b'{"text": "a"}',
        b'{"text": null}',
        b"{}",
        b'{"text": 5}',
        b"{broken",
        b'{"text": "\xff"}',
        b"",
        b'{"text": ""}',
    ]
    result = read_path(write_bytes(tmp_path / "a.jsonl", b"\n".join(lines)))
    assert result.column("text") == ["a", ""]
    assert result.column("source_row") == [0, 7]
    assert sorted(result.rejected) == [
        (1, "null_text"),
        (2, "null_text"),
        (3, "not_a_string"),
        (4, "broken_json"),
        (5, "undecodable"),
    ]
    assert all(reject.detail for reject in result.rejects)


def test_read_of_a_file_with_only_rejects_gives_no_document(tmp_path: Path) -> None:
    result = read_path(write_bytes(tmp_path / "a.jsonl", b"{broken\nbroken\n"))
    assert result.documents == []
    assert result.rejected == [(0, "broken_json"), (1, "broken_json")]
    check_tiles(result, 2)


def test_read_with_min_characters_rejects_shorter_texts(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"text": text} for text in ("", "  ab  ", "abc", "é🤗ü", None)])
    result = read_path(path, min_characters=3)
    assert result.column("text") == ["abc", "é🤗ü"]
    assert result.rejected == [(0, "too_short"), (1, "too_short"), (4, "null_text")]


def test_read_of_files_with_different_columns_gives_one_type_per_column(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", [{"text": "a", "id": 1}])
    write_parquet(tmp_path / "b.parquet", [{"text": "b", "id": "x", "more": 1.5}])
    (table,) = read_path(tmp_path).tables
    assert table.schema.types[:3] == [pa.string(), pa.string(), pa.float64()]
    assert table.select(["id", "more"]).to_pylist() == [{"id": "1", "more": None}, {"id": "x", "more": 1.5}]


def test_read_of_small_files_puts_them_together_up_to_unit_bytes(tmp_path: Path) -> None:
    for index in range(20):
        write_jsonl(tmp_path / f"{index:02}.jsonl", [{"text": "x" * 100}])
    assert len(read_path(tmp_path, unit_bytes=MEBIBYTE).units) == 1
    few = read_path(tmp_path, unit_bytes=1500)
    assert 1 < len(few.units) < 20
    assert len(few.pieces) == 20


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst", "a.jsonl.bz2"])
def test_read_of_concatenated_members_gives_them_all(tmp_path: Path, name: str) -> None:
    lines = [f'{{"text": "{row}"}}\n'.encode() for row in range(9)]
    members = []
    for part in range(3):
        part_path = write_bytes(tmp_path / "parts" / f"{part}-{name}", b"".join(lines[3 * part : 3 * part + 3]))
        members.append(part_path.read_bytes())
    (tmp_path / name).write_bytes(b"".join(members))
    for unit_bytes in UNIT_BYTES:
        assert read_path(tmp_path / name, unit_bytes=unit_bytes).column("text") == [str(row) for row in range(9)]


@pytest.mark.parametrize(("name", "compress"), [("a.jsonl.gz", gzip.compress), ("a.jsonl.bz2", bz2.compress)])
def test_read_of_what_python_compressed_gives_it(tmp_path: Path, name: str, compress) -> None:
    (tmp_path / name).write_bytes(compress(b'{"text": "a"}\n'))
    assert read_path(tmp_path / name).column("text") == ["a"]


def test_spans_as_json_come_back_the_same(tmp_path: Path) -> None:
    write_rows(tmp_path / "ü.jsonl.gz", random_rows(3, 1))
    files, _ = prepare(tmp_path)
    spans = [Span(files[0], (Range(0, 3, 0, 90), Range(7, None, 200, None)))]
    assert spans_from_json(spans_to_json(spans)) == spans
