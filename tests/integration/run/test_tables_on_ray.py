"""Delta and Iceberg tables with a damaged file among good ones, on Ray: what a table says of its files reaches the readers."""

import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from pyiceberg.catalog.memory import InMemoryCatalog
from pyiceberg.transforms import IdentityTransform

from tests.support.invariant import check_exactly_once
from tests.support.running import command, job_settings, keys, write_job_file

DAYS = [datetime.date(2026, 11, day) for day in (1, 2, 3)]


def make_delta_table(folder: Path) -> tuple[Path, dict[str, datetime.date]]:
    """(its path, {data file: day}), partitioned by the day."""
    for day in DAYS:
        rows = pa.table({"text": [f"{day} {row}" for row in range(4)], "day": [day] * 4})
        write_deltalake(str(folder), rows, mode="append", partition_by=["day"])
    actions = pa.table(DeltaTable(str(folder)).get_add_actions()).to_pylist()
    return folder, {str(folder / unquote(one["path"])): one["partition"]["day"] for one in actions}


def make_iceberg_table(folder: Path) -> tuple[Path, dict[str, datetime.date]]:
    """The same; the text column was renamed after the first file."""
    catalog = InMemoryCatalog("test", warehouse=f"file://{folder}")
    catalog.create_namespace("db")
    table = catalog.create_table("db.table", schema=pa.schema([("body", pa.string()), ("day", pa.date32())]))
    with table.update_spec() as spec:
        spec.add_field("day", IdentityTransform())
    for number, day in enumerate(DAYS):
        name = "text" if number else "body"
        if number == 1:
            with table.update_schema() as schema:
                schema.rename_column("body", "text")
        table.append(pa.table({name: [f"{day} {row}" for row in range(4)], "day": [day] * 4}))
    paths = [one.file.file_path.removeprefix("file://") for one in table.scan().plan_files()]
    return Path(table.location().removeprefix("file://")), {
        path: next(day for day in DAYS if f"day={day}" in path) for path in paths
    }


@pytest.mark.slow
@pytest.mark.usefixtures("ray_address")
@pytest.mark.parametrize("make", [make_delta_table, make_iceberg_table])
def test_table_with_a_damaged_file(make: Any, model: Path, tmp_path: Path) -> None:
    table, days = make(tmp_path / "table")
    assert sorted(days.values()) == DAYS
    damaged = Path(next(path for path, day in days.items() if day == DAYS[1]))
    damaged.write_bytes(b"x" * damaged.stat().st_size)
    settings = job_settings(table, model, tmp_path / "out", "compute.unit_bytes=1")
    finished = command("run", write_job_file(tmp_path / "job.yaml", settings), "--quiet")
    assert finished.code == 1, finished.stderr
    (why,) = finished.result["failed"]
    assert damaged.name in why
    labeled, _ = check_exactly_once(tmp_path / "out", [key for path in days if path != str(damaged) for key in keys(path, 4)])
    assert labeled.schema.field("day").type == pa.date32()
    for row in labeled.to_pylist():
        day = days[row["source_file"]]
        assert (row["day"], row["text"]) == (day, f"{day} {row['source_row']}")
