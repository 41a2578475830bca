"""The input corpus: its settings (InputConfig) and its files."""

from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace

from pipeline_ops.inputs.compression import decompressed
from pipeline_ops.inputs.config import InputConfig
from pipeline_ops.inputs.file_formats import COMPRESSIONS, FORMATS, format_and_compression
from pipeline_ops.inputs.hive_folders import folder_columns
from pipeline_ops.inputs.input_files import InputFile
from pipeline_ops.inputs.metadata_files import metadata_among
from pipeline_ops.inputs.part import files_of_part
from pipeline_ops.inputs.passed_over import PassedOver, Why
from pipeline_ops.inputs.zip_archives import member_names
from pipeline_ops.schema.errors import UserError, is_store_fault
from pipeline_ops.storage.paths import base_folder, did_you_mean
from pipeline_ops.storage.store import Store, StoredFile, is_hidden
from pipeline_ops.tables.formats import find_table, find_table_in_catalog, is_in_catalog
from pipeline_ops.tables.input_table import TableFiles

LOOK_BYTES = 2**12  # decompressed, of a file whose name gives no format
ARCHIVES_AT_ONCE = 16  # zip archives that are opened for the names in them


def find_inputs(config: InputConfig, store: Store, labeled: Collection[str] = ()) -> tuple[list[InputFile], list[PassedOver]]:
    """(the input files in the order of their paths, the files that are not read). A glob reads all that it matches and knows.

    Of a table these are the files of its newest version. All files have the same InputFile.columns. Of a part (config.part)
    these are the files of a whole listing that are in it: what is metadata, and which columns there are, is the same for all.

    Args:
        labeled: paths of files that the output has labels of, which are never metadata: what lies beside a file may change.

    Raises:
        UserError: the path does not exist, matches no file, or no file has a known format; a table that cannot be read; no
            file is in the part.
    """
    files, passed_over = _find_all(config, store, labeled)
    return in_part(files, config, store), passed_over


def in_part(files: list[InputFile], config: InputConfig, store: Store) -> list[InputFile]:
    """Those of all input files that are in the part that the settings name; raises UserError if none is."""
    found = files_of_part(files, config.part, store.path)
    if not found:
        raise UserError(
            f"input.part: none of the {len(files)} files of {store.path!r} is in {config.part}: split it into fewer parts"
        )
    return found


def _find_all(config: InputConfig, store: Store, labeled: Collection[str]) -> tuple[list[InputFile], list[PassedOver]]:
    if is_in_catalog(store.path):
        return _files_of(find_table_in_catalog(store), config), []
    listed, hidden = store.list_with_hidden()
    is_glob = any(character in store.path for character in "*?[")
    table = find_table(store, listed, hidden)
    if table is not None:
        return _files_of(table, config), []
    if not listed:
        what = "matches no file" if is_glob else "does not exist or holds no files"
        if hidden:
            what = f"holds only files with names that begin with _ or ., and links, such as {hidden[0].path!r}"
        remedy = did_you_mean(store.path) or "; give a file, a folder or a glob that has some"
        raise UserError(f"input.path: {store.path!r} {what}{remedy}")
    files, unknown = [], []
    by_member = _formats_in_archives(listed, store) if config.format == "auto" else {}
    for stored in listed:
        by_suffix, compression = format_and_compression(stored.path)
        by_suffix = by_member.get(stored.path, by_suffix)
        file_format = by_suffix if config.format == "auto" else config.format
        if file_format is None:
            unknown.append(stored.path)
        else:
            files.append(InputFile(stored, file_format, None if file_format == "parquet" else compression))
    if not files:
        raise _without_a_format(listed[0], store)
    metadata = set() if is_glob else metadata_among({file.path: file.format for file in files}).difference(labeled)
    passed_over = [
        *(PassedOver(path, "unknown suffix") for path in unknown),
        *(PassedOver(path, "metadata of the data set") for path in sorted(metadata)),
        *(PassedOver(file.path, _why_hidden(store.relative(file.path))) for file in hidden if not file.path.endswith("/")),
    ]
    data = [file for file in files if file.path not in metadata]
    return _with_folder_columns(data, config, store), passed_over


