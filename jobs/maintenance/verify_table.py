"""The table of an output against its commits, for `label-corpus verify`."""

from collections.abc import Sequence
from typing import Any

from jobs.number_format import counted
from pipeline_ops.output.labeled_output import Labeled
from pipeline_ops.publishing.open_table import open_table
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.storage.store import Store


def compare_table(store: Store, outputs: Sequence[Labeled], config: OutputConfig) -> dict[str, Any] | None:
    """Compares the newest version with the current commits; None where the output is published as no table.

    Args:
        store: of the whole output.
        outputs: it, or the parts of a split job, of which each is a table.

    Returns:
        format; version (None: there is none yet, or there are several parts); missing and extra: relative paths of labeled
        files that it lacks, and of files that it has and no current commit names.

    Raises:
        UserError: the table cannot be read.
    """
    tables = [(one, table) for one in outputs if (table := open_table(one.store, config)) is not None]
    if not tables:
        return None
    missing, extra, versions = list[str](), list[str](), list[int | None]()
    for one, table in tables:
        seen = table.read()
        versions.append(seen.version)
        named = {file.path for commit in one.ledger.current.values() for file in commit.files}
        missing += [store.relative(one.store.join(path)) for path in sorted(named - seen.paths)]
        extra += [store.relative(one.store.join(path)) for path in sorted(seen.paths - named)]
    version = versions[0] if len(versions) == 1 else None
    return {"format": tables[0][1].format, "version": version, "missing": missing, "extra": extra}


def is_right(found: dict[str, Any] | None) -> bool:
    return found is None or not (found["missing"] or found["extra"])


def table_line(found: dict[str, Any]) -> str:
    """What differs, for people."""
    missing = counted(len(found["missing"]), "committed file")
    extra = f", and has {len(found['extra']):,} that no commit names" if found["extra"] else ""
    named = f"the newest version of the {found['format']} table"
    return f"table: {named} lacks {missing}{extra}; `label-corpus publish` brings it up to date"
