"""The committed files as an Iceberg table: what other readers see of its versions, and who may write the next one."""

import datetime
import time
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import StaticTable, Table
from pyiceberg.utils.config import Config

from pipeline_ops.publishing.delta import DeltaTable
from pipeline_ops.publishing.iceberg import IcebergTable
from pipeline_ops.publishing.kept_files import kept_files
from pipeline_ops.publishing.table import TableChangedError, TableVersion
from pipeline_ops.schema.errors import UserError
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.storage.config import StorageConfig
from pipeline_ops.storage.store import Store
from pipeline_ops.tables.formats import find_table
from pipeline_ops.tables.iceberg import metadata_in_catalog
from tests.support.iceberg_output import IcebergOutput

DAY = datetime.timedelta(days=1)


def load(output: IcebergOutput) -> Table:
    """The table as another program finds it: by the catalog in the output, with pyiceberg's own file access."""
    catalog = SqlCatalog("default", uri=f"sqlite:///{output.folder}/_iceberg/catalog.db")
    return catalog.load_table(f"labels.{output.folder.name}")


def rows(table: Table | StaticTable, *columns: str) -> list[tuple[Any, ...]]:
    data = table.scan().to_arrow()
    return sorted(zip(*(data.column(name).to_pylist() for name in columns), strict=True), key=str)


def test_labels_come_back_as_they_are_whatever_they_look_like(tmp_path: Path) -> None:
    output = IcebergOutput(tmp_path / "out")
    labels = ["a/b", "x=y", "sp ace", "ünï", "", None, "0", "007", "1%2F", "plus+", "q?#", "null", "__HIVE_DEFAULT_PARTITION__"]
    for number, label in enumerate(labels):
        output.add(f"f{number}.parquet", {"text": [f"t{number}", "b"]}, {"label": label})
    published = output.publish()
    assert published is not None
    assert (published.added, published.removed) == (len(labels), 0)
    expected = sorted(((text, label) for number, label in enumerate(labels) for text in (f"t{number}", "b")), key=str)
    assert rows(load(output), "text", "label") == expected
    assert rows(StaticTable.from_metadata(f"{output.folder}/_iceberg"), "text", "label") == expected
    assert output.publish() is None
    seen = output.another_publisher().read()
    assert (seen.version, seen.paths, seen.term) == (published.version, frozenset(output.files), 7)
    assert seen.schema == output.schema


def test_partitions_of_every_type_are_published_and_removed(tmp_path: Path) -> None:
    values: list[tuple[pa.DataType, Any, Any]] = [
        (pa.int64(), 7, -(2**60)),
        (pa.int32(), 7, -1),
        (pa.bool_(), True, False),
        (pa.date32(), datetime.date(2024, 2, 29), datetime.date(1901, 1, 1)),
        (pa.timestamp("us"), datetime.datetime(2024, 2, 29, 1, 2, 3, 4), datetime.datetime(1901, 1, 1)),
        (pa.timestamp("us", "UTC"), datetime.datetime(2024, 2, 29, tzinfo=datetime.UTC), None),
        (pa.decimal128(9, 2), Decimal("-1.50"), Decimal("0.00")),
        (pa.string(), "ü", ""),
    ]
    names = [f"p{number}" for number in range(len(values))]
    types = {name: kind for name, (kind, _, _) in zip(names, values, strict=True)}
    output = IcebergOutput(tmp_path / "out", partition_by=names)
    output.add("a.parquet", {"n": [1]}, {name: first for name, (_, first, _) in zip(names, values, strict=True)}, **types)
    output.add("b.parquet", {"n": [2]}, {name: second for name, (_, _, second) in zip(names, values, strict=True)}, **types)
    output.add("c.parquet", {"n": [3]}, dict.fromkeys(names), **types)
    output.publish()
    table = load(output).scan().to_arrow().sort_by("n")
    assert table.column("n").to_pylist() == [1, 2, 3]
    for name, (kind, first, second) in zip(names, values, strict=True):
        assert table.column(name).to_pylist() == pa.array([first, second, None], kind).to_pylist()
    for name in sorted(output.files):
        del output.files[name]
        published = output.publish()
        assert published is not None
        assert (published.added, published.removed) == (0, 1)
        assert load(output).scan().to_arrow().num_rows == len(output.files)


