"""Lines to paste into a shell that read an output, made from its own facts: folder, columns, partitions, store.

A label column that was renamed, or an output without partitions, is not read by the lines of another output: a glob finds no
files, or a column with the truth is taken for the label. Nor is an output with a table, or one that had one, read by a glob: it
keeps replaced files for the table's earlier versions, so a glob has documents twice.
"""

import re
import shlex
import sys
from dataclasses import dataclass
from typing import Any

from pipeline_ops.output.commit_log import Ledger, read_job
from pipeline_ops.output.labeled_output import Labeled
from pipeline_ops.schema.errors import one_line, store_errors
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.storage.config import StorageConfig
from pipeline_ops.storage.paths import is_local, is_s3, join
from pipeline_ops.storage.store import Store
from pipeline_ops.tables.delta import LOG
from pipeline_ops.tables.iceberg import PUBLISHED
from pipeline_ops.writing.hive_partitions import hive_folder

TABLE_SWITCHED_OFF = "output.table is none: the table here is updated by `label-corpus publish` only"


@dataclass(frozen=True)
class Snippet:
    """A line for a shell."""

    tool: str
    line: str


def reading_snippets(labeled: Labeled, path: str | None = None, *, replaced_files: bool = False) -> list[Snippet]:
    """How to read the labels by DuckDB (local disk and S3), pandas, and this program; makes no request.

    Of an output with `output.table` DuckDB reads the table, and pandas alone reads nothing: labels() gives its frame. The parts
    of a split job are tables of their own, which this program reads as one.

    Args:
        labeled: its commits are not looked at.
        path: of the output as it is written in the lines; None: its full path.
        replaced_files: as has_replaced_files; where output.table is none, only this program reads such an output rightly.
    """
    path = labeled.path if path is None else path
    storage = labeled.store.config
    columns = shown_columns(labeled)
    options = pandas_options(storage) if is_s3(path) else {}
    more = f", storage_options={options!r}" if options else ""
    pandas = f"import pandas; print(pandas.read_parquet({path!r}, columns={columns!r}{more}))"
    given = storage.model_dump(exclude_defaults=True, exclude={"cache_folder"}) if not is_local(path) else {}
    more = f", storage={given!r}" if given else ""
    own = f"from jobs import label_corpus; print(label_corpus.labels({path!r}, columns={columns!r}{more}))"
    published = _table_format(labeled) != "none"
    by_glob = not published and not replaced_files
    found = [Snippet("label_corpus", f"python -c {_quoted(own)}")]
    if by_glob:
        found.insert(0, Snippet("pandas", f"python -c {_quoted(pandas)}"))
    if (is_local(path) or is_s3(path)) and (by_glob or (published and not labeled.parts)):
        found.insert(0, Snippet("DuckDB", f"duckdb -c {_quoted(_sql(labeled, path))}"))
    return found


def has_replaced_files(labeled: Labeled) -> bool:
    """Whether a table has a log here, also one that is published no more: for it replaced files stay (kept_files.py)."""
    return any(store.names_in(folder) for store in labeled.stores for folder in (LOG, PUBLISHED))


def _table_format(labeled: Labeled) -> str:
    """`output.table` of the last run that labeled something; joined and earlier outputs have none."""
    return labeled.record["config"]["output"].get("table", "none")


def print_snippets(labeled: Labeled) -> None:
    """Prints the lines for people, on stderr."""
    has_log = has_replaced_files(labeled)
    snippets = reading_snippets(labeled, replaced_files=has_log)
    if has_log and _table_format(labeled) == "none":
        print(TABLE_SWITCHED_OFF, file=sys.stderr)
    print("read the labels:", file=sys.stderr)
    for snippet in snippets:
        print(f"  {snippet.line}", file=sys.stderr)


def print_snippets_of(output: Store) -> None:
    """As print_snippets, from the record of the job alone; where that cannot be read, says so: the labels are there."""
    try:
        record = read_job(output)
        if record is not None:
            print_snippets(Labeled(output, record, Ledger()))
    except store_errors() as error:  # a store that fails after a run does not make the run a failure
        print(f"the output's record cannot be read: {type(error).__name__}: {one_line(error)}", file=sys.stderr)


def shown_columns(labeled: Labeled, model: str | None = None) -> list[str]:
    """The columns that say what a document was labeled: its texts, if they were kept, labels, scores.

    Args:
        model: only of this one of several models.
    """
    source, kept = labeled.record["config"]["input"], labeled.columns.input_columns()
    texts = [name for name in (source["text_column"], source["text_pair_column"]) if name and (kept is None or name in kept)]
    by_model = labeled.columns.by_model()
    outputs = by_model.values() if model is None else [by_model[model]]
    return [*texts, *(name for output in outputs for name in _label_columns(output))]


def _label_columns(output: OutputConfig) -> list[str]:
    return [*([output.labels_column] if output.labels is True else []), output.label_name, output.score_column]


def _sql(labeled: Labeled, path: str) -> str:
    """Documents by the label of the first model."""
    output, storage = labeled.columns, labeled.store.config
    label = next(iter(output.by_model().values())).label_name
    table_format = _table_format(labeled)
    if table_format == "delta":
        rows = f"delta_scan({_literal(path)})"
    elif table_format == "iceberg":
        rows = f"iceberg_scan({_literal(join(path, PUBLISHED))})"
    else:
        folders = output.partition_columns()
        literal = re.sub(r"([*?\[])", r"[\1]", path)  # the name of a folder is no pattern
        parts = ["part-*"] if labeled.parts else []
        glob = join(literal, *parts, *(hive_folder((name,), ("",)) + "*" for name in folders), "*.parquet")
        rows = f"read_parquet({_literal(glob)}{', hive_partitioning = true' if folders else ''})"
        if label in folders:
            label = hive_folder((label,), ("",))[:-1]  # DuckDB decodes values, not names
    label = _identifier(label)
    query = f"SELECT {label}, count(*) FROM {rows} GROUP BY {label}"
    return query if is_local(path) else f"{_secret(storage)}; {query}"


def _secret(storage: StorageConfig) -> str:
    """How DuckDB reaches S3; credentials from the AWS chain, as the job's."""
    options = ["TYPE s3"] if storage.anonymous else ["TYPE s3", "PROVIDER credential_chain"]
    if storage.region:
        options.append(f"REGION {_literal(storage.region)}")
    if storage.endpoint_url:
        scheme, _, host = storage.endpoint_url.rstrip("/").partition("://")
        options += [f"ENDPOINT {_literal(host)}", "URL_STYLE 'path'"]
        options += ["USE_SSL false"] if scheme == "http" else []
    elif storage.path_style:
        options.append("URL_STYLE 'path'")
    return f"CREATE SECRET ({', '.join(options)})"


def pandas_options(storage: StorageConfig) -> dict[str, Any]:
    """`storage_options` of pandas, which are arguments of s3fs; {} where its defaults do."""
    return {
        **({"endpoint_url": storage.endpoint_url} if storage.endpoint_url else {}),
        **({"anon": True} if storage.anonymous else {}),
        **({"client_kwargs": {"region_name": storage.region}} if storage.region else {}),
    }


def _identifier(name: str) -> str:
    """A column's name in SQL; one that ends with `label` is no keyword."""
    return name if re.fullmatch("([a-z][a-z0-9_]*_)?label", name) else '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _quoted(text: str) -> str:
    """An argument for a shell: in double quotes, which the quotes of SQL and Python go well in, unless it has a `!`."""
    return shlex.quote(text) if "!" in text else '"' + re.sub(r'([\\"$`])', r"\\\1", text) + '"'
