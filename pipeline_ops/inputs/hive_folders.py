"""Columns in the names of folders: `lang=en/year=2020/part.parquet`, as Hive, Spark, DuckDB and Arrow write them."""

from urllib.parse import unquote

from pipeline_ops.storage.paths import join

NULL_VALUE = "__HIVE_DEFAULT_PARTITION__"


def folder_columns(path: str, base: str) -> dict[str, str | None]:
    """{column: value} of the folders between `base` and a file, outermost first; of a name twice the inner one's value.

    Names and values are percent-decoded; `+` stands for itself.

    Args:
        path: full path of a file below the folder `base`; of `base` itself, a file, there are none.
    """
    columns: dict[str, str | None] = {}
    if not path.startswith(join(base, "")):  # it is `base` itself
        return columns
    for folder in path.removeprefix(join(base, "")).split("/")[:-1]:
        name, is_column, value = folder.partition("=")
        if name and is_column:
            columns[unquote(name)] = None if value == NULL_VALUE else unquote(value)
    return columns
