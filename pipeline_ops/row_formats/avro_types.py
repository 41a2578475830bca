"""Avro schemas -> Arrow types, and how the values that fastavro gives without logical types become values of these."""

from collections.abc import Callable
from decimal import Context, Decimal
from typing import Any

import pyarrow as pa

from pipeline_ops.line_formats.fitted_values import as_text

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
WIDER = (({pa.int32(), pa.int64()}, pa.int64()), ({pa.int32(), pa.float32(), pa.float64()}, pa.float64()))


def columns_of(schema: Any) -> dict[str, tuple[pa.DataType, Convert]]:
    """{field: (its type, how its values are converted)} of a record.

    A union with null is its other branch; of several branches the wider of two numbers, else a string, with what is no string
    as JSON. A record within itself, which Arrow's types cannot express, is such a string as well.

    Args:
        schema: as fastavro.reader.writer_schema, with the full names of named types.

    Raises:
        ValueError: it is no record.
    """
    if not isinstance(schema, dict) or schema.get("type") != "record":
        raise ValueError("its schema is no record")
    named: dict[str, Any] = {}
    _collect(schema, named)
    return {field["name"]: _typed(field["type"], named, (schema["name"],)) for field in schema["fields"]}


def without_logical_types(schema: Any) -> Any:
    """The same schema, whose values are then read as they are stored: exact, and of any year."""
    if isinstance(schema, dict):
        return {key: without_logical_types(value) for key, value in schema.items() if key != "logicalType"}
    return [without_logical_types(branch) for branch in schema] if isinstance(schema, list) else schema


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
        return _union([_typed(branch, named, above) for branch in schema if branch != "null"])
    if isinstance(schema, str):
        if schema in PRIMITIVES:
            return PRIMITIVES[schema], None
        return (pa.string(), as_text) if schema in above else _typed(named[schema], named, above)
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


def _union(branches: list[tuple[pa.DataType, Convert]]) -> tuple[pa.DataType, Convert]:
    if len(branches) < 2:
        return branches[0] if branches else (pa.null(), None)
    types = {data_type for data_type, _ in branches}
    if all(convert is None for _, convert in branches):
        if len(types) == 1:
            return branches[0]
        for narrower, wide in WIDER:
            if types <= narrower:
                return wide, None
    return pa.string(), as_text


def _decimal(precision: int | None, scale: int) -> tuple[pa.DataType, Convert]:
    context = Context(prec=10_000)

    def convert(value: bytes) -> Decimal:
        return Decimal(int.from_bytes(value, "big", signed=True)).scaleb(-scale, context)

    if precision is not None and 0 < precision <= 76 and 0 <= scale <= precision:
        return (pa.decimal128 if precision <= 38 else pa.decimal256)(precision, scale), convert
    return pa.string(), lambda value: str(convert(value))
