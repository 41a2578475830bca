"""Arrow types of the values in JSON lines, and how deep these may be nested."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline_ops.line_formats.fitted_values import is_unicode, reads
from pipeline_ops.schema.exact_types import exact

# Levels of lists and objects: with 50, Parquet readers refuse the file; with 64, Arrow the table.
MAX_NESTING = 40


KINDS = {bool: "bool", int: "int64", float: "double", str: "string", list: "list", dict: "object"}


# With 16,000 levels Arrow's JSON parser overflows a stack of 8 MiB. Lines with fewer brackets are not checked, which is slow.
MAX_BRACKETS = 5_000


LISTS = (
    pa.types.is_list,
    pa.types.is_large_list,
    pa.types.is_fixed_size_list,
    pa.types.is_list_view,
    pa.types.is_large_list_view,
)
# what Arrow's JSON parser gives; dates and times only from numbers
PARSED = (
    pa.types.is_null,
    pa.types.is_boolean,
    pa.types.is_integer,
    pa.types.is_floating,
    pa.types.is_decimal,
    pa.types.is_timestamp,
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_binary,
    pa.types.is_large_binary,
)
NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def types_of_lines(lines: list[bytes]) -> pa.Schema:
    """The type of each column in JSON lines; broken lines are skipped.

    JSON's own types are kept: a string stays a string even if it looks like a date or a number, unlike in Arrow's and pandas'
    inference. A column of values that no type holds has the type of mixed_type; one of nulls alone, or a part of it, null.
    """
    values: dict[str, list[object]] = {}
    for line in lines:
        try:
            document = None if is_nested_deeper(line) else json.loads(line.decode())
            if b"\\ud" in line.lower():
                json.dumps(document, ensure_ascii=False).encode()  # half a surrogate pair is no text
        except ValueError:
            continue  # rejected when it is parsed
        if isinstance(document, dict):
            for name, value in document.items():
                values.setdefault(name, []).append(value)
    fields = {name: pa.field(name, _common_type(column)) for name, column in values.items()}
    return pa.schema([exact(field) if _has_exact(values[name]) else field for name, field in fields.items()])


def _has_exact(value: object) -> bool:
    """Whether a double holds exactly each integer in a JSON value."""
    if isinstance(value, int):
        return abs(value) <= 2**53
    if isinstance(value, list | dict):
        return all(map(_has_exact, value.values() if isinstance(value, dict) else value))
    return True


def add_late_fields(schema: pa.Schema, documents: list[dict[str, Any]], *, columns: bool) -> pa.Schema:
    """`schema` plus, as strings, the fields of objects at any depth, and the columns, that it lacks.

    Args:
        columns: add columns; otherwise only fields.
    """
    whole, late = pa.struct([*schema]), dict[tuple[str, ...], None]()
    fields = _fields(whole)
    for document in documents:
        _find_late(document, fields, (), late)
    for path in late:
        if (columns or len(path) > 1) and is_unicode(path[-1]):  # an object with another name does not fit
            whole = _with_field(whole, path)
    return pa.schema([*whole])


Fields = dict[str, "Fields"] | list["Fields"] | None  # of an object, by name; of a list's items; of a type without any


def _fields(data_type: pa.DataType) -> Fields:
    if pa.types.is_struct(data_type):
        return {field.name: _fields(field.type) for field in data_type}
    return [_fields(data_type.value_type)] if pa.types.is_list(data_type) else None


def _find_late(value: Any, known: Fields, path: tuple[str, ...], late: dict[tuple[str, ...], None]) -> None:
    """Adds to `late` the paths of the fields in a JSON value that its type lacks."""
    if isinstance(value, dict) and isinstance(known, dict):
        for name, item in value.items():
            if name not in known:
                late[*path, name] = None
            elif isinstance(item, dict | list):
                _find_late(item, known[name], (*path, name), late)
    elif isinstance(value, list) and isinstance(known, list):
        for item in value:
            _find_late(item, known[0], path, late)


def _with_field(known: pa.DataType, path: tuple[str, ...]) -> pa.DataType:
    if pa.types.is_list(known):
        return pa.list_(known.value_field.with_type(_with_field(known.value_type, path)))
    name, *rest = path
    if not rest:
        return pa.struct([*known, pa.field(name, pa.string())])
    return pa.struct([f.with_type(_with_field(f.type, tuple(rest))) if f.name == name else f for f in known])


def merge_type(known: pa.DataType, late: pa.DataType) -> pa.DataType:
    """`known` plus the object fields that only `late` has, as strings, at any depth."""
    if pa.types.is_struct(known) and pa.types.is_struct(late):
        theirs = {field.name: field.type for field in late}
        ours = [f.with_type(merge_type(f.type, theirs.pop(f.name))) if f.name in theirs else f for f in known]
        return pa.struct([*ours, *(pa.field(name, pa.string()) for name in theirs)])
    if pa.types.is_list(known) and pa.types.is_list(late):
        return pa.list_(known.value_field.with_type(merge_type(known.value_type, late.value_type)))
    return known


def _common_type(values: list[object]) -> pa.DataType:
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int, float} and all(map(reads(pa.float64()), values)):
        return pa.float64()
    if kinds == {int} and not all(map(reads(pa.int64()), values)):  # 64-bit hashes as numbers, or more
        return pa.uint64() if all(map(reads(pa.uint64()), values)) else mixed_type(["integers beyond 64 bits"])
    try:
        if not kinds >= {bool, float}:  # pa.array([0.5, False]) would be [0.5, 0.0]
            return pa.array(values).type  # pa.infer_type would return int64 for [1, "a"]
    except (pa.ArrowException, OverflowError):
        pass
    names = [*dict.fromkeys(KINDS[type(value)] for value in values if value is not None)]
    return mixed_type(names if len(names) > 1 else [f"{names[0]} of several types"])


def mixed_type(kinds: Sequence[str]) -> pa.DataType:
    """The type of a column with values of several kinds: a union whose fields are named after them."""
    return pa.sparse_union([pa.field(kind, pa.null()) for kind in kinds])


def with_children(data_type: pa.DataType, change: Callable[[pa.DataType], pa.DataType]) -> pa.DataType:
    """A list, struct or map with `change` applied to the types of its items or fields; any other type as it is.

    Items and fields may be null: what one file has in each row, another one may lack.
    """

    def changed(field: pa.Field) -> pa.Field:
        return field.with_type(change(field.type)).with_nullable(True)

    if pa.types.is_struct(data_type):
        return pa.struct([changed(field) for field in data_type])
    if pa.types.is_map(data_type):
        return pa.map_(change(data_type.key_type), changed(data_type.item_field))
    if pa.types.is_list(data_type):
        return pa.list_(changed(data_type.value_field))
    if pa.types.is_large_list(data_type):
        return pa.large_list(changed(data_type.value_field))
    if pa.types.is_fixed_size_list(data_type):
        return pa.list_(changed(data_type.value_field), data_type.list_size)
    return data_type


def text_for_null(data_type: pa.DataType) -> pa.DataType:
    """`data_type` with string in place of null and of an object without fields, for which Parquet has no type, at any depth."""
    if pa.types.is_null(data_type) or data_type == pa.struct([]):
        return pa.string()
    return with_children(data_type, text_for_null)


def json_type(data_type: pa.DataType) -> pa.DataType:
    """A type that Arrow's JSON parser gives, for values that are cast to `data_type`: the parser lacks other lists, dates, ...

    String where the parser has no such type.
    """
    if pa.types.is_dictionary(data_type):
        return json_type(data_type.value_type)
    if pa.types.is_struct(data_type):
        return pa.struct([field.with_type(json_type(field.type)) for field in data_type])
    if any(is_a(data_type) for is_a in LISTS):
        return pa.list_(json_type(data_type.value_type))
    if pa.types.is_float16(data_type):
        return pa.float32()
    if pa.types.is_duration(data_type):
        return pa.int64()
    return data_type if any(is_a(data_type) for is_a in PARSED) else pa.string()


def is_nested_deeper(line: bytes, brackets: int = MAX_NESTING) -> bool:
    """True if a line is nested deeper than MAX_NESTING levels; not checked in lines of at most `brackets` opening brackets."""
    if len(line) <= brackets or line.count(b"[") + line.count(b"{") <= brackets:
        return False
    outside = line.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2]  # of strings
    found = np.frombuffer(b"".join(outside).translate(None, NOT_BRACKETS), np.uint8)
    steps = np.where((found == ord("[")) | (found == ord("{")), 1, -1)
    return bool(steps.cumsum().max(initial=0) > MAX_NESTING)


def check_nesting(schema: pa.Schema) -> None:
    """Raises ArrowInvalid if a column is nested deeper than MAX_NESTING levels."""
    types = list(schema.types)
    for _ in range(MAX_NESTING + 1):
        types = [data_type.field(index).type for data_type in types for index in range(data_type.num_fields)]
    if types:
        raise pa.ArrowInvalid(f"nested deeper than {MAX_NESTING} levels")
