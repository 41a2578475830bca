"""Iceberg: the newest metadata file of a table, a named one, or a catalog's -> the data files of its current snapshot.

pyiceberg plans the scan and reads metadata and manifests through Store, with its retries, checks and credentials.
"""

import gzip
import json
import re
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipeline_ops.schema.errors import UserError, one_line, without_credentials
from pipeline_ops.storage.config import StorageConfig
from pipeline_ops.storage.paths import join
from pipeline_ops.storage.store import Store, StoredFile
from pipeline_ops.tables.input_table import InputTable, TableFiles, import_extra, stored_files

METADATA = "metadata"
PUBLISHED = "_iceberg"  # folder of our outputs with the metadata of the table that they are published as
METADATA_FILE = re.compile(r"(?:.*/)?v?(\d+)(?:-[^/]*?)?(?:\.gz)?\.metadata\.json(?:\.gz)?")
LIKE_METADATA = re.compile(r"(?:.*/)?[^/]+\.metadata\.json(?:\.gz)?")
METADATA_KEYS = {"format-version", "location"}  # that every version of the format requires
MOST_OPENED = 8  # files of a folder that are looked into
GZIP = b"\x1f\x8b"
VERSION_HINT = "version-hint.text"
CATALOG = "iceberg://"  # CATALOG/NAMESPACE.TABLE


def metadata_folders(store: Store, files: Sequence[StoredFile]) -> set[str]:
    """The folders in which one of the files is the metadata of a table; other files may be named alike.

    In each folder the MOST_OPENED newest are looked into, by the usual names, and others behind them.
    """
    alike: dict[str, list[StoredFile]] = defaultdict(list)
    for file in files:
        if ".metadata.json" in file.path and LIKE_METADATA.fullmatch(file.path):
            alike[file.path.rpartition("/")[0]].append(file)
    opened = [file for found in alike.values() for file in sorted(found, key=_number, reverse=True)[:MOST_OPENED]]
    contents = zip(opened, store.read_files(opened), strict=True)
    return {file.path.rpartition("/")[0] for file, content in contents if _is_metadata(file.path, content)}


def _number(file: StoredFile) -> int:
    found = METADATA_FILE.fullmatch(file.path)
    return int(found[1]) if found else -1


def _is_metadata(path: str, content: bytes) -> bool:
    """By the content; by the name where that is damaged: a table that cannot be read is no folder of plain files."""
    try:
        text = (gzip.decompress(content) if content.startswith(GZIP) else content).decode()
        first, _ = json.JSONDecoder().raw_decode(text.lstrip())
    except (ValueError, OSError, EOFError, zlib.error, RecursionError):
        return METADATA_FILE.fullmatch(path) is not None
    return isinstance(first, dict) and first.keys() >= METADATA_KEYS


def newest_metadata(store: Store, files: Sequence[StoredFile]) -> str:
    """The full path of a table's newest metadata file: the one that version-hint.text names, or that with the highest number.

    A hint that is a number is a lower limit, as the writers that keep it have it.

    Args:
        store: of the table's folder.
        files: all below it.

    Raises:
        UserError: several have the highest number.
    """
    folder = next(
        folder
        for folder in (store.join(METADATA), store.join(PUBLISHED, METADATA))
        if any(file.path.rpartition("/")[0] == folder and LIKE_METADATA.fullmatch(file.path) for file in files)
    )
    paths = [file.path for file in files if file.path.rpartition("/")[0] == folder]
    if join(folder, VERSION_HINT) in paths:
        hint = store.read(store.relative(join(folder, VERSION_HINT))).decode(errors="replace").strip()
        for name in (hint, f"{hint}.metadata.json"):
            if join(folder, name) in paths:
                return join(folder, name)
    numbers = {path: int(found[1]) for path in paths if (found := METADATA_FILE.fullmatch(path))}
    numbers = numbers or {path: 0 for path in paths if LIKE_METADATA.fullmatch(path)}
    newest = [path for path, number in numbers.items() if number == max(numbers.values())]
    if len(newest) > 1:
        names = " and ".join(path.rpartition("/")[2] for path in sorted(newest)[:2])
        raise UserError(
            f"input.path: the Iceberg table {store.path!r} has several newest metadata files, {names}; which one counts, its"
            f" catalog knows: give the path of that file"
        )
    return newest[0]


