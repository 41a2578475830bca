"""Arrow types of the values in JSON lines, and how deep these may be nested."""

import contextlib
import json
from collections import Counter

import numpy as np
import pyarrow as pa

# Levels of lists and objects: with 50, Parquet readers refuse the file; with 64, Arrow the table.
MAX_NESTING = 40


# With 16,000 levels Arrow's JSON parser overflows a stack of 8 MiB. Lines with fewer brackets are not checked, which is slow.
MAX_BRACKETS = 5_000


NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def types_of_lines(lines: list[bytes]) -> pa.Schema:
    """The type of each column in JSON lines; broken lines are skipped.

    JSON's own types are kept: a string stays a string even if it looks like a date or a number, unlike in Arrow's and pandas'
    inference. A column of mixed types gets the type of most of its values; one of nulls alone is a string.
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
    return pa.schema([(name, _common_type(column)) for name, column in values.items()])


def merge_types(schema: pa.Schema, late: pa.Schema) -> pa.Schema:
    """`schema` plus the columns, and fields of columns, that only `late` has; where both have one, `schema` wins."""
    fields = [f.with_type(_merge_type(f.type, late.field(f.name).type)) if f.name in late.names else f for f in schema]
    return pa.schema([*fields, *(field for field in late if field.name not in schema.names)])


def _merge_type(known: pa.DataType, late: pa.DataType) -> pa.DataType:
    """`known` plus the object fields that only `late` has, at any depth."""
    if pa.types.is_struct(known) and pa.types.is_struct(late):
        theirs = {field.name: field.type for field in late}
        ours = [f.with_type(_merge_type(f.type, theirs[f.name])) if f.name in theirs else f for f in known]
        return pa.struct([*ours, *(field for field in late if field.name not in {f.name for f in known})])
    if pa.types.is_list(known) and pa.types.is_list(late):
        return pa.list_(_merge_type(known.value_type, late.value_type))
    return known


def _common_type(values: list[object]) -> pa.DataType:
    present = [value for value in values if value is not None]
    if any(type(value) is int and value >= 2**63 for value in present):
        return pa.uint64()  # 64-bit hashes as numbers; Arrow would take int64 and then refuse them
    try:
        return text_for_null(pa.array(present).type)  # pa.infer_type would return int64 for [1, "a"]
    except (pa.ArrowException, OverflowError):  # mixed types
        return text_for_null(_most_common_type(present))


def _most_common_type(values: list[object]) -> pa.DataType:
    """The type of most values, merged with those of the same kind (list, object, ...) that are compatible with it."""
    kinds = [float if type(value) is int else type(value) for value in values]
    most = Counter(kinds).most_common(1)[0][0]
    types: Counter[pa.DataType] = Counter()
    for value, kind in zip(values, kinds, strict=True):
        if kind is most:
            with contextlib.suppress(pa.ArrowException, OverflowError):  # mixed within itself
                types[pa.array([value]).type] += 1
    common = pa.null()
    for data_type, _ in types.most_common():
        with contextlib.suppress(pa.ArrowException):
            fields = [pa.schema([("value", known)]) for known in (common, data_type)]
            common = pa.unify_schemas(fields, promote_options="permissive").field("value").type
    return common


def text_for_null(data_type: pa.DataType) -> pa.DataType:
    """`data_type` with string in place of null, and of dates inferred from text, at any depth."""
    if pa.types.is_null(data_type) or pa.types.is_temporal(data_type):
        return pa.string()
    if pa.types.is_list(data_type):
        return pa.list_(text_for_null(data_type.value_type))
    if pa.types.is_struct(data_type):
        return pa.struct([field.with_type(text_for_null(field.type)) for field in data_type])
    return data_type


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
