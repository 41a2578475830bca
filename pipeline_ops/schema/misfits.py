"""Values that do not fit the settled type of their column: null there, and kept as JSON text in a file beside the labeled rows.

While documents pass the stages, a row's misfits travel in a column of their own, which the write stage takes off: the files of
an output have the same columns whether values misfit or not.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipeline_ops.schema.errors import UserError

MISFITS_FOLDER = "_misfits"
MISFITS_COLUMN = "label_corpus:misfits"  # per row a JSON object {column: JSON text of the value}; null for none

Misfits = Mapping[int, Mapping[str, str]]  # {index of a row: {column: JSON text of the value}}


@dataclass(frozen=True)
class Misfit:
    """A value that is null in its column, since it does not fit the column's type."""

    source_file: str
    source_row: int
    column: str
    value: str  # JSON


def check_not_reserved(names: Iterable[str]) -> None:
    """Raises UserError if a column of the input has the name of MISFITS_COLUMN."""
    if MISFITS_COLUMN in names:
        raise UserError(f"the input has a column {MISFITS_COLUMN!r}, a name that is reserved; rename it")


def misfits_array(misfits: Misfits, num_rows: int) -> pa.Array:
    """MISFITS_COLUMN for so many rows."""
    if not misfits:
        return pa.nulls(num_rows, pa.string())
    cells = [json.dumps(misfits[row]) if row in misfits else None for row in range(num_rows)]
    return pa.array(cells, pa.string())


def misfits_of(column: pa.ChunkedArray) -> dict[int, dict[str, str]]:
    """The misfits in a MISFITS_COLUMN."""
    rows = pc.indices_nonzero(column.is_valid()).to_pylist() if column.null_count < len(column) else []
    return {row: json.loads(column[row].as_py()) for row in rows}


def pack_misfits(misfits: Iterable[Misfit]) -> bytes:
    """The misfits as JSON lines, UTF-8; the content of a misfits file."""
    return "".join(json.dumps(asdict(misfit), ensure_ascii=False) + "\n" for misfit in misfits).encode()


def unpack_misfits(lines: bytes) -> list[Misfit]:
    """The misfits in what pack_misfits returns."""
    return [Misfit(**json.loads(line)) for line in lines.split(b"\n") if line]


def count_misfits(misfits: Iterable[Misfit]) -> dict[str, int]:
    """{column: how many of its values misfit}."""
    return dict(sorted(Counter(misfit.column for misfit in misfits).items()))
