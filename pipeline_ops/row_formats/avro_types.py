"""Avro schemas -> Arrow types, and how the values that fastavro gives without logical types become values of these.

fastavro does not say which branch of a union a value is of. So each branch is read as a record with one field, which is stored
as the branch alone would be, and whose name says which branch it is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from itertools import count
from typing import Any

import pyarrow as pa

from pipeline_ops.line_formats.fitted_values import as_text
from pipeline_ops.row_formats.plain_types import as_strings

Convert = Callable[[Any], Any] | None  # of values that are not null; None: they stay as they are

PRIMITIVES = {
    "null": pa.null(),
    "boolean": pa.bool_(),
    "int": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "bytes": pa.binary(),
    "string": pa.string(),
}
LOGICAL = {  # {(logicalType, type): Arrow's}; a logical type of any other type is none, as the specification has it
    ("date", "int"): pa.date32(),
    ("time-millis", "int"): pa.time32("ms"),
    ("time-micros", "long"): pa.time64("us"),
    **{
        (f"timestamp-{name}", "long"): pa.timestamp(unit, "UTC")
        for name, unit in (("millis", "ms"), ("micros", "us"), ("nanos", "ns"))
    },
    **{
        (f"local-timestamp-{name}", "long"): pa.timestamp(unit)
        for name, unit in (("millis", "ms"), ("micros", "us"), ("nanos", "ns"))
    },
}
BRANCH = "label_corpus_branch_"  # and its number: the name of the field of a branch
WIDER = (({pa.int32(), pa.int64()}, pa.int64()), ({pa.int32(), pa.float32(), pa.float64()}, pa.float64()))


def columns_of(schema: Any) -> dict[str, tuple[pa.DataType, Convert]]:
    """{field: (its type, how its values are converted)} of a record.

    A union with null is its other branch; of several branches the wider of two numbers, else a union (union_array), or a string
    inside lists and records. A record within itself, which Arrow's types cannot express, is a string with its JSON.

    Args:
        schema: as fastavro.reader.writer_schema, with the full names of named types.

    Raises:
        ValueError: it is no record.
    """
    if not isinstance(schema, dict) or schema.get("type") != "record":
        raise ValueError("its schema is no record")
    named: dict[str, Any] = {}
    _collect(schema, named)
    columns = {}
    for field in schema["fields"]:
        data_type, convert = _typed(field["type"], named, (schema["name"],))
        if isinstance(convert, Mixed):
            fields = [pa.field(str(known), known) for known, _ in convert.branches]
            data_type, convert = pa.sparse_union(fields), convert.of_branch
        columns[field["name"]] = (data_type, convert)
    return columns


def as_stored(schema: Any) -> Any:
    """The same schema without logical types, so that values are read exactly and of any year, and with BRANCH."""
    numbers = count()

    def changed(schema: Any) -> Any:
        if isinstance(schema, dict):
            stored = {key: value for key, value in schema.items() if key != "logicalType"}
            inner = {key: changed(stored[key]) for key in ("type", "items", "values") if key in stored}
            fields = {"fields": [*map(changed, stored["fields"])]} if "fields" in stored else {}
            return stored | inner | fields
        if not isinstance(schema, list):
            return schema
        branches = [branch for branch in schema if branch != "null"]
        if len(branches) < 2:
            return [changed(branch) for branch in schema]
        return [branch if branch == "null" else wrapped(branch, branches.index(branch)) for branch in schema]

    def wrapped(branch: Any, number: int) -> dict[str, Any]:
        field = {"name": f"{BRANCH}{number}", "type": changed(branch)}
        return {"type": "record", "name": f"{BRANCH}{next(numbers)}", "namespace": "", "fields": [field]}

    return changed(schema)


def union_array(values: Sequence[tuple[int, Any] | None], data_type: pa.DataType) -> pa.Array:
    """Values of a column of unions, as columns_of converts them: (number of the branch, value)."""
    pairs = [value or (0, None) for value in values]
    children = [
        pa.array([value if number == own else None for own, value in pairs], field.type)
        for number, field in enumerate(data_type)
    ]
    codes = pa.array([number for number, _ in pairs], pa.int8())
    return pa.UnionArray.from_sparse(codes, children, [field.name for field in data_type])


def _collect(schema: Any, named: dict[str, Any]) -> None:
    """Adds the named types that a schema defines."""
    if isinstance(schema, list):
        for branch in schema:
            _collect(branch, named)
    elif isinstance(schema, dict):
        if "name" in schema:
            named[schema["name"]] = schema
        for inner in (schema.get("type"), schema.get("items"), schema.get("values")):
            _collect(inner, named)
        for field in schema.get("fields", ()):
            _collect(field["type"], named)


def _typed(schema: Any, named: dict[str, Any], above: tuple[str, ...]) -> tuple[pa.DataType, Convert]:
    """(Arrow type, conversion); `above`: the records that this is in."""
    if isinstance(schema, list):
        return _union(tuple(_typed(branch, named, above) for branch in schema if branch != "null"))
    if isinstance(schema, str):
        if schema in PRIMITIVES:
            return PRIMITIVES[schema], None
        return (pa.string(), _as_json) if schema in above else _typed(named[schema], named, above)
    kind = schema["type"]
    if kind == "array":
        item, convert = _typed(schema["items"], named, above)
        return pa.list_(item), convert and (lambda values: [_converted(value, convert) for value in values])
    if kind == "map":
        item, convert = _typed(schema["values"], named, above)
        return pa.map_(pa.string(), item), lambda values: [(key, _converted(value, convert)) for key, value in values.items()]
    if kind == "record":
        return _struct({field["name"]: _typed(field["type"], named, (*above, schema["name"])) for field in schema["fields"]})
    if kind == "enum":
        return pa.string(), None
    if schema.get("logicalType") == "decimal" and kind in ("bytes", "fixed"):
        return _decimal(schema.get("precision"), schema.get("scale", 0))
    if kind == "fixed":
        return pa.binary(schema["size"]), None
    if isinstance(kind, str) and kind in PRIMITIVES:
        return LOGICAL.get((schema.get("logicalType"), kind), PRIMITIVES[kind]), None
    return _typed(kind, named, above)


def _converted(value: Any, convert: Convert) -> Any:
    return value if value is None or convert is None else convert(value)


def _struct(fields: dict[str, tuple[pa.DataType, Convert]]) -> tuple[pa.DataType, Convert]:
    converts = {name: convert for name, (_, convert) in fields.items() if convert is not None}

    def convert(value: dict[str, Any]) -> dict[str, Any]:
        return value | {name: _converted(value[name], change) for name, change in converts.items()}

    return pa.struct([(name, data_type) for name, (data_type, _) in fields.items()]), convert if converts else None


@dataclass(frozen=True)
class Mixed:
    """The conversion of a union's values, of branches that are no one type, to strings."""

    branches: tuple[tuple[pa.DataType, Convert], ...]

    def of_branch(self, value: dict[str, Any]) -> tuple[int, Any]:
        """(number of the branch, converted value)."""
        ((name, inner),) = value.items()
        number = int(name.removeprefix(BRANCH))
        return number, _converted(inner, self.branches[number][1])

    def __call__(self, value: dict[str, Any]) -> str | None:
        number, inner = self.of_branch(value)
        return as_strings(pa.chunked_array([pa.array([inner], self.branches[number][0])]))[0].as_py()