def test_statistics_let_a_reader_leave_files_out(tmp_path: Path) -> None:
    output = IcebergOutput(tmp_path / "out", partition_by=[])
    output.add("a.parquet", {"n": [1, 2]}, {})
    output.add("b.parquet", {"n": [3, 9]}, {})
    output.publish()
    scan = load(output).scan(row_filter="n > 2")
    assert [task.file.file_path for task in scan.plan_files()] == [f"file://{output.folder}/b.parquet"]
    assert sorted(scan.to_arrow().column("n").to_pylist()) == [3, 9]


def test_columns_that_only_later_files_have_are_null_in_earlier_ones(tmp_path: Path) -> None:
    output = IcebergOutput(tmp_path / "out")
    nested = pa.array([[{"k": 1}]], pa.list_(pa.field("item", pa.struct([pa.field("k", pa.int64(), False)]), False)))
    output.add("a.parquet", {"text": ["one"], "nested": nested}, {"label": "x"})
    output.publish()
    output.add("b.parquet", {"text": ["two"], "nested": nested, "kind": ["few"], "more": [{"m": 1}]}, {"label": "y"})
    del output.files["a.parquet"]
    output.publish()
    output.add("a.parquet", {"text": ["one"], "nested": nested}, {"label": "x"})
    output.publish()
    assert rows(load(output), "text", "kind", "label") == [("one", None, "x"), ("two", "few", "y")]
    assert rows(load(output), "text", "nested", "more") == [("one", [{"k": 1}], None), ("two", [{"k": 1}], {"m": 1})]


def test_a_stale_publisher_writes_nothing(tmp_path: Path) -> None:
    output = IcebergOutput(tmp_path / "out")
    first = output.add("a.parquet", {"n": [1]}, {"label": "x"})
    stale, later = output.another_publisher(), output.another_publisher()
    of_stale = stale.read()
    output.publish()
    with pytest.raises(TableChangedError):  # both found no table
        stale.write(of_stale, output.change(first))

    of_stale = stale.read()
    assert (fence := later.write(later.read(), output.change())).version != of_stale.version
    metadata = {*(output.folder / "_iceberg/metadata").iterdir()}
    file = output.add("b.parquet", {"n": [2]}, {"label": "y"})
    for change in (output.change(), output.change(file), output.change(file, removed=("a.parquet",))):
        with pytest.raises(TableChangedError):
            stale.write(of_stale, change)
    assert {*(output.folder / "_iceberg/metadata").iterdir()} == metadata  # and leaves nothing
    assert later.read() == fence
    assert rows(load(output), "n") == [(1,)]
    # what it reads anew it may follow
    assert stale.write(stale.read(), output.change(file)).paths == {"a.parquet", "b.parquet"}


def test_replaced_files_are_kept_as_long_as_versions_that_name_them(tmp_path: Path) -> None:
    output = IcebergOutput(tmp_path / "out")
    start = datetime.datetime.now(datetime.UTC)
    assert output.table.kept_paths(start) == set()
    for number in range(4):
        output.add(f"{number}.parquet", {"n": [number]}, {"label": "x"})
        output.files.pop(f"{number - 1}.parquet", None)
        output.add(f"also-{number}.parquet", {"n": [-number]}, {"label": "x"})
        output.publish(same_rows=number % 2 == 1)
    for table in (output.table, output.another_publisher()):
        assert table.kept_paths(start + DAY) == {*output.files}
        assert table.kept_paths(start - DAY) == {*output.files, "0.parquet", "1.parquet", "2.parquet"}


def test_a_clock_that_is_slow_makes_no_table_that_engines_refuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output, now = IcebergOutput(tmp_path / "out"), time.time
    output.add("a.parquet", {"text": ["a"]}, {"label": "x"})
    output.publish()
    output.add("b.parquet", {"text": ["b"]}, {"label": "x"})
    monkeypatch.setattr(time, "time", lambda: now() - 100)
    with pytest.raises(UserError, match=r"this machine's clock is (9\d|100) s behind .* such as by NTP"):
        output.publish()
    assert rows(load(output), "text") == [("a",)]
    monkeypatch.setattr(time, "time", lambda: now() - 10)
    output.publish()
    assert rows(load(output), "text") == [("a",), ("b",)]


