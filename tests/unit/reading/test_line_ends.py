"""Files whose lines end with a carriage return alone, and carriage returns that end no line."""

import codecs
import gzip
import time
from pathlib import Path
from unittest import mock

import pytest

from jobs.maintenance.verify import count_documents
from pipeline_ops.planning.first_documents import first_documents
from tests.support.corpora import write_bytes
from tests.support.reading_path import prepare, read_spans, spans_of
from tests.unit.reading.test_decoded_files import texts_of, try_bytes

CARRIAGE_RETURNS = {
    "a.csv": b"name,text\ra,1\rb,2\r",
    "b.csv": b'name,text\ra,1\rb,"2"',
    "c.jsonl": b'{"text": "1"}\r{"text": "2"}\r',
    "d.txt": b"1\r2\r",
    "e.txt": b"1\r2",
    "f.tsv.gz": gzip.compress(b"name\ttext\ra\t1\rb\t2\r"),
    "g.csv": b"name,text\r\na,1\r\nb,2\r\n",
    "h.txt": codecs.BOM_UTF8 + b"1\r2\r",
    "i.csv": b"name,text\ra,1\rb,2\n",
    "j.csv": b'name,text\r"Excel\nfor Mac",1\r"b\r\nc",2\r',
    "k.csv": b'"name\n(first)","text"\r"a","1"\r"b","2"\n',
    "l.txt": b"1\r2\n",
    "m.csv": b'name,text\r\r\na,1\r\r\n\r\r\n"b","2"\r\r\n',
}


def test_blank_lines_before_a_header_cost_as_much_as_their_bytes(tmp_path: Path) -> None:
    data = b"\n" * 2000 + b"text\n" + b"0123456789 and so on\n" * 200_000
    began = time.process_time()
    _, settings = prepare(write_bytes(tmp_path / "a.csv", data), unit_bytes=2**24)
    assert settings.column_types.names == ["text"]
    assert time.process_time() - began < 2


def test_newlines_in_quoted_fields_stay_where_carriage_returns_end_records(tmp_path: Path) -> None:
    data = b'text,id\r"a\nb",1\r"c\r\nd",2\r'
    with mock.patch("pipeline_ops.line_formats.line_records.STREAM_CHUNK_BYTES", 1):
        assert texts_of(try_bytes(tmp_path, "a.csv", data, unit_bytes=1)) == ["a\nb", "c\r\nd"]


@pytest.mark.parametrize("name", CARRIAGE_RETURNS)
def test_lines_may_end_with_a_carriage_return_alone(tmp_path: Path, name: str) -> None:
    result = try_bytes(tmp_path, name, CARRIAGE_RETURNS[name], unit_bytes=1)
    assert texts_of(result) == ["1", "2"]
    files, settings = prepare(tmp_path / name)
    assert count_documents(files[0], settings.input, settings.store) == 2
    first = first_documents(files, 1, settings.input, settings.store)
    assert first.documents == 1
    (file,) = first.files
    (span,) = spans_of([file])
    cut = read_spans([type(span)(file, (file.rows,))], settings)
    assert cut.column("text") == ["1"]


def test_carriage_return_in_a_file_with_newlines_is_a_character(tmp_path: Path) -> None:
    assert texts_of(try_bytes(tmp_path, "a.txt", b"10 %\r20 %\rdone\nnext\n")) == ["10 %\r20 %\rdone", "next"]
    assert texts_of(try_bytes(tmp_path, "b.txt", b"a\rb\r", text_unit="file")) == ["a\rb\r"], "a file is a document as it is"
