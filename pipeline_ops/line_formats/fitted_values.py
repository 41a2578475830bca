"""Python values as an Arrow type takes them: text in place of whatever is no string where the type has one."""

import json
from typing import Any

import pyarrow as pa

STRINGS = {pa.string(), pa.large_string()}


def has_strings(data_type: pa.DataType) -> bool:
    """Whether a type is string, or has strings in it."""
    return data_type in STRINGS or any(has_strings(data_type.field(index).type) for index in range(data_type.num_fields))


def has_strings_only(value: Any, data_type: pa.DataType) -> bool:
    """Whether a JSON value has strings, or nulls, where `data_type` has strings, at any depth."""
    if data_type in STRINGS:
        return value is None or isinstance(value, str)
    if pa.types.is_struct(data_type) and isinstance(value, dict):
        return all(has_strings_only(value.get(field.name), field.type) for field in data_type)
    if pa.types.is_list(data_type) and isinstance(value, list):
        return all(has_strings_only(item, data_type.value_type) for item in value)
    return True


def fit_value(value: Any, data_type: pa.DataType) -> Any:
    """A value with text in place of whatever is no string where `data_type` has strings, at any depth.

    Raises:
        pa.ArrowInvalid: text is no date or time where `data_type` has one.
    """
    if data_type in STRINGS:
        return as_text(value)
    if pa.types.is_struct(data_type) and isinstance(value, dict):
        return {field.name: fit_value(value.get(field.name), field.type) for field in data_type}
    if pa.types.is_list(data_type) and isinstance(value, list):
        return [fit_value(item, data_type.value_type) for item in value]
    if pa.types.is_date(data_type) and isinstance(value, str):
        return pa.scalar(value).cast(data_type).value
    if pa.types.is_time(data_type) and isinstance(value, str):  # Arrow does not cast it
        return pa.scalar(f"1970-01-01T{value}").cast(pa.timestamp("ns")).cast(data_type).value
    return value


def as_text(value: Any) -> str | None:
    """A value as text: a string as it is, bytes decoded (those that are not UTF-8 as \\xNN), anything else as JSON."""
    if value is None or isinstance(value, str):
        return value
    return (
        value.decode(errors="backslashreplace")
        if isinstance(value, bytes)
        else json.dumps(value, ensure_ascii=False, default=_plain)
    )


def _plain(value: Any) -> str | None:
    """What JSON has no form for."""
    return as_text(value) if isinstance(value, bytes) else str(value)