def test_what_a_publisher_that_was_killed_has_not_announced_is_announced_by_the_next_one(tmp_path: Path) -> None:
    output = IcebergOutput(tmp_path / "out")
    output.add("a.parquet", {"text": ["a"]}, {"label": "x"})
    output.publish()
    hint = output.folder / "_iceberg/metadata/version-hint.text"
    earlier = hint.read_text()
    output.add("b.parquet", {"text": ["b"]}, {"label": "x"})
    output.publish()
    assert output.publish() is None
    for said in (earlier, None):  # as it is before the hint is put
        hint.unlink() if said is None else hint.write_text(said)
        output.table = output.another_publisher()
        published = output.publish()
        assert published is not None
        assert (published.added, published.removed) == (0, 0)
        assert rows(StaticTable.from_metadata(f"{output.folder}/_iceberg"), "text") == [("a",), ("b",)]
        assert output.publish() is None


def test_files_are_kept_without_the_catalog_of_a_table_that_is_no_longer_published(tmp_path: Path) -> None:
    catalog = {"table": "corpora.labels", "type": "sql", "uri": f"sqlite:///{tmp_path}/catalog.db"}
    output = IcebergOutput(tmp_path / "out", catalog=catalog)
    for name in ("old.parquet", "new.parquet"):
        output.files.clear()
        output.add(name, {"n": [1]}, {"label": "x"})
        output.publish()
    (tmp_path / "catalog.db").unlink()
    store, switched_off = Store(str(output.folder)), OutputConfig(path=str(output.folder))
    assert kept_files(store, switched_off, None) == {"old.parquet", "new.parquet"}
    at_once = switched_off.model_copy(update={"keep_versions_days": 0})
    assert kept_files(store, at_once, None) == {"new.parquet"}


