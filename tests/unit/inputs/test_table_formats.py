"""Folders with tables in them are read as the table or refused: never as plain files, which hold dropped rows too."""

import gzip
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from pipeline_ops.inputs.listing import find_inputs
from pipeline_ops.schema.errors import UserError
from pipeline_ops.storage.store import Store
from pipeline_ops.tables.formats import tables_below
from tests.support.corpora import write_bytes, write_jsonl, write_parquet
from tests.support.reading_path import input_of

ROWS = [{"text": "one"}]
METADATA = b'{"format-version": 2, "location": "s3://bucket/table"}'
UUID = "0a1b2c3d-0000-4000-8000-000000000000"


def paths_of(source: Path, **settings: Any) -> list[str]:
    return [file.path for file in find_inputs(input_of(source, **settings), Store(str(source)))[0]]


def refusal(source: Path) -> str:
    with pytest.raises(UserError, match=r"input\.path: ") as caught:
        paths_of(source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def write_delta(path: Path, **columns: list[str]) -> Path:
    write_deltalake(str(path), pa.table({"text": ["one"], **columns}), partition_by=[*columns])
    return path


def write_iceberg_names(path: Path) -> Path:
    write_parquet(path / "data" / "a.parquet", ROWS)
    write_bytes(path / "metadata" / "v1.metadata.json", METADATA)
    return path


def write_hudi_names(path: Path) -> Path:
    write_parquet(path / "a.parquet", ROWS)
    write_bytes(path / ".hoodie" / "hoodie.properties", b"")
    return path


def write_lance_names(path: Path) -> Path:
    write_bytes(path / "data" / "a.lance", b"x")
    write_bytes(path / "_versions" / "1.manifest", b"x")
    return path


@pytest.mark.parametrize(("name", "write"), [("Hudi", write_hudi_names), ("Lance", write_lance_names)])
def test_tables_that_cannot_be_read_are_refused_by_name(name: str, write: Any, tmp_path: Path) -> None:
    said = refusal(write(tmp_path / "table"))
    assert f"{str(tmp_path / 'table')!r} is a {name} table, which cannot be read; write its current rows as Parquet" in said


@pytest.mark.parametrize(
    "write", [write_delta, write_iceberg_names, write_hudi_names, write_lance_names], ids=["delta", "iceberg", "hudi", "lance"]
)
def test_a_folder_with_tables_further_down_is_refused_with_their_names(write: Any, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "db" / "a.jsonl", ROWS)
    for name in ("one", "two"):
        write(tmp_path / "db" / "sub" / name)
    said = refusal(tmp_path / "db")
    assert f"{tmp_path}/db/sub/one, {tmp_path}/db/sub/two; give the folder of one table" in said


def test_parts_of_a_table_are_refused(tmp_path: Path) -> None:
    delta = write_delta(tmp_path / "delta", lang=["en"])
    for part in ("lang=en", "*/*.parquet", "**", "lang=en/*.parquet", "lang=*/*.parquet"):
        assert f"a part of the Delta table {str(delta)!r}" in refusal(delta / part)
    hudi, iceberg = write_hudi_names(tmp_path / "hudi"), write_iceberg_names(tmp_path / "iceberg")
    assert f"a part of the Hudi table {str(hudi)!r}" in refusal(hudi / "*.parquet")
    for part in ("data", "data/*.parquet"):
        assert f"a part of the Iceberg table {str(iceberg)!r}" in refusal(iceberg / part)


def test_a_data_file_of_a_table_is_refused_as_it_may_hold_dropped_rows(tmp_path: Path) -> None:
    for table in (write_delta(tmp_path / "plain"), write_delta(tmp_path / "parted", lang=["en"])):
        (file,) = table.rglob("*.parquet")
        assert f"a part of the Delta table {str(table)!r}" in refusal(file)
    iceberg = write_iceberg_names(tmp_path / "iceberg")
    for name in ("a.parquet", "lang=en/a.parquet", "0101/1001/a.parquet", "a.orc"):
        file = write_bytes(iceberg / "data" / name, b"x")
        assert f"a part of the Iceberg table {str(iceberg)!r}" in refusal(file)


@pytest.mark.parametrize("left", ["", "_last_checkpoint", f"{1:020}.json.gz"])
def test_a_table_without_a_version_in_its_log_is_refused(left: str, tmp_path: Path) -> None:
    table = write_delta(tmp_path / "db" / "table", lang=["en"])
    (table / "_delta_log" / f"{0:020}.json").unlink()
    if left:
        write_bytes(table / "_delta_log" / left, b"{}")
    assert f"{str(table)!r} is a Delta table whose log has no version; copy the whole table" in refusal(table)
    assert f"holds tables (Delta), whose files are not read one by one: {table}" in refusal(tmp_path / "db")
    for part in ("lang=en", "*/*.parquet"):
        assert f"a part of the Delta table {str(table)!r}" in refusal(table / part)


def test_a_table_with_an_empty_commit_is_refused(tmp_path: Path) -> None:
    table = write_delta(tmp_path / "table")
    write_bytes(table / "_delta_log" / f"{1:020}.json", b"")
    assert f"the log of the Delta table {str(table)!r} has an empty file, {1:020}.json" in refusal(table)


# the names of what lies in a folder `metadata`, with its content, whether or not it makes the folder a table
METADATA_FILES = [
    ("v3.metadata.json", METADATA, True),
    ("v3.gz.metadata.json", gzip.compress(METADATA, mtime=0), True),
    (f"00003-{UUID}.metadata.json", METADATA, True),
    (f"00003-{UUID}.gz.metadata.json", gzip.compress(METADATA, mtime=0), True),
    ("copied.metadata.json", METADATA, True),
    ("v3.metadata.json", b"", True),  # damaged
    ("v3.metadata.json", METADATA[:20], True),
    ("v3.metadata.json", b'{"license": "cc0"}\n{"license": "mit"}\n', False),
    ("2020.metadata.json", b'{"license": "cc0"}', False),
    ("2020-books.metadata.json", b'{"license": "cc0", "location": "Bern"}', False),
    ("books.metadata.json", b'[{"license": "cc0"}]', False),
    ("books.metadata.json", b"", False),
]


@pytest.mark.parametrize(("name", "content", "is_table"), METADATA_FILES)
def test_iceberg_tables_are_known_by_what_is_in_their_metadata(
    name: str, content: bytes, is_table: bool, tmp_path: Path
) -> None:
    data = write_parquet(tmp_path / "data" / "a.parquet", ROWS)
    metadata = write_bytes(tmp_path / "metadata" / name, content)
    if is_table:
        assert "Iceberg table" in refusal(tmp_path)
        assert "a part of the Iceberg table" in refusal(data)
        assert "Iceberg table" in refusal(metadata)
    else:
        assert paths_of(tmp_path) == [str(data), str(metadata)]
        assert paths_of(tmp_path / "data") == paths_of(data) == [str(data)]
        assert paths_of(metadata) == [str(metadata)]


def test_a_manifest_alone_makes_no_table_of_lance(tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "a.jsonl", ROWS)
    write_bytes(tmp_path / "_versions" / "1.manifest", b"x")
    assert paths_of(tmp_path) == [str(data)]


def test_folders_that_only_look_like_a_table_are_read(tmp_path: Path) -> None:
    paths = [
        write_parquet(tmp_path / "data" / "a.parquet", ROWS),
        write_jsonl(tmp_path / "metadata" / "a.json", ROWS),
        write_jsonl(tmp_path / "year=2020" / "a.jsonl", ROWS),
    ]
    write_bytes(tmp_path / "_versions" / "notes.txt", b"x")
    write_bytes(tmp_path / "_delta_log" / "notes.txt", b"x")
    write_hudi_names(tmp_path / "_old" / "table")
    assert paths_of(tmp_path) == [str(path) for path in paths]
    assert paths_of(tmp_path / "data") == [str(paths[0])]
    assert paths_of(tmp_path / "data" / "*.parquet") == [str(paths[0])]
    assert paths_of(tmp_path / "year=2020") == [str(paths[2])]


def test_of_a_folder_that_is_two_tables_delta_counts() -> None:
    names = ["metadata/v1.metadata.json", "a.parquet", f"_delta_log/{0:020}.json", "b/.hoodie/x/y"]
    assert tables_below(names) == {"": "Delta", "b": "Hudi"}


@pytest.mark.parametrize(
    ("write", "module"), [(write_delta, "deltalake"), (write_iceberg_names, "pyiceberg.table")], ids=["delta", "iceberg"]
)
def test_without_the_extra_one_line_says_how_to_install_it(
    write: Any, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "table")
    monkeypatch.setitem(sys.modules, module, None)
    assert "pip install 'label-corpus[tables]'" in refusal(tmp_path / "table")