def metadata_in_catalog(path: str, config: StorageConfig) -> str:
    """The full path of the current metadata file of a table, by its name in a catalog that pyiceberg is configured for.

    Args:
        path: iceberg://CATALOG/NAMESPACE.TABLE.

    Raises:
        UserError: pyiceberg is not installed, there is no such catalog or table, or the catalog cannot be reached.
    """
    load_catalog = import_extra("pyiceberg.catalog", "Iceberg", path).load_catalog
    from pipeline_ops.tables.store_file_io import path_of, properties_for

    catalog, _, table = path.removeprefix(CATALOG).partition("/")
    if not catalog or "." not in table:
        raise UserError(f"input.path: {path!r} names no table; give {CATALOG}CATALOG/NAMESPACE.TABLE")
    try:
        return path_of(load_catalog(catalog, **properties_for(config)).load_table(table).metadata_location)
    except Exception as error:  # of the client of whatever the catalog is
        reason = f"{type(error).__name__}: {without_credentials(one_line(error))}"
        raise UserError(
            f"input.path: {path!r} cannot be looked up: {reason}; catalogs are configured in .pyiceberg.yaml or by"
            f" PYICEBERG_CATALOG__{catalog.upper()}__URI"
        ) from error


def read_iceberg_table(path: str, location: str, files: Sequence[StoredFile], config: StorageConfig) -> TableFiles:
    """The files of the current snapshot.

    Args:
        path: the table's, for people.
        location: full path of the metadata file.
        files: a listing of the folder where most of the table's files are; the others are asked for one by one.

    Raises:
        UserError: pyiceberg is not installed, the metadata cannot be read, or the snapshot has something that is not supported.
    """
    static_table = import_extra("pyiceberg.table", "Iceberg", path).StaticTable
    from pyiceberg.catalog.noop import NoopCatalog
    from pyiceberg.exceptions import ValidationError
    from pyiceberg.serializers import FromInputFile

    from pipeline_ops.tables.store_file_io import StoreFileIO, path_of, properties_for

    file_io = StoreFileIO(properties_for(config))
    try:
        metadata = FromInputFile.table_metadata(file_io.new_input(location))
        opened = static_table(("table", path), metadata, location, file_io, NoopCatalog("none"))
        snapshot = opened.current_snapshot()
        if snapshot is None:
            raise UserError(f"input.path: the Iceberg table {path!r} has no rows: it has no snapshot yet")
        arrow = arrow_schema(opened.schema())
        partitions = _partition_names(opened)
        table = InputTable("Iceberg", path, snapshot.snapshot_id, arrow, frozenset(partitions.values()))
        _check_schemas(table, metadata)
        _check_equality_deletes(table, snapshot, file_io)
        tasks = list(opened.scan().plan_files())
        for task in tasks:
            _check_readable(table, task)
        paths = [path_of(task.file.file_path) for task in tasks]
        stored = stored_files(paths, {file.path: file for file in files}, config)
    except FileNotFoundError as error:
        raise UserError(
            f"input.path: the Iceberg table {path!r} names a file that does not exist: {one_line(error)}; a table that was"
            f" moved or copied keeps its old paths: give the table where it was written"
        ) from error
    except UserError:
        raise
    except (ValueError, NotImplementedError, ValidationError) as error:
        raise UserError(
            f"input.path: the metadata of the Iceberg table {path!r} cannot be read: {one_line(error)}; a newer pyiceberg may"
            f" read it, or copy the table to Parquet"
        ) from error
    if not tasks:
        raise UserError(f"input.path: the Iceberg table {path!r} has no rows in snapshot {table.version}")
    values = (_partition_values(task.file, metadata.specs(), partitions, table) for task in tasks)
    found = zip(stored, values, strict=True)
    return TableFiles(table, sorted(found, key=lambda one: one[0].path), _field_names(metadata))


def _check_readable(table: InputTable, task: Any) -> None:
    """Raises UserError for a data file of which rows are deleted, or of another format than Parquet."""
    if task.delete_files:
        raise table.refusal(
            f"has deleted rows in delete files (of {task.file.file_path})",
            "CALL system.rewrite_data_files(table => ..., options => map('delete-file-threshold', '1')) writes the files"
            " without them",
        )
    if task.file.file_format.value != "PARQUET":
        raise table.refusal(
            f"has {task.file.file_format.value} files ({task.file.file_path})",
            "CALL system.rewrite_data_files writes Parquet files",
        )