def test_versions_that_are_no_longer_kept_leave_no_metadata(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline_ops.publishing.iceberg.MOST_MANIFESTS", 3)
    output = IcebergOutput(tmp_path / "out", keep_versions_days=0)
    sizes = []
    for number in range(9):
        output.add(f"{number}.parquet", {"n": [number]}, {"label": "x"})
        output.files.pop(f"{number - 1}.parquet", None)
        output.publish()
        sizes.append(len(list((output.folder / "_iceberg/metadata").glob("*.avro"))))
    assert max(sizes[5:]) <= max(sizes[:5])
    table = load(output)
    assert len(table.snapshots()) <= 2
    assert rows(table, "n") == [(8,)]
    assert output.table.kept_paths(datetime.datetime.now(datetime.UTC) + DAY) == {"8.parquet"}


def test_a_published_output_is_an_input_by_its_table(tmp_path: Path) -> None:
    output = IcebergOutput(tmp_path / "out")
    (output.folder / "label=a%2Fb").mkdir()
    for name in ("label=a%2Fb/old.parquet", "label=a%2Fb/new.parquet"):
        output.add(name, {"n": [1]}, {"label": "a/b"})
        output.publish()
    del output.files["label=a%2Fb/old.parquet"]
    output.publish()
    for path in (output.folder, output.folder / "_iceberg", load(output).metadata_location.removeprefix("file://")):
        store = Store(str(path))
        found = find_table(store, *store.list_with_hidden())
        assert found is not None
        assert found.table.format == "Iceberg"
        assert [(file.path, values) for file, values in found.files] == [
            (f"{output.folder}/label=a%2Fb/new.parquet", {"label": "a/b"})
        ]
    part = Store(str(output.folder / "label=a%2Fb"))
    with pytest.raises(UserError, match="is a part of the Iceberg table"):
        find_table(part, *part.list_with_hidden())


def test_a_table_of_that_name_at_another_place_is_left_alone(tmp_path: Path) -> None:
    catalog = {"table": "corpora.labels", "type": "sql", "uri": f"sqlite:///{tmp_path}/catalog.db"}
    output = IcebergOutput(tmp_path / "out", catalog=catalog)
    output.add("a.parquet", {"n": [1]}, {"label": "x"})
    output.publish()
    another = IcebergOutput(tmp_path / "another", catalog=catalog)
    with pytest.raises(UserError, match=r"output\.catalog: .* has a table 'corpora\.labels' at '.*/out'.*; give another name"):
        another.publish()
    parted = IcebergOutput(tmp_path / "out", partition_by=[], catalog=catalog)
    with pytest.raises(UserError, match=r"'corpora\.labels' is partitioned by label, not by nothing"):
        parted.publish()
    part = IcebergOutput(tmp_path / "part-00001-of-00002", catalog=catalog)
    part.add("a.parquet", {"n": [1]}, {"label": "x"})
    assert part.publish() is not None
    tables = SqlCatalog("default", uri=catalog["uri"]).list_tables("corpora")
    assert sorted(tables) == [("corpora", "labels"), ("corpora", "labels_part_00001_of_00002")]


@pytest.mark.parametrize(
    ("catalog", "message"),
    [
        ({"type": "rest", "uri": "http://127.0.0.1:9"}, r"cannot be used: ConnectionError: .*; check its uri"),
        ({"type": "sql", "uri": "sqlite:////nowhere/catalog.db"}, r"cannot be used: OperationalError: .*; check its uri"),
        ({"name": "nobody-s"}, r"'nobody-s' cannot be used: .*PYICEBERG_CATALOG__NOBODY_S__"),
        ({"type": "nonsense"}, r"cannot be used: ValueError: .*nonsense"),
    ],
)
def test_a_catalog_that_cannot_be_reached_is_named(tmp_path: Path, catalog: dict[str, str], message: str) -> None:
    output = IcebergOutput(tmp_path / "out", catalog={"table": "a.b", **catalog})
    with pytest.raises(UserError, match=r"^output\.catalog: the catalog .*" + message) as caught:
        output.publish()
    assert "\n" not in str(caught.value)


def test_a_password_in_the_environment_is_in_no_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYICEBERG_CATALOG__PROD__URI", "postgres://me:pass/w0rd@host/db")  # as many write postgresql://
    monkeypatch.setattr("pyiceberg.catalog._ENV_CONFIG", Config())
    output = IcebergOutput(tmp_path / "out", catalog={"table": "a.b", "name": "prod"})
    config = StorageConfig()
    for use in (output.table.read, lambda: metadata_in_catalog("iceberg://prod/a.b", config)):
        with pytest.raises(UserError, match="Could not infer the catalog type from the uri: postgres://host/db;") as caught:
            use()
        assert "w0rd" not in str(caught.value)


def test_a_damaged_catalog_file_is_named(tmp_path: Path) -> None:
    output = IcebergOutput(tmp_path / "out")
    (output.folder / "_iceberg").mkdir()
    (output.folder / "_iceberg/catalog.db").write_bytes(b"no database" * 100)
    with pytest.raises(UserError, match=r"^output\.catalog: .*/_iceberg/catalog\.db cannot be used: .*remove the folder"):
        output.publish()


def test_an_output_on_object_storage_needs_a_catalog() -> None:
    with pytest.raises(UserError, match=r"^output\.catalog: 's3://bucket/out' is on object storage.*; give one"):
        IcebergTable(Store("s3://bucket/out"), OutputConfig(path="s3://bucket/out", table="iceberg"))


@pytest.mark.parametrize("name", ["labels#2", "labels?"])
def test_a_path_whose_files_engines_would_not_find_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"output\.path: .* has a # or \?, where engines end the paths"):
        IcebergOutput(tmp_path / name)
    output = IcebergOutput(tmp_path / "läbels %20 =1")
    output.add("f.parquet", {"text": ["a"]}, {"label": "x"})
    output.publish()
    assert rows(StaticTable.from_metadata(f"{output.folder}/_iceberg"), "text") == [("a",)]


def test_an_output_that_was_moved_is_no_longer_the_table(tmp_path: Path) -> None:
    output = IcebergOutput(tmp_path / "out")
    output.add("a.parquet", {"n": [1]}, {"label": "x"})
    output.publish()
    output.folder.rename(tmp_path / "another")
    (tmp_path / "elsewhere").mkdir()
    moved = IcebergOutput((tmp_path / "another").rename(tmp_path / "elsewhere/out"))
    with pytest.raises(UserError, match=r"that does not exist, .*: it was moved.*; remove the folder .*_iceberg"):
        moved.publish()


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64()])
def test_a_partition_that_pyiceberg_would_round_is_refused(tmp_path: Path, kind: pa.DataType) -> None:
    output = IcebergOutput(tmp_path / "out", partition_by=["p"])
    output.add("a.parquet", {"n": [1]}, {"p": 0.1}, p=kind)
    with pytest.raises(UserError, match=r"^output\.partition_by: 'p' is (float|double), which .*; name another"):
        output.publish()


