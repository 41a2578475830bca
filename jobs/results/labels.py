"""The Python API for labels: exactly the committed rows, as a pandas or polars DataFrame, a pyarrow or Ray Dataset.

A plain read of the folder gives the same rows after a finished run; during a run it may see files that are not committed yet,
and it infers the types of partition columns, a label `0` that of a number; here they have their own.
"""

from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, overload

import pyarrow as pa

from jobs.results.open_output import find_labeled
from pipeline_ops.output.labeled_output import Labeled, read_columns, schema_of
from pipeline_ops.schema.errors import UserError
from pipeline_ops.storage.paths import join
from pipeline_ops.storage.store import Store
from pipeline_ops.writing.commit_record import WrittenFile
from pipeline_ops.writing.hive_partitions import partition_scalars

if TYPE_CHECKING:  # it imports pandas, which a run without Ray would else not need: 0.3 s of CPU
    import pyarrow.dataset as ds

KINDS = ("pandas", "polars", "arrow", "ray")
MAX_RAY_BLOCKS = 200


@overload
def labels(
    output: str,
    as_: Literal["pandas"] = "pandas",
    *,
    columns: Sequence[str] | None = None,
    storage: Mapping[str, Any] | None = None,
) -> "pandas.DataFrame": ...  # noqa: F821  # pyright: ignore[reportUndefinedVariable]
@overload
def labels(
    output: str, as_: Literal["polars"], *, columns: Sequence[str] | None = None, storage: Mapping[str, Any] | None = None
) -> "polars.DataFrame": ...  # noqa: F821  # pyright: ignore[reportUndefinedVariable]
@overload
def labels(
    output: str, as_: Literal["arrow"], *, columns: Sequence[str] | None = None, storage: Mapping[str, Any] | None = None
) -> "ds.Dataset": ...
@overload
def labels(
    output: str, as_: Literal["ray"], *, columns: Sequence[str] | None = None, storage: Mapping[str, Any] | None = None
) -> "ray.data.Dataset": ...  # noqa: F821  # pyright: ignore[reportUndefinedVariable]
def labels(
    output: str,
    as_: Literal["pandas", "polars", "arrow", "ray"] = "pandas",
    *,
    columns: Sequence[str] | None = None,
    storage: Mapping[str, Any] | None = None,
) -> Any:
    """The rows of an output that are committed now.

    Args:
        output: its folder, or the job's file.
        as_: "pandas" or "polars", a DataFrame, all of it in memory; "arrow", a pyarrow dataset; "ray", a Ray Dataset, read by
            tasks.
        columns: only these, in this order.
        storage: the `storage` section of a job file, for an output folder on a store that needs one.

    Raises:
        UserError: the output has no labels, or no such column; `as_` is none of these, or polars is not installed.
    """
    if as_ not in KINDS:
        raise UserError(f"labels: invalid value {as_!r} of as_; expected {', '.join(map(repr, KINDS))}")
    if as_ == "polars" and find_spec("polars") is None:
        raise UserError("labels: 'polars' needs a package that is not installed: pip install 'label-corpus[polars]'")
    found = find_labeled(output, [f"storage.{key}={value}" for key, value in (storage or {}).items()])
    schema = schema_of(found, columns)
    if as_ == "ray":
        return _ray_dataset(found, schema)
    dataset = _arrow_dataset(found, schema)
    if as_ == "arrow":
        return dataset
    if as_ == "polars":
        import polars

        return polars.from_arrow(dataset.to_table())
    return dataset.to_table().to_pandas()


def _arrow_dataset(found: Labeled, schema: pa.Schema) -> "ds.Dataset":
    import pyarrow.dataset as ds

    filesystem, place = found.store.arrow_filesystem()
    parquet = ds.ParquetFileFormat()
    fragments = []
    for file in found.files:
        inside = ds.scalar(True)
        for name, value in partition_scalars(file.path, found.partition_types).items():
            inside = inside & (ds.field(name) == value if value.is_valid else ds.field(name).is_null())
        fragments.append(parquet.make_fragment(join(place, file.path), filesystem, partition_expression=inside))
    return ds.FileSystemDataset(fragments, schema, parquet, filesystem)


def _ray_dataset(found: Labeled, schema: pa.Schema) -> Any:
    import ray.data

    files = found.files
    if not files:
        return ray.data.from_arrow(schema.empty_table())
    rows = [{"file": number} for number in range(len(files))]
    return ray.data.from_items(rows, override_num_blocks=min(MAX_RAY_BLOCKS, len(rows))).map_batches(
        _read_files,  # pyright: ignore[reportArgumentType]
        fn_kwargs={"store": found.store, "files": files, "schema": schema, "partitions": found.partition_types},
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=1,
    )


def _read_files(
    numbers: pa.Table, store: Store, files: Sequence[WrittenFile], schema: pa.Schema, partitions: Mapping[str, pa.DataType]
) -> Iterator[pa.Table]:
    wanted = [files[number] for number in numbers["file"].to_pylist()]
    for _, table in read_columns(store, wanted, schema.names, partitions):
        yield table.cast(schema)
