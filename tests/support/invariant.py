"""What must hold after every finished run, whatever happened before and during it."""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

Key = tuple[str, int]  # source_file, source_row


def check_exactly_once(
    output: str | Path, expected_keys: Iterable[Key], filesystem: AbstractFileSystem | None = None
) -> tuple[pa.Table, list[dict]]:
    """Asserts that every expected document stands exactly once in labeled + rejected, and that nothing else does.

    Reads the output as a user would, by its plain files: a file that no commit names counts too, and is an error.

    Args:
        output: the output folder, of a split job that of all parts; a path without protocol where a `filesystem` is given.
        expected_keys: (source_file, source_row) of every input document.

    Returns:
        The labeled rows with all their columns, partition columns included, and the rejects.
    """
    filesystem = filesystem or LocalFileSystem()
    labeled = read_labeled(output, filesystem)
    rejects = read_rejects(output, filesystem)
    found = Counter((reject["source_file"], reject["source_row"]) for reject in rejects)
    if labeled.num_rows:
        found.update(zip(labeled["source_file"].to_pylist(), labeled["source_row"].to_pylist(), strict=True))
    assert read_misfits(output, filesystem).keys() <= found.keys() - {(r["source_file"], r["source_row"]) for r in rejects}
    expected = Counter(expected_keys)
    assert max(expected.values(), default=1) == 1, "the expected keys are not unique"
    problems = {
        "missing": sorted(expected - found),
        "doubled": sorted(key for key, count in found.items() if count > 1),
        "unknown": sorted(found.keys() - expected.keys(), key=str),
    }
    assert not any(problems.values()), "; ".join(
        f"{len(keys)} {problem}, such as {keys[:3]}" for problem, keys in problems.items() if keys
    )
    return labeled, rejects


def read_labeled(output: str | Path, filesystem: AbstractFileSystem) -> pa.Table:
    """All Parquet files below the hive partitions; an empty table where everything was rejected."""
    dataset = pyarrow.dataset.dataset(str(output), format="parquet", partitioning="hive", filesystem=filesystem)
    return dataset.to_table()


def read_rejects(output: str | Path, filesystem: AbstractFileSystem) -> list[dict]:
    paths = filesystem.glob(f"{output}/**/_rejects/*.jsonl")
    return [json.loads(line) for path in sorted(paths) for line in filesystem.cat_file(path).splitlines()]


def read_misfits(output: str | Path, filesystem: AbstractFileSystem | None = None) -> dict[Key, dict[str, str]]:
    """{document: {column: JSON of the value that does not fit its type}}."""
    filesystem = filesystem or LocalFileSystem()
    found: dict[Key, dict[str, str]] = {}
    for path in sorted(filesystem.glob(f"{output}/**/_misfits/*.jsonl")):
        for line in map(json.loads, filesystem.cat_file(path).splitlines()):
            values = found.setdefault((line["source_file"], line["source_row"]), {})
            assert line["column"] not in values
            values[line["column"]] = line["value"]
    return found