@pytest.mark.parametrize(
    "kind", [pa.uint64(), pa.list_(pa.uint64()), pa.timestamp("ns"), pa.timestamp("us", "Europe/Berlin"), pa.duration("us")]
)
def test_a_type_that_a_reader_could_not_read_is_refused(tmp_path: Path, kind: pa.DataType) -> None:
    output = IcebergOutput(tmp_path / "out")
    output.add("a.parquet", {"text": ["a"]}, {"label": "x"})
    output.publish()
    output.add("b.parquet", {"text": ["a"], "odd": pa.nulls(1, kind)}, {"label": "x"})
    with pytest.raises(
        UserError, match=r"^output\.table: column 'odd' is .*, which engines do not read from Iceberg tables; set input\."
    ):
        output.publish()


def test_many_files_are_one_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline_ops.publishing.iceberg.FILES_OF_A_MANIFEST", 4)
    output = IcebergOutput(tmp_path / "out")
    for number in range(10):
        output.add(f"{number}.parquet", {"n": [number]}, {"label": f"l{number % 3}"})
    output.publish()
    assert rows(load(output), "n") == [(number,) for number in range(10)]
    replaced = {f"x{name}": replace(file, path=f"x{name}") for name, file in output.files.items()}
    for name in output.files:
        (output.folder / name).rename(output.folder / f"x{name}")
    output.files = replaced
    published = output.publish()
    assert published is not None
    assert (published.added, published.removed) == (10, 10)
    assert rows(load(output), "n") == [(number,) for number in range(10)]
    table = load(output)
    for snapshot in table.snapshots():  # none of them has a row twice
        entries = [entry for manifest in snapshot.manifests(table.io) for entry in manifest.fetch_manifest_entry(table.io)]
        paths = [entry.data_file.file_path.rpartition("/")[2].lstrip("x") for entry in entries]
        assert len(paths) == len({*paths})


def test_a_column_that_has_changed_its_type_is_named(tmp_path: Path) -> None:
    output = IcebergOutput(tmp_path / "out")
    output.add("a.parquet", {"n": [1]}, {"label": "x"})
    output.publish()
    output.schema = pa.schema([])
    output.add("b.parquet", {"n": ["one"]}, {"label": "x"})
    with pytest.raises(UserError, match=r"^output\.table: column 'n' is string, and int64 in the Iceberg table so far; delete"):
        output.publish()


def test_another_format_than_the_published_one_is_refused(tmp_path: Path) -> None:
    output = IcebergOutput(tmp_path / "out")
    output.add("a.parquet", {"n": [1]}, {"label": "x"})
    (output.folder / "_delta_log").mkdir()
    (output.folder / "_delta_log" / f"{0:020}.json").touch()
    with pytest.raises(UserError, match=r"^output\.table: .* is published as another table already, in _delta_log/"):
        output.publish()
    (output.folder / "_delta_log" / f"{0:020}.json").unlink()
    output.publish()
    with pytest.raises(UserError, match=r"^output\.table: .* is published as another table already, in _iceberg/"):
        DeltaTable(Store(str(output.folder)), OutputConfig(path=str(output.folder), table="delta")).read()


def test_metadata_that_is_gone_is_named(tmp_path: Path) -> None:
    output = IcebergOutput(tmp_path / "out")
    output.add("a.parquet", {"n": [1]}, {"label": "x"})
    output.publish()
    for file in (output.folder / "_iceberg/metadata").glob("*-m0.avro"):
        file.unlink()
    with pytest.raises(UserError, match=r"that does not exist, .*-m0\.avro: it was moved or deleted"):
        output.another_publisher().read()


def test_nothing_is_made_by_reading(tmp_path: Path) -> None:
    output = IcebergOutput(tmp_path / "out")
    assert output.table.read() == TableVersion(None, frozenset(), pa.schema([]))
    assert list(output.folder.iterdir()) == []
