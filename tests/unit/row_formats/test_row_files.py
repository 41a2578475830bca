"""What all formats of typed rows that are read from front to back have in common: places, sizes, object stores."""

from pathlib import Path
from typing import cast

import pyarrow as pa
import pytest

from pipeline_ops.inputs.input_files import InputFile
from pipeline_ops.planning.first_documents import first_documents
from pipeline_ops.reading import reader
from pipeline_ops.reading.corpus_profile import profile_corpus
from pipeline_ops.row_formats.row_files import ROW_FORMATS, open_row_file
from pipeline_ops.schema.errors import StoreError
from pipeline_ops.schema.units import Range
from pipeline_ops.storage.config import StorageConfig
from pipeline_ops.storage.store import Store, StoredFile
from tests.conftest import Bucket
from tests.support.corpora import real_documents, write_arrow, write_orc, write_wet
from tests.support.reading_path import input_of, prepare, read_path, write_rows

NAMES = ("a.arrow", "a.feather", "a.orc", "a.avro", "a.warc.wet.gz")
ROWS = [{"id": str(row), "text": text} for row, text in enumerate(real_documents(200))]


def opened(path: Path) -> tuple[InputFile, Store]:
    files, settings = prepare(path)
    return files[0], settings.store


def test_each_format_is_known_by_its_suffix(tmp_path: Path) -> None:
    assert {opened(write_rows(tmp_path / name, ROWS))[0].format for name in NAMES} == ROW_FORMATS.keys()


@pytest.mark.parametrize("name", NAMES)
def test_blocks_of_any_range_have_its_rows(tmp_path: Path, name: str) -> None:
    file, store = opened(write_rows(tmp_path / name, ROWS))
    for rows in (
        Range(0, None),
        Range(57, None),
        Range(57, 130),
        Range(0, 1),
        Range(199, None),
        Range(199, 200),
        Range(200, None),
    ):
        with open_row_file(file, store) as source:
            blocks = [*source.read_blocks(rows, 3000, ["text"])]
        stop = len(ROWS) if rows.stop_row is None else rows.stop_row
        read = [text for block in blocks for text in block.table.column("text").to_pylist()]
        assert read == [row["text"] for row in ROWS[rows.start_row : stop]]
        assert [block.last for block in blocks] == [False] * (len(blocks) - 1) + [rows.stop_row is None]
        assert all(block.stop_row - block.start_row == block.table.num_rows for block in blocks)
        places = [place for block in blocks if block.table.num_rows for place in block.stored]
        assert places == sorted(places)
        assert not places or 0 <= places[0] <= places[-1] <= file.stored.size


@pytest.mark.parametrize("name", NAMES)
def test_file_without_rows_is_one_empty_piece(tmp_path: Path, name: str) -> None:
    path = write_rows(tmp_path / name, ROWS[:1])
    if name.endswith((".arrow", ".feather")):
        write_arrow(path, pa.table({"text": pa.array([], pa.string())}))
    elif name.endswith(".orc"):
        write_orc(path, pa.table({"text": pa.array([], pa.string())}))
    elif name.endswith(".avro"):
        path.write_bytes(path.read_bytes().partition(b"0123456789abcdef")[0] + b"0123456789abcdef")
    else:
        write_wet(path, [])
    result = read_path(path)
    assert result.documents == []
    assert [(piece.start_row, piece.stop_row, piece.last) for piece in result.pieces] == [(0, 0, True)]


@pytest.mark.parametrize("name", NAMES)
def test_profile_counts_a_small_file_and_estimates_a_large_one(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_rows(tmp_path / name, ROWS)
    profile = profile_corpus(input_of(path), Store(str(path)))
    assert (profile.documents_with("text"), profile.counted) == (200, True)
    assert len(profile.texts["text"]) == 200
    monkeypatch.setattr("pipeline_ops.reading.corpus_profile.PROFILE_BYTES", 20_000)
    profile = profile_corpus(input_of(path), Store(str(path)))
    assert not profile.counted
    assert 50 < profile.documents_with("text") < 800


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("limit", [1, 57, 199, 200, 1000])
def test_first_documents_are_cut_by_rows(tmp_path: Path, name: str, limit: int) -> None:
    file, store = opened(write_rows(tmp_path / name, ROWS))
    first = first_documents([file], limit, input_of(file.path), store)
    assert (first.documents, first.files[0].stop_row) == (min(limit, 200), limit if limit < 200 else None)


@pytest.mark.slow
@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_read_from_an_object_store(tmp_path: Path, s3: Bucket, name: str, whole: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not whole:
        monkeypatch.setattr(reader, "PREFETCHED_BYTES", 0)
        monkeypatch.setattr(reader, "SINGLE_REQUEST_BYTES", 0)
    path = write_rows(tmp_path / name, ROWS)
    s3.filesystem.put_file(str(path), f"{s3.name}/in/{name}")
    result = read_path(f"{s3.url}/in", storage=StorageConfig(endpoint_url=s3.endpoint_url), unit_bytes=10_000)
    assert result.column("text") == [row["text"] for row in ROWS]


class FailingStore:
    """A store of one file, of which a read fails."""

    def __init__(self, path: Path, good_reads: int):
        self.path, self.left = path, good_reads

    def open(self, stored: StoredFile, *, sequential: bool) -> "FailingStore":
        self.source = self.path.open("rb")
        self.seek, self.tell = self.source.seek, self.source.tell
        self.closed = False
        return self

    def read(self, size: int = -1) -> bytes:
        self.left -= 1
        if self.left < 0:
            raise StoreError("the store is away")
        return self.source.read(size)

    def __enter__(self) -> "FailingStore":
        return self

    def __exit__(self, *_: object) -> None:
        self.source.close()


@pytest.mark.parametrize("name", NAMES)
def test_error_of_the_store_is_not_taken_for_a_damaged_file(tmp_path: Path, name: str) -> None:
    """Some of the libraries replace it by an error of their own, after which the run would quarantine the file and go on."""
    path = write_rows(tmp_path / name, ROWS)
    file, _ = opened(path)

    def read_with(good_reads: int) -> bool:
        try:
            with open_row_file(file, cast(Store, FailingStore(path, good_reads))) as source:
                return [block.stop_row for block in source.read_blocks(Range(0, None), 10**9)] == [200]
        except StoreError:
            return False

    assert not any(map(read_with, range(2)))
    assert read_with(10_000)
    for good_reads in range(2, 20):
        read_with(good_reads)  # any other exception fails this test