def _partition_values(
    file: Any, specs: Mapping[int, Any], names: Mapping[int, str], table: InputTable
) -> dict[str, str | None]:
    """{column: value as text} of a data file; the values of `names` in their order."""
    values: dict[str, str | None] = dict.fromkeys(names.values())
    for position, field in enumerate(specs[file.spec_id].fields):
        value = file.partition[position]
        if value is not None and field.source_id in names and str(field.transform) == "identity":
            name = names[field.source_id]
            values[name] = pa.scalar(value, table.schema.field(name).type).cast(pa.string()).as_py()
    return values


def _partition_names(opened: Any) -> dict[int, str]:
    """{field id: name} of the columns whose values are those of partitions; files that a table has adopted may lack them."""
    schema = opened.schema()
    known = {field.field_id: field for field in schema.fields}
    identity = [
        field for spec in opened.metadata.specs().values() for field in spec.fields if str(field.transform) == "identity"
    ]
    printable = {"string", "int", "long", "boolean", "float", "double", "date", "timestamp", "timestamptz"}
    return {
        field.source_id: known[field.source_id].name
        for field in identity
        if field.source_id in known and str(known[field.source_id].field_type) in printable
    }


def _check_schemas(table: InputTable, metadata: Any) -> None:
    """Raises UserError where files of an earlier schema would be read with wrong values."""
    from pyiceberg.schema import index_name_by_id

    id_of: dict[tuple[int, str], int] = {}
    name_of: dict[int, tuple[int, str]] = {}
    for schema in metadata.schemas:
        for field in schema.fields:
            if field.initial_default is not None:
                raise table.refusal(
                    f"has a column {field.name!r} with a default for the rows before it",
                    "CALL system.rewrite_data_files writes it",
                )
            for nested, name in index_name_by_id(field.field_type).items():
                key = (field.field_id, name)
                if id_of.setdefault(key, nested) != nested or name_of.setdefault(nested, key) != key:
                    raise table.refusal(
                        f"has renamed fields of the column {field.name!r}",
                        "a copy of the table (CREATE TABLE ... AS SELECT) has them under one name",
                    )


def _field_names(metadata: Any) -> tuple[tuple[int, str], ...]:
    """(field id, name) of the columns; () if no file can have a column of another name or meaning."""
    current = {field.field_id: field.name for field in metadata.schema().fields}
    earlier = {(field.field_id, field.name) for schema in metadata.schemas for field in schema.fields}
    return tuple(current.items()) if earlier - {*current.items()} else ()


def _check_equality_deletes(table: InputTable, snapshot: Any, file_io: Any) -> None:
    from pyiceberg.manifest import DataFileContent, ManifestContent

    deletes = [manifest for manifest in snapshot.manifests(file_io) if manifest.content == ManifestContent.DELETES]
    entries = (entry for manifest in deletes for entry in manifest.fetch_manifest_entry(file_io, discard_deleted=True))
    if any(entry.data_file.content == DataFileContent.EQUALITY_DELETES for entry in entries):
        raise table.refusal(
            "has rows that are deleted by their values (equality deletes)",
            "CALL system.rewrite_data_files(table => ..., options => map('rewrite-all', 'true')) writes the files without them",
        )


def arrow_schema(schema: Any) -> pa.Schema:
    from pyiceberg.io.pyarrow import schema_to_pyarrow

    arrow: Any = schema_to_pyarrow(schema, include_field_ids=False)
    return pa.schema([(field.name, _usual_type(field.type)) for field in arrow])


def _usual_type(data_type: pa.DataType) -> pa.DataType:
    """The type that files have: pyiceberg says large_string where they have string."""
    if pa.types.is_struct(data_type):
        return pa.struct([field.with_type(_usual_type(field.type)) for field in data_type])
    if pa.types.is_map(data_type):
        return pa.map_(_usual_type(data_type.key_type), _usual_type(data_type.item_type))
    if pa.types.is_large_list(data_type) or pa.types.is_list(data_type):
        return pa.list_(data_type.value_field.with_type(_usual_type(data_type.value_type)))
    return {pa.large_string(): pa.string(), pa.large_binary(): pa.binary()}.get(data_type, data_type)
