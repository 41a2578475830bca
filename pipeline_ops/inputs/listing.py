"""The input corpus: its settings (InputConfig) and its files."""

from pipeline_ops.inputs.config import InputConfig
from pipeline_ops.inputs.file_formats import COMPRESSIONS, FORMATS, format_and_compression
from pipeline_ops.inputs.input_files import InputFile
from pipeline_ops.schema.errors import UserError
from pipeline_ops.storage.paths import did_you_mean
from pipeline_ops.storage.store import Store


def find_inputs(config: InputConfig, store: Store) -> tuple[list[InputFile], list[str]]:
    """(the input files in the order of their paths, the paths that are skipped because no suffix gives a format).

    Raises:
        UserError: the path does not exist, matches no file, or no file has a known format.
    """
    listed = store.list_files()
    if not listed:
        what = "matches no file" if any(c in store.path for c in "*?[") else "does not exist or holds no files"
        remedy = did_you_mean(store.path) or "; give a file, a folder or a glob that has some"
        raise UserError(f"input.path: {store.path!r} {what}{remedy}")
    files, unknown = [], []
    for stored in listed:
        by_suffix, compression = format_and_compression(stored.path)
        file_format = by_suffix if config.format == "auto" else config.format
        if file_format is None:
            unknown.append(stored.path)
        else:
            files.append(InputFile(stored, file_format, None if file_format == "parquet" else compression))
    if not files:
        raise UserError(
            f"input.path: no file under {store.path!r} has a known suffix ({', '.join([*FORMATS, *COMPRESSIONS])});"
            f" the first is {unknown[0]!r}; set input.format"
        )
    return files, unknown
