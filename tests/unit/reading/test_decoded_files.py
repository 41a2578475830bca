"""Files whose content is not what their name says, or not UTF-8: read as what they are, or quarantined with the reason."""

import bz2
import codecs
import gzip
import io
import json
import lzma
import random
import re
import zipfile
from pathlib import Path
from typing import Any
from unittest import mock

import lz4.frame
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from pydantic import ValidationError

from pipeline_ops.inputs.config import InputConfig
from pipeline_ops.inputs.listing import find_inputs
from pipeline_ops.reading.encoding_guess import encoding_notes, guess_encoding
from pipeline_ops.reading.input_schema import sample_columns
from pipeline_ops.reading.text_columns import text_column_mistake
from pipeline_ops.schema.errors import UserError
from tests.support.corpora import write_bytes
from tests.support.reading_path import Result, input_of, prepare, read_path, try_path

TEXTS = ["an érable", "zwei Äpfel", "日本語のテスト", "\u2028 and 🤗", "the last one"]
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4" * 64 + b"\nsize 12345\n"


def zipped(**members: str) -> bytes:
    """An archive; in a keyword `__` is a dot."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(name.replace("__", "."), text)
    return data.getvalue()


def long_window(data: bytes) -> bytes:
    """As `zstd --long=31` writes it: its frame asks for more memory than readers allow by default."""
    stream = zstandard.ZstdCompressor(compression_params=zstandard.ZstdCompressionParameters(window_log=31)).compressobj()
    return stream.compress(data) + stream.flush()


COMPRESS = {
    "gzip": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "lz4": lz4.frame.compress,
    "zstd": zstandard.compress,
    "zstd-long": long_window,
}
SKIPPABLE = b"\x50\x2a\x4d\x18\x04\0\0\0mark"  # a frame that pzstd and others put first


def lines_in(file_format: str, end: str = "\n") -> str:
    """TEXTS as a file of that format."""
    if file_format == "jsonl":
        return "".join(f'{{"text": "{text}"}}{end}' for text in TEXTS)
    return "".join(text + end for text in (["text"] if file_format == "csv" else []) + TEXTS)


def try_bytes(folder: Path, name: str, data: bytes, **settings: Any) -> Result:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return try_path(path, **settings)


def texts_of(result: Result) -> list[str]:
    assert [failure.message for failure in result.failures] == []
    return result.column("text")


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst"])
def test_compression_is_that_of_the_first_bytes(tmp_path: Path, compression: str, name: str) -> None:
    data, compress = lines_in("jsonl").encode(), COMPRESS[compression]
    for number, stored in enumerate([compress(data), compress(data[:30]) + compress(data[30:])]):
        result = try_bytes(tmp_path / f"{number}", name, stored)
        assert texts_of(result) == TEXTS
        assert result.pieces[-1].stop_byte == len(data)


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_skippable_frames_are_skipped(tmp_path: Path, compression: str) -> None:
    data = COMPRESS[compression](lines_in("text").encode())
    suffix = {"zstd": "zst", "lz4": "lz4"}[compression]
    for name, stored in (("a.txt", SKIPPABLE + data), (f"a.txt.{suffix}", SKIPPABLE + data + SKIPPABLE)):
        assert texts_of(try_bytes(tmp_path, name, stored)) == TEXTS


@pytest.mark.parametrize("compression", [*COMPRESS, "zip"])
def test_compressed_file_that_is_cut_or_damaged_is_never_read_as_a_shorter_one(tmp_path: Path, compression: str) -> None:
    random_text = "".join(random.Random(1).choices("abcdefgh \n", k=100_000))
    compress = {**COMPRESS, "zip": lambda data: zipped(a__txt=data.decode())}[compression]
    stored = compress(random_text.encode())
    two = stored + stored if compression != "zip" else stored
    cases = {
        "in the middle": stored[: len(stored) // 2],
        "one byte before the end": stored[:-1],
        "within the second member": two[: len(two) - len(stored) // 2],
        "within the header of the second member": (stored + stored[:3]) if compression != "zip" else stored[:20],
    }
    if compression not in ("lz4", "zstd", "zstd-long"):  # these have no checksum unless one is asked for
        damaged = bytearray(stored)
        damaged[len(stored) // 2] ^= 4
        cases["a flipped bit"] = bytes(damaged)
    if compression != "zip":
        cases["garbage behind it"] = stored + b"something else"
    for damage, data in cases.items():
        result = try_bytes(tmp_path, "a.txt", data, unit_bytes=10_000)
        assert len(result.failures) == 1, damage
        assert result.failures[0].pieces[-1].last


@pytest.mark.parametrize("compression", ["gzip", "xz"])
def test_zeros_behind_a_member_are_padding(tmp_path: Path, compression: str) -> None:
    data = COMPRESS[compression](lines_in("text").encode())
    for stored in (data + bytes(10_000), data[: len(data)] + bytes(4) + COMPRESS[compression](b"more\n")):
        assert texts_of(try_bytes(tmp_path, "a.txt", stored))[: len(TEXTS)] == TEXTS


def test_zip_archive_of_one_file_is_that_file(tmp_path: Path) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("folder/", "")
        opened.writestr("folder/train.csv", lines_in("csv"))
        opened.writestr("__MACOSX/folder/._train.csv", b"\0\x05\x16\x07")
    for name in ("archive.zip", "train.csv.zip", "train.csv"):
        assert texts_of(try_bytes(tmp_path / name, name, archive.getvalue())) == TEXTS
    (tmp_path / "other.zip").write_bytes(zipped(picture__png="..."))
    files, passed_over = find_inputs(input_of(tmp_path), prepare(tmp_path)[1].store)
    assert [file.format for file in files] == ["csv"] * 3
    assert [(file.path, file.why) for file in passed_over] == [(str(tmp_path / "other.zip"), "unknown suffix")]


def parquet_bytes() -> bytes:
    data = io.BytesIO()
    pq.write_table(pa.table({"text": TEXTS}), data)
    return data.getvalue()


def arrow_bytes() -> bytes:
    sink, table = pa.BufferOutputStream(), pa.table({"text": TEXTS})
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def encrypted_zip() -> bytes:
    data = bytearray(zipped(a__txt="secret"))
    for place in (6, data.index(b"PK\x01\x02") + 8):  # the flags, in both headers
        data[place] |= 1
    return bytes(data)


QUARANTINED = [
    ("a.jsonl.gz", b"<html>404</html>", r"named \.gz, but begins with b'<html>404</html>'"),
    ("a.csv.xz", b"", r"named \.xz, but is empty"),
    *((name, POINTER, "Git LFS pointer.*git lfs pull") for name in ("a.jsonl", "a.csv.gz", "a.txt", "a.parquet", "a.zip")),
    ("a.parquet", b"", "0 bytes"),
    ("a.jsonl", parquet_bytes(), r"is Parquet by its first bytes, not jsonl; rename it to end in \.parquet"),
    ("a.csv", arrow_bytes(), "is Arrow IPC"),
    ("a.txt", b"%PDF-1.7\n1 0 obj", "is a PDF"),
    ("a.txt", b"\x89PNG\r\n\x1a\n" + bytes(50), "is a PNG image"),
    ("a.txt.gz", gzip.compress(gzip.compress(b"text\n")), "is compressed twice"),
    ("a.txt.gz", gzip.compress(b"name".ljust(257, b"\0") + b"ustar\0" + bytes(200)), "is a tar archive.*unpack it"),
    ("a.txt", random.Random(1).randbytes(5000), "holds binary data"),
    ("a.txt", b"text" + bytes(500), "holds binary data"),
    ("a.txt", "日本語のテスト\n日本語\n短い\n".encode("utf-16-le"), "without a byte order mark; set input.encoding=utf-16-le"),
    ("a.csv", lines_in("csv").encode("utf-16-be"), "set input.encoding=utf-16-be"),
    ("a.csv", lines_in("csv").encode("utf-32-le"), "set input.encoding=utf-32-le"),
    ("a.zip", zipped(a__csv="text\na\n", b__csv="text\nb\n"), r"holds 2 files \(a\.csv, b\.csv\), and one is read; unpack it"),
    ("a.csv.zip", zipped(), "holds no file"),
    ("a.csv", b"id,text\r1,one\n2,two\n", r"the header of .*a\.csv cannot be read: \\r outside quotes"),
    ("a.csv", b'text,"note\none,x\ntwo,x\n', r"the header of .*: a quoted field has no end.*input\.quote=null"),
    ("a.csv", b'text,"note\none,x\ntwo,"y"\n', r"the header of .*: a field has text behind its closing quote"),
    ("a.csv", b'text,"note\none,x\ntwo" or so\n', r"the header of .*: a field has text behind its closing quote"),
    ("a.csv", b'text,"note\none,x\ntwo"\nthree,y\n', r"the header of .*: a quoted name takes in rows: 3 lines"),
    ("a.txt.zip", encrypted_zip(), "with a password"),
    ("a.zip", b"PK\x03\x04 and no more", "damaged"),
]  # fmt: skip


# bytes make no ids: those of a compressor have the time in them, and every test process has to find the same ids
@pytest.mark.parametrize(("name", "data", "said"), QUARANTINED, ids=[f"{n}-{case[0]}" for n, case in enumerate(QUARANTINED)])
def test_file_that_is_not_what_its_name_says_is_quarantined_alone(tmp_path: Path, name: str, data: bytes, said: str) -> None:
    (tmp_path / "b.jsonl").write_text('{"text": "good"}\n')
    (tmp_path / name).write_bytes(data)
    result = try_path(tmp_path)
    assert result.column("text") == ["good"]
    (failure,) = result.failures
    assert failure.where == str(tmp_path / name)
    assert len(failure.message.splitlines()) == 1
    assert re.search(said, failure.message), failure.message


def test_files_that_are_pointers_all_are_refused_with_the_remedy(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_bytes(POINTER)
    files, settings = prepare(tmp_path)
    with pytest.raises(UserError, match=r"a\.jsonl is a Git LFS pointer.*`git lfs pull`.*1 other"):
        sample_columns(files, settings.input, settings.store)


@pytest.mark.parametrize(
    "text",
    [
        "PAR1 is a magic\nORCHESTRA\nGIF89a\n",
        "one\0stray NUL in a scraped text\nnext\n",
        "\x1b[1mbold\x1b[0m\n",
        "%PDF-1.4 is a version\n",
        "n" * 257 + "ustarkastus\n",
    ],
)
def test_text_that_looks_odd_is_text(tmp_path: Path, text: str) -> None:
    assert texts_of(try_bytes(tmp_path, "a.txt", text.encode())) == text.splitlines()


def test_few_characters_of_utf_16_are_read_by_their_mark(tmp_path: Path) -> None:
    assert texts_of(try_bytes(tmp_path, "a.txt", "你好".encode("utf-16"))) == ["你好"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig", "utf-16-be-marked"])
@pytest.mark.parametrize("file_format", ["csv", "jsonl", "text"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_text_with_a_byte_order_mark_is_read(tmp_path: Path, encoding: str, file_format: str, end: str) -> None:
    name = {"csv": "a.csv", "jsonl": "a.jsonl", "text": "a.txt.gz"}[file_format]
    text = lines_in(file_format, end)
    data = codecs.BOM_UTF16_BE + text.encode("utf-16-be") if encoding == "utf-16-be-marked" else text.encode(encoding)
    with mock.patch("pipeline_ops.line_formats.text_encoding.TRANSCODED_BYTES", 3):
        for unit_bytes in (1, 10**6):
            stored = gzip.compress(data) if name.endswith(".gz") else data
            result = try_bytes(tmp_path, name, stored, unit_bytes=unit_bytes, encoding="cp1252")
            assert texts_of(result) == TEXTS
            assert result.rejects == []
            assert [piece.start_row for piece in result.pieces] == [0, *(piece.stop_row for piece in result.pieces[:-1])]


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1252", "text\nœuvre à la crème\n"), ("latin-1", "text\nété\n"), ("shift_jis", "text\n日本語\n"),
        ("gb18030", "text\n中文文本\n"), ("utf-16-le", "text\nété\n"), ("UTF-16BE", "text\n日本\n"),
        ("koi8-r", "text\nпривет\n"),        ("utf8", "text\nété\n"), ("cp037", "text\nEBCDIC\n"),
    ],
)  # fmt: skip
def test_text_is_decoded_as_the_job_says(tmp_path: Path, encoding: str, text: str) -> None:
    assert texts_of(try_bytes(tmp_path, "a.csv", text.encode(encoding), encoding=encoding)) == [text.splitlines()[1]]


@pytest.mark.parametrize("encoding", ["klingon", "base64", "undefined", "rot13", "idna", "punycode", ""])
def test_encoding_that_is_none_is_refused(encoding: str) -> None:
    with pytest.raises(ValidationError, match="no text encoding that Python knows"):
        InputConfig(path="in", encoding=encoding)


@pytest.mark.parametrize("key", ["delimiter", "quote", "escape"])
def test_nul_as_a_character_of_csv_is_refused(key: str) -> None:
    with pytest.raises(ValidationError, match="is not a single ASCII character"):
        InputConfig.model_validate({"path": "in", key: "\0"})


def test_encoding_in_which_a_decoder_loses_its_place_is_an_error_with_its_name(tmp_path: Path) -> None:
    data = "日本\n".encode("iso2022_jp") + b"a\x1b$\x0f/\n-ok\n"
    with mock.patch("pipeline_ops.line_formats.text_encoding.TRANSCODED_BYTES", 1):
        result = try_bytes(tmp_path, "a.txt", data, encoding="iso2022_jp")
    assert result.column("text") == ["日本"]
    assert "input.encoding: bytes that are no iso2022_jp" in result.failures[0].message


def test_encoding_of_utf_16_without_a_byte_order_mark_has_to_say_which(tmp_path: Path) -> None:
    (failure,) = try_bytes(tmp_path, "a.txt", "text\n".encode("utf-16-le"), encoding="utf-16").failures
    assert "set input.encoding=utf-16-le or utf-16-be" in failure.message


@pytest.mark.parametrize(
    ("encoding", "data", "said"),
    [
        (None, b"\xff\xfea text in one byte per character\nand more\n", "begins with the byte order mark of utf-16, but"),
        ("utf-16-le", "a text in UTF-8: é\n".encode(), "is UTF-8, not utf-16-le"),
    ],
)
def test_utf_8_is_not_read_as_utf_16(tmp_path: Path, encoding: str | None, data: bytes, said: str) -> None:
    """Nearly all pairs of bytes are some Chinese character."""
    (failure,) = try_bytes(tmp_path, "a.txt", data, encoding=encoding).failures
    assert said in failure.message


@pytest.mark.parametrize(
    ("encoding", "data", "rejected"),
    [
        (None, "ab\n".encode("utf-16") + b"\x00\xd8" + "x\nok\n".encode("utf-16-le") + b"q", [1, 3]),
        ("shift_jis", "日本\n".encode("shift_jis") + b"bad \x81\nok\n" + b"\xff odd\n", [1, 3]),
        ("cp1252", b"ok\n\x81\nok\n", [1]),
        ("ascii", "ok\né\nok\n".encode(), [1]),
        (None, b"ok\n\xe9t\xe9\nok\n", [1]),
    ],
)
def test_character_that_does_not_decode_costs_its_record_alone(
    tmp_path: Path, encoding: str | None, data: bytes, rejected: list[int]
) -> None:
    result = try_bytes(tmp_path, "a.txt", data, encoding=encoding)
    assert result.rejected == [(row, "undecodable") for row in rejected]
    assert result.failures == ()
    assert {"ok"} <= {*result.column("text")} <= {"ok", "ab", "日本"}


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("columns", ["all", "none"])
def test_object_without_the_text_column_is_one_reject_that_names_its_array(
    tmp_path: Path, indent: int | None, columns: str
) -> None:
    for name, document in {"a": {"text": "one"}, "b": {"id": 1, "comments": [{"text": "two"}, {"text": "three"}]}}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(document, indent=indent))
    result = read_path(tmp_path, columns=columns)
    assert result.column("text") == ["one"]
    (reject,) = result.rejects
    assert (reject.source_file, reject.source_row, reject.reason) == (str(tmp_path / "b.json"), 0, "null_text")
    assert reject.detail.endswith("""jq -c '.["comments"][]'""")


def test_array_under_another_name_than_data_is_named_with_the_remedy(tmp_path: Path) -> None:
    files, settings = prepare(
        write_bytes(tmp_path / "a.json", b'{"version": 1, "articles": [{"text": "one"}, {"text": "two"}]}')
    )
    mistake = text_column_mistake(settings.input, files[0], settings.column_types)
    assert str(mistake).endswith("""if the objects in 'articles' are the documents: jq -c '.["articles"][]'""")


@pytest.mark.parametrize("unit_bytes", [1, 10**6])
@pytest.mark.parametrize("neighbor", ["", '{"text": "a", "x": 01}\n'])
def test_line_of_json_has_one_fate_whatever_its_neighbors_are(tmp_path: Path, unit_bytes: int, neighbor: str) -> None:
    data = '{"text": "one", "x": 1, "x": 2}\n{"text": "b", "text": "c"}\n{"text": ": Inf "}\n{"text":"d","x":Inf}\n' + neighbor
    result = try_bytes(tmp_path, "a.jsonl", data.encode(), unit_bytes=unit_bytes, columns="none")
    assert texts_of(result) == ["one", ": Inf "]
    assert result.rejected == [(row, "broken_json") for row in ([1, 3, 4] if neighbor else [1, 3])]


FRENCH = "Ceci est une phrase française, très belle, où l'été s'achève à l'île de Ré.\n" * 3
CZECH = "Příliš žluťoučký kůň úpěl ďábelské ódy.\n" * 5


def test_encoding_is_guessed_for_each_file_that_is_not_utf_8(tmp_path: Path) -> None:
    texts = {"a": (FRENCH, "cp1252"), "b": (FRENCH, "utf-8"), "c": (CZECH, "cp1250"), "d": (CZECH, "utf-16")}
    for name, (text, encoding) in texts.items():
        (tmp_path / f"{name}.txt").write_bytes(text.encode(encoding))
    result = read_path(tmp_path, encoding="auto")
    assert result.column("text") == [line for text, _ in texts.values() for line in text.splitlines()]
    files, settings = prepare(tmp_path, encoding="auto")
    (note,) = encoding_notes(files, settings.input, settings.store)
    assert note == (
        'input.encoding=auto: of 4 sampled files it guesses cp1252 for 1 (a.txt: "Ceci est une phrase française, très belle,'
        ' où l\'été s\'achève…"), cp1250 for 1 (c.txt: "Příliš žluťoučký kůň úpěl ďábelské ódy.");'
        " input.encoding=NAME decides otherwise"
    )
    assert encoding_notes(files, input_of(tmp_path), settings.store) == []
    (note,) = encoding_notes(files, input_of(tmp_path, encoding="cp1252"), settings.store)
    assert note.startswith("input.encoding=cp1252, but 1 of 4 sampled files can only be UTF-8 (b.txt)")
    assert encoding_notes(files[:1], input_of(tmp_path, encoding="cp1252"), settings.store) == []
    assert guess_encoding(files, settings.store) == "auto"
    assert guess_encoding(files[:1], settings.store) == "cp1252"
    assert guess_encoding(files[1:2], settings.store) is None
