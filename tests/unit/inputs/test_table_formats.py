"""Folders with tables in them are read as the table or refused: never as plain files, which hold dropped rows too."""

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
    write_bytes(path / "metadata" / "v1.metadata.json", b"{}")
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


def test_a_file_of_a_table_that_is_given_by_name_is_read(tmp_path: Path) -> None:
    (file,) = write_delta(tmp_path / "delta").glob("*.parquet")
    assert paths_of(file) == [str(file)]


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