def _of_any_branch(value: dict[str, Any]) -> Any:
    (inner,) = value.values()
    return inner


def _as_json(value: Any) -> str | None:
    return as_text(_without_branches(value))


def _without_branches(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_branches(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1 and next(iter(value)).startswith(BRANCH):
        return _without_branches(_of_any_branch(value))
    return {key: _without_branches(item) for key, item in value.items()}


def _union(branches: tuple[tuple[pa.DataType, Convert], ...]) -> tuple[pa.DataType, Convert]:
    if len(branches) < 2:
        return branches[0] if branches else (pa.null(), None)
    types = {data_type for data_type, _ in branches}
    if all(convert is None for _, convert in branches):
        if len(types) == 1:
            return branches[0][0], _of_any_branch
        for narrower, wide in WIDER:
            if types <= narrower:
                return wide, _of_any_branch
    return pa.string(), Mixed(branches)


def _decimal(precision: int | None, scale: int) -> tuple[pa.DataType, Convert]:
    context = Context(prec=10_000)

    def convert(value: bytes) -> Decimal:
        return Decimal(int.from_bytes(value, "big", signed=True)).scaleb(-scale, context)

    if precision is not None and 0 < precision <= 76 and 0 <= scale <= precision:
        return (pa.decimal128 if precision <= 38 else pa.decimal256)(precision, scale), convert
    return pa.string(), lambda value: str(convert(value))
