"""One folder with every kind of file that is read, and damaged ones among them: each document once, with its own text.

Every text says which file and row it is of, and DuckDB compares the output with that.
"""

import gzip
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from jobs.config import JobConfig
from jobs.label_corpus import run
from jobs.maintenance.verify import verify
from jobs.run.result import RunResult
from tests.support.corpora import (
    write_arrow,
    write_avro,
    write_bytes,
    write_csv,
    write_jsonl,
    write_orc,
    write_parquet,
    write_text,
    write_wet,
)
from tests.support.running import make_job
from tests.support.serial_chain import run_serially

ROWS = 5
Write = Callable[[Path, list[dict[str, str]]], object]


@dataclass(frozen=True)
class Kind:
    """A file of the folder, and what it holds."""

    name: str
    write: Write  # gets the rows {"id": ..., "text": ...}
    rows: int = ROWS
    rejected: tuple[int, ...] = ()
    quarantined: bool = False  # what does not begin with a document that can be read


def as_bytes(encode: Callable[[list[dict[str, str]]], str], encoding: str = "utf-8") -> Write:
    return lambda path, rows: write_bytes(path, encode(rows).encode(encoding))


def raw(data: bytes) -> Write:
    """The same bytes whatever the name says."""

    def write(path: Path, _: list[dict[str, str]]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    return write


def lines(rows: list[dict[str, str]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def separated(delimiter: str, end: str = "\n") -> Callable[[list[dict[str, str]]], str]:
    return lambda rows: end.join(delimiter.join(cells) for cells in (["id", "text"], *(row.values() for row in rows))) + end


def object_per_line(rows: list[dict[str, str]]) -> str:
    return "[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n"


def wrapped(rows: list[dict[str, str]]) -> str:
    return json.dumps({"version": "1.1", "data": rows, "next": None})


def pretty_objects(rows: list[dict[str, str]]) -> str:
    return "".join(json.dumps(row, indent=2) + "\n" for row in rows)


def plain(path: Path, rows: list[dict[str, str]]) -> None:
    write_text(path, [row["text"] for row in rows])


def truncated_gzip(path: Path, rows: list[dict[str, str]]) -> None:
    padded = [row | {"noise": random.Random(index).randbytes(2000).hex()} for index, row in enumerate(rows)]
    data = gzip.compress(lines(padded).encode())
    raw(data[:1000])(path, rows)  # within the first row: whole ones would be labeled


LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d" * 32 + b"\nsize 132735\n"
HTML = b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head></html>\n"
CODECS = (".gz", ".zst", ".bz2", ".xz", ".lz4", ".zip")

KINDS = (
    Kind("lines.jsonl", write_jsonl),
    Kind("lines.ndjson", write_jsonl),
    Kind("lines.json", write_jsonl),
    *(Kind(f"lines.jsonl{codec}", write_jsonl) for codec in CODECS),
    Kind("array.json", as_bytes(json.dumps)),
    Kind("array_named_lines.jsonl", as_bytes(json.dumps)),
    Kind("array_per_line.json", as_bytes(object_per_line)),
    Kind("array_indented.json", as_bytes(lambda rows: json.dumps(rows, indent=2))),
    Kind("array_wrapped.json", as_bytes(wrapped)),
    Kind("array_wrapped_indented.json", as_bytes(lambda rows: json.dumps({"data": rows}, indent=4))),
    *(Kind(f"array.json{codec}", as_bytes(json.dumps)) for codec in CODECS),
    Kind("array_utf16.json", as_bytes(lambda rows: json.dumps(rows, indent=2), "utf-16")),
    Kind("array_with_rejects.json", as_bytes(lambda rows: json.dumps([rows[0], 1, rows[2], None, rows[4]])), rejected=(1, 3)),
    Kind("array_empty.json", as_bytes(lambda rows: "[]"), rows=0),
    Kind("array_cut.json", as_bytes(lambda rows: json.dumps(rows)[:-3]), rows=ROWS - 1, quarantined=True),
    Kind("one_object.json", as_bytes(lambda rows: json.dumps(rows[0], indent=2)), rows=1),
    Kind("objects.json", as_bytes(pretty_objects)),
    Kind("table.csv", write_csv),
    *(Kind(f"table.csv{codec}", write_csv) for codec in CODECS),
    Kind("table.tsv", as_bytes(separated("\t"))),
    Kind("carriage_returns.csv", as_bytes(separated(",", "\r"))),
    Kind("windows.csv", as_bytes(separated(",", "\r\n"))),
    Kind("utf16.csv", as_bytes(separated(","), "utf-16")),
    Kind("utf16.jsonl", as_bytes(lines, "utf-16")),
    Kind("carriage_returns.jsonl", as_bytes(lambda rows: lines(rows).replace("\n", "\r"))),
    Kind("utf8_mark.jsonl", as_bytes(lines, "utf-8-sig")),
    Kind("plain.txt", plain),
    *(Kind(f"plain.txt{codec}", plain) for codec in CODECS),
    Kind("table.parquet", lambda path, rows: write_parquet(path, rows, row_group_size=2)),
    Kind("table.pq", write_parquet),
    Kind("stream.arrow", lambda path, rows: write_arrow(path, rows, batch_rows=2)),
    Kind("file.arrows", lambda path, rows: write_arrow(path, rows, batch_rows=2)),
    Kind("table.feather", lambda path, rows: write_arrow(path, rows, batch_rows=2)),
    Kind("lz4.feather", lambda path, rows: write_arrow(path, rows, compression="lz4")),
    Kind("table.ipc", write_arrow),
    Kind("table.orc", write_orc),
    Kind("table.avro", write_avro),
    Kind("pages.wet", lambda path, rows: write_wet(path, [row["text"] for row in rows])),
    Kind("pages.warc.wet.gz", lambda path, rows: write_wet(path, [row["text"] for row in rows])),
    Kind("gzip_without_suffix.jsonl", lambda path, rows: raw(gzip.compress(lines(rows).encode()))(path, rows)),
    Kind("lang=en/year=2024/part.parquet", write_parquet),
    Kind("lang=de/year=2025/part.jsonl", write_jsonl),
    Kind("empty.jsonl", raw(b""), rows=0),
    Kind("page.jsonl.gz", raw(HTML), rows=0, quarantined=True),
    Kind("truncated.jsonl.gz", truncated_gzip, rows=0, quarantined=True),
    Kind("zero_bytes.parquet", raw(b""), rows=0, quarantined=True),
    Kind("pointer.parquet", raw(LFS_POINTER), rows=0, quarantined=True),
    Kind("page.arrow", raw(HTML), rows=0, quarantined=True),
    Kind("page.orc", raw(HTML), rows=0, quarantined=True),
    Kind("page.avro", raw(HTML), rows=0, quarantined=True),
    Kind("page.warc.gz", raw(HTML), rows=0, quarantined=True),
    Kind("pointer.avro", raw(LFS_POINTER), rows=0, quarantined=True),
    Kind("cut.parquet", raw(b"PAR1 and no more"), rows=0, quarantined=True),
    Kind("no_arrow.arrow", raw(b"ARROW1 and no more"), rows=0, quarantined=True),
    Kind("no_orc.orc", raw(b"ORC and no more"), rows=0, quarantined=True),
    Kind("no_avro.avro", raw(b"Obj\1 and no more"), rows=0, quarantined=True),
    Kind("image.csv", raw(b"\x89PNG\r\n\x1a\n" + bytes(100)), rows=0, quarantined=True),
)


def make_folder(folder: Path) -> Path:
    for kind in KINDS:
        kind.write(folder / kind.name, [{"id": f"0{row}", "text": text_of(kind, row)} for row in range(ROWS)])
    return folder


def text_of(kind: Kind, row: int) -> str:
    return f"row {row} of {kind.name}"


def check(job: JobConfig, result: RunResult) -> None:
    """Compares what DuckDB and `verify` read with what was written."""
    source, output = job.input.path, job.output.path
    expected = [
        (f"{source}/{kind.name}", row, None if row in kind.rejected else text_of(kind, row))
        for kind in KINDS
        for row in range(kind.rows)
    ]
    quarantined = sorted(f"{source}/{kind.name}" for kind in KINDS if kind.quarantined)
    database = duckdb.connect()
    truth = pa.table([list(values) for values in zip(*expected, strict=True)], names=["file", "row", "text"])
    database.register("truth", truth)
    database.execute(
        f"""CREATE TABLE found AS
        SELECT source_file AS file, source_row AS row, text
        FROM read_parquet('{output}/label=*/*.parquet', hive_partitioning = true, union_by_name = true)
        UNION ALL SELECT source_file, source_row, NULL FROM read_json('{output}/_rejects/*.jsonl')"""
    )
    for problem, query in {
        "missing": "SELECT * FROM truth EXCEPT ALL SELECT * FROM found",
        "unknown or doubled": "SELECT * FROM found EXCEPT ALL SELECT * FROM truth",
    }.items():
        assert database.execute(query).fetchall() == [], problem
    failures = [json.loads(path.read_text()) for path in Path(output, "_failed").glob("*.json")]
    assert sorted(piece["path"] for failure in failures for piece in failure["pieces"]) == quarantined
    assert result.documents == len(expected)
    assert not result.complete
    found = verify(job)
    assert {line.partition(": ")[0].partition(" from row ")[0] for line in (*found["missing"], *found["failed"])} == {
        *quarantined
    }


def test_a_folder_of_all_kinds_of_files_in_this_process(model: Path, tmp_path: Path) -> None:
    job = make_job(make_folder(tmp_path / "in"), model, tmp_path / "out")
    check(job, run_serially(job, quiet=True))


@pytest.mark.slow
def test_a_folder_of_all_kinds_of_files_on_ray(ray_address: str, model: Path, tmp_path: Path) -> None:
    job = make_job(make_folder(tmp_path / "in"), model, tmp_path / "out")
    check(job, run(job, quiet=True))