def _without_a_format(file: StoredFile, store: Store) -> UserError:
    """The error about an input of which no name gives a format; the beginning of its first file may show JSON."""
    compression = format_and_compression(file.path)[1]
    begins = b""
    try:
        with (
            store.open(file, sequential=False) as source,
            decompressed(source, compression, file.path) if compression else nullcontext(source) as stream,
        ):
            begins = bytes(stream.read(LOOK_BYTES)).lstrip()
    except (OSError, UserError) as error:  # a file that is damaged shows nothing
        if is_store_fault(error):
            raise
    remedy = "set input.format"
    if begins.startswith((b'{"', b"[{", b"{ ", b"{\n")):
        remedy = "its content looks like JSON: set input.format=jsonl"
    compressed = f", of which {compression} is the compression" if compression else ""
    return UserError(
        f"input.path: no file under {store.path!r} has a suffix of a format ({', '.join(FORMATS)}, with or without one of"
        f" {', '.join(COMPRESSIONS)}); the first is {file.path!r}{compressed}; {remedy}"
    )


def _why_hidden(name: str) -> Why:
    return "names that begin with _ or ." if is_hidden(name) else "links to folders"


def _formats_in_archives(listed: Sequence[StoredFile], store: Store) -> dict[str, str]:
    """{path: format} of the zip archives whose own names give none, by the names of the files in them."""
    archives = [file for file in listed if format_and_compression(file.path) == (None, "zip")]

    def format_of(file: StoredFile) -> str | None:
        try:
            with store.open(file, sequential=False) as source:
                names = member_names(source)
        except Exception as error:  # a broken archive can make zipfile raise anything
            if is_store_fault(error):
                raise
            return "text"  # its reader says what is wrong
        return next((known for name in names if (known := format_and_compression(name)[0]) not in (None, "parquet")), None)

    if not archives:
        return {}
    with ThreadPoolExecutor(ARCHIVES_AT_ONCE) as threads:
        found = threads.map(format_of, archives)
    return {file.path: known for file, known in zip(archives, found, strict=True) if known is not None}


def _files_of(found: TableFiles, config: InputConfig) -> list[InputFile]:
    """The files of a table, with a null for each row where they lack a text column: earlier versions may have had none."""
    table = found.table
    if config.format not in ("auto", "parquet"):
        raise UserError(f"input.format: {config.format!r}, but {table.path!r} is a {table.format} table; leave it out")
    for key, column in zip(("text_column", "text_pair_column"), config.text_columns, strict=False):
        if column in table.partitions:
            raise UserError(f"input.{key}: {column!r} is a partition of the {table.format} table, not a text; name another one")
    texts = [(column, None) for column in config.text_columns if column in table.schema.names]
    return [
        InputFile(file, "parquet", None, columns=(*values.items(), *texts), field_names=found.field_names, table=table)
        for file, values in found.files
    ]


def _with_folder_columns(files: Sequence[InputFile], config: InputConfig, store: Store) -> list[InputFile]:
    """The files with the columns of their hive folders, null in files without such a folder; none is a text column.

    Folders count below input.path, of a glob from its first wildcard on: `data/lang=*/*.parquet` has a column `lang`, and
    `data/lang=en/*.parquet` has none, as `data/lang=en` has none.
    """
    base = base_folder(store.path)
    found = [folder_columns(file.path, base) for file in files]
    names = [name for name in dict.fromkeys(name for columns in found for name in columns) if name not in config.text_columns]
    if not names:
        return list(files)
    return [
        replace(file, columns=tuple((name, columns.get(name)) for name in names))
        for file, columns in zip(files, found, strict=True)
    ]
