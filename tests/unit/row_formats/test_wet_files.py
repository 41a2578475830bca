"""WET: columns, compression, damages; WARC files of pages are refused."""

import gzip
from pathlib import Path

import pytest

from tests.support.corpora import warc_record, wet_records, write_wet
from tests.support.reading_path import read_path, try_path

TEXTS = [f"text {row}\r\n\r\nof several lines, é" * 10 for row in range(50)]


@pytest.mark.parametrize("name", ["a.wet", "a.warc.wet.gz", "a.wet.gz", "a.warc"])
def test_wet_gives_texts_and_what_their_headers_say(tmp_path: Path, name: str) -> None:
    path = write_wet(tmp_path / name, TEXTS)
    result = read_path(path)
    assert result.column("text") == TEXTS
    assert result.documents[3] == {
        "text": TEXTS[3],
        "url": "https://example.org/3",
        "date": "2024-05-01T12:00:00Z",
        "record_id": "<urn:uuid:4>",
        "language": "eng",
        "source_file": str(path),
        "source_row": 3,
    }


def test_wet_in_one_gzip_member_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.wet.gz").write_bytes(gzip.compress(b"".join(wet_records(TEXTS))))
    assert read_path(tmp_path, unit_bytes=2000).column("text") == TEXTS


def test_wet_text_that_is_no_utf8_is_rejected(tmp_path: Path) -> None:
    records = [*wet_records(["a", "b"]), warc_record("conversion", b"\xff"), *wet_records(["c"])[1:]]
    (tmp_path / "a.wet").write_bytes(b"".join(records))
    result = read_path(tmp_path)
    assert result.column("text") == ["a", "b", "c"]
    assert result.column("source_row") == [0, 1, 3]
    assert result.rejected == [(2, "undecodable")]


def test_header_that_goes_on_in_the_next_line_is_one(tmp_path: Path) -> None:
    record = warc_record("conversion", b"a", WARC_Target_URI="https://example.org/\r\n  b")
    (tmp_path / "a.wet").write_bytes(record)
    assert read_path(tmp_path).column("url") == ["https://example.org/ b"]


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("wrong", [-3, 3, 200])
def test_wrong_content_length_is_a_failure_and_no_other_text(tmp_path: Path, compressed: bool, wrong: int) -> None:
    records = wet_records(TEXTS)
    block = TEXTS[20].encode()
    records[21] = warc_record("conversion", block, length=len(block) + wrong)
    data = b"".join(map(gzip.compress, records) if compressed else records)
    (tmp_path / ("a.wet.gz" if compressed else "a.wet")).write_bytes(data)
    result = try_path(tmp_path)
    assert result.column("text") == TEXTS[:20]
    (failure,) = result.failures
    assert failure.pieces[0].start_row == 20


@pytest.mark.parametrize("cut", [1, 3, 100, 600])
def test_wet_that_is_cut_gives_whole_records_and_a_failure(tmp_path: Path, cut: int) -> None:
    path = write_wet(tmp_path / "a.wet", TEXTS)
    path.write_bytes(path.read_bytes()[:-cut])
    result = try_path(path)
    assert result.column("text") == TEXTS[: 49 if cut < 600 else 48]
    assert len(result.failures) == 1
    assert not any(piece.last for piece in result.pieces)


@pytest.mark.parametrize("cut", [5, 100])
def test_gzip_that_is_cut_is_a_failure(tmp_path: Path, cut: int) -> None:
    path = write_wet(tmp_path / "a.wet.gz", TEXTS)
    path.write_bytes(path.read_bytes()[:-cut])
    result = try_path(path)
    read = result.column("text")
    assert read == TEXTS[: len(read)]
    assert len(result.failures) == 1


@pytest.mark.parametrize("kind", ["response", "request", "metadata"])
def test_warc_of_pages_is_refused_with_the_remedy(tmp_path: Path, kind: str) -> None:
    page = warc_record(kind, b"HTTP/1.1 200 OK\r\n\r\n<html></html>")
    (tmp_path / "a.warc.gz").write_bytes(gzip.compress(wet_records([])[0]) + gzip.compress(page))
    message = try_path(tmp_path).failures[0].message
    assert f"a record of type {kind}" in message
    assert "give the WET files" in message


def test_wet_without_records_has_no_documents(tmp_path: Path) -> None:
    (tmp_path / "a.wet").write_bytes(b"")
    result = read_path(tmp_path)
    assert result.documents == []
    assert result.pieces[-1].last
