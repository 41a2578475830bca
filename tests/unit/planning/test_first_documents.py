"""Which documents a trial labels: exactly the first ones, whatever the format, read without reading the rest."""

import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline_ops.inputs.config import InputConfig
from pipeline_ops.inputs.listing import find_inputs
from pipeline_ops.planning.first_documents import first_documents
from pipeline_ops.reading.reader import read_pieces
from pipeline_ops.reading.spans import Span
from pipeline_ops.schema.failures import Failure
from pipeline_ops.storage.store import Store
from tests.support.corpora import write_bytes, write_csv, write_jsonl, write_parquet, write_text
from tests.support.reading_path import prepare

ROWS = 40
TEXTS = [f'document {row}, with a comma, a "quote"\nand a line end' for row in range(ROWS)]
LINES = [f"document {row}" for row in range(ROWS)]


def jsonl_with_blank_and_broken_lines(path: Path) -> Path:
    """A blank line, which is no document, before each line; every tenth document is broken JSON."""
    lines = [f'\n{{"text": "document {row}"}}\n' if row % 10 else f"\n{{broken {row}\n" for row in range(ROWS)]
    return write_bytes(path, "".join(lines).encode())


WRITERS: dict[str, Callable[[Path], Path]] = {
    "a.jsonl": lambda path: write_jsonl(path, [{"text": text} for text in TEXTS]),
    "a.jsonl.gz": jsonl_with_blank_and_broken_lines,
    "a.csv": lambda path: write_csv(path, [{"text": text, "n": row} for row, text in enumerate(TEXTS)]),
    "a.csv.zst": lambda path: write_csv(path, [{"text": text, "n": row} for row, text in enumerate(TEXTS)]),
    "a.txt.bz2": lambda path: write_text(path, LINES),
    "a.parquet": lambda path: write_parquet(path, [{"text": text} for text in TEXTS], row_group_size=7),
}


def read_first(folder: Path, limit: int, unit_bytes: int = 300) -> list[tuple[str, int]]:
    """(file's name, row) of the documents and rejects that the job's reader gives for a trial's files."""
    files, settings = prepare(folder, unit_bytes=unit_bytes)
    first = first_documents(files, limit, settings.input, settings.store)
    found = []
    for file in first.files:
        for part in read_pieces([Span(file, (file.rows,))], settings):
            assert not isinstance(part, Failure), part
            table, rejects = part.documents, part.rejects
            name = Path(file.path).name
            found += [(name, row) for row in [*table["source_row"].to_pylist(), *(reject.source_row for reject in rejects)]]
    assert len(found) == first.documents
    return sorted(found)


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("limit", [1, 13, ROWS - 1, ROWS, ROWS + 1])
def test_first_documents_of_a_file_are_its_first_ones(tmp_path: Path, name: str, limit: int):
    WRITERS[name](tmp_path / name)
    everything = read_first(tmp_path, 10**9)
    assert len(everything) == ROWS
    assert read_first(tmp_path, limit) == everything[:limit]
    assert read_first(tmp_path, limit, unit_bytes=10**6) == everything[:limit]


def test_first_documents_go_on_with_the_next_file_and_leave_the_others_closed(tmp_path: Path):
    write_parquet(tmp_path / "a.parquet", [{"text": text} for text in TEXTS[:10]])
    write_jsonl(tmp_path / "b.jsonl", [{"text": text} for text in TEXTS[:10]])
    write_bytes(tmp_path / "c.jsonl", b"")
    write_text(tmp_path / "d.txt", LINES)
    write_bytes(tmp_path / "e.parquet", b"no Parquet, and never opened")
    expected = [("a.parquet", row) for row in range(10)] + [("b.jsonl", row) for row in range(10)]
    assert read_first(tmp_path, 15) == expected[:15]
    assert read_first(tmp_path, 25) == expected + [("d.txt", row) for row in range(5)]


def test_first_documents_of_texts_that_are_a_document_per_file_are_the_first_files(tmp_path: Path):
    for name in "abcd":
        write_bytes(tmp_path / f"{name}.txt", b"one\ndocument\n")
    config = InputConfig(path=str(tmp_path), text_unit="file")
    store = Store(config.path)
    first = first_documents(find_inputs(config, store)[0], 3, config, store)
    assert ([Path(file.path).name for file in first.files], first.documents) == (["a.txt", "b.txt", "c.txt"], 3)


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_first_documents_of_a_large_file_are_found_without_reading_to_its_damaged_end(tmp_path: Path, suffix: str):
    rng = random.Random(0)
    rows = [{"text": f"{row} {rng.randbytes(500).hex()}"} for row in range(10_000)]
    path = write_jsonl(tmp_path / f"a.jsonl{suffix}", rows)
    files, settings = prepare(tmp_path)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 2 * 2**20)
    os.utime(path, ns=(0, 0))  # if the listing were of an earlier version, nothing of the file would be read
    files = find_inputs(settings.input, settings.store)[0]
    first = first_documents(files, 100, settings.input, settings.store)
    assert (first.documents, first.files[0].stop_row) == (100, 100)
    assert first.files[0].stop_byte == sum(len(json.dumps(row)) + 1 for row in rows[:100])


def test_first_documents_of_a_damaged_file_are_those_before_the_damage_and_its_reader_says_why(tmp_path: Path):
    good = write_jsonl(tmp_path / "a.jsonl.gz", [{"text": text} for text in TEXTS])
    good.write_bytes(good.read_bytes()[:40])
    write_bytes(tmp_path / "b.parquet", b"no Parquet")
    write_text(tmp_path / "c.txt", LINES)
    config = InputConfig(path=str(tmp_path))
    store = Store(config.path)
    first = first_documents(find_inputs(config, store)[0], 3, config, store)
    assert [Path(file.path).name for file in first.files] == ["a.jsonl.gz", "b.parquet", "c.txt"]
    assert first.documents == 3
    assert [file.stop_row for file in first.files] == [None, None, 3]
