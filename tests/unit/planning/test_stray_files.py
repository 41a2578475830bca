"""Files among the input that look like no documents, and the glob that leaves them out."""

from pathlib import Path

import pytest

from pipeline_ops.inputs.listing import find_inputs
from pipeline_ops.planning.stray_files import Strays, find_strays, glob_of
from pipeline_ops.storage.store import Store
from tests.support.corpora import write_bytes
from tests.support.reading_path import input_of

LINES = b"a line of a text that is longer\n" * 40
DIGITS = b"3\n0\n" * 40


def strays_in(folder: Path, files: dict[str, bytes], **settings: object) -> Strays | None:
    for name, content in files.items():
        write_bytes(folder / name, content)
    config = input_of(folder, **settings)
    found, passed_over = find_inputs(config, Store(str(folder)))
    strays = find_strays(found, passed_over, config, Store(str(folder)))
    if strays is not None and strays.others is not None:  # the glob lists all others, and these alone
        listed = {file.path for file in Store(strays.others).list_files()}
        assert listed == {file.path for file in found} - {file.path for kind in strays.kinds for file in kind.files}
    return strays


@pytest.mark.parametrize(
    ("files", "odd", "others"),
    [
        ({"a.jsonl": LINES, "b.jsonl": LINES, "notes.txt": b"a note\n"}, {"notes.txt"}, "*.jsonl"),
        ({"a.jsonl": 9 * LINES, "notes.txt": LINES, "x.pdf": b"x"}, {"notes.txt"}, "a.jsonl"),
        ({"a/b.jsonl.gz": LINES, "c.jsonl": LINES, "meta.json": b"{}", "n.md": b"x"}, {"meta.json"}, "**/*.jsonl*"),
        ({**{f"a/{n}.parquet": LINES for n in range(30)}, "x.csv": 9 * LINES}, {"x.csv"}, "**/*.parquet"),
        ({"a_text.txt": LINES, "b_text.txt": LINES, "a_labels.txt": DIGITS, "b_labels.txt": DIGITS}, None, "*_text.txt"),
        (
            {"a_text.txt": LINES, "a_labels.txt": DIGITS, "mapping.txt": b"0 joy\n"},
            {"a_labels.txt", "mapping.txt"},
            "a_text.txt",
        ),
        ({"texts.txt": LINES, "labels.txt": DIGITS, ".texts.txt": LINES}, {"labels.txt"}, "texts.txt"),
        ({"a.jsonl": LINES, "b.jsonl": LINES, ".c.jsonl": LINES, "n.txt": b"x"}, {"n.txt"}, None),  # would read the hidden one
        ({"a.jsonl": 5 * LINES, "b.parquet": 5 * LINES, "n.txt": b"x"}, {"n.txt"}, None),
        ({"1-x.jsonl": LINES, "2-x.jsonl": LINES, "note-1.jsonl.txt": b"x"}, {"note-1.jsonl.txt"}, "*.jsonl"),
    ],
)
def test_strays_are_found_with_a_glob_for_the_others(
    files: dict[str, bytes], odd: set[str] | None, others: str | None, tmp_path: Path
) -> None:
    strays = strays_in(tmp_path / "in", files)
    assert strays is not None
    found = {Path(file.path).name for kind in strays.kinds for file in kind.files}
    assert found == (odd or {"a_labels.txt", "b_labels.txt"})
    assert strays.others == (None if others is None else f"{tmp_path}/in/{others}")


@pytest.mark.parametrize(
    ("files", "settings"),
    [
        ({"a.jsonl": LINES, "b.csv": LINES, "c.txt": LINES}, {}),  # formats that people mix
        ({"a.jsonl": 9 * LINES, "b.csv": LINES, "c.txt": b"a text\n", "d.parquet": b"x", "e.json": b"{}"}, {}),
        ({"a.txt": LINES, "b.txt": b"short\n"}, {}),
        ({"a_text.txt": DIGITS, "b_labels.txt": DIGITS}, {}),  # all are short
        ({f"{n}{letter}.txt": DIGITS if n == 3 else LINES for n in range(9) for letter in "abc"}, {}),
        ({"a_text.txt": LINES, "b_text.txt": DIGITS}, {}),
        ({"a_text.txt": LINES, "a_labels.txt": b"1\n" + LINES}, {"text_unit": "file"}),
        ({"a.jsonl": LINES, "notes.txt": b"a note\n"}, {"format": "text"}),  # which says what all files are
        ({"a.jsonl": LINES}, {}),
    ],
)
def test_ordinary_input_has_no_strays(files: dict[str, bytes], settings: dict[str, str], tmp_path: Path) -> None:
    assert strays_in(tmp_path / "in", files, **settings) is None


def test_files_are_documents_where_a_document_is_a_file(tmp_path: Path) -> None:
    files = {f"{n}_{kind}.txt": content for n in range(5) for kind, content in (("text", LINES), ("label", b"1\n"))}
    strays = strays_in(tmp_path / "in", files, text_unit="file")
    assert strays is not None
    assert strays.others == f"{tmp_path}/in/*_text.txt"


def test_glob_on_an_object_store_is_below_its_path() -> None:
    paths = [f"s3://bucket/in/{name}" for name in ("a/1.jsonl", "b/2.jsonl", "notes.txt")]
    assert glob_of("s3://bucket/in", {*paths[:2]}, paths) == "s3://bucket/in/**/*.jsonl"
    assert glob_of("s3://bucket/*/*", {*paths[:2]}, paths) is None
