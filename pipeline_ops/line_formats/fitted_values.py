"""JSON values as an Arrow type takes them: which ones Arrow's JSON parser reads as they are, and text for what is no string."""

import json
import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa

STRINGS = {pa.string(), pa.large_string()}


class Constant(float):
    """NaN, Infinity or -Infinity where JSON says so; a number too large for a double is a float that is infinite."""


class RepeatedKeys(dict[str, Any]):
    """A JSON object that has a key more than once; as JSON it has all of them."""

    def __init__(self, pairs: list[tuple[str, Any]]):
        super().__init__(pairs)
        self.pairs = pairs

    def items(self) -> Any:
        return self.pairs


def load_json(line: bytes) -> Any:
    """A JSON value; raises UnicodeDecodeError, ValueError, or RecursionError where it is nested too deep."""
    return DECODER.decode(line.decode())


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else RepeatedKeys(pairs)


DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=Constant)


def reads(data_type: pa.DataType) -> Callable[[Any], bool]:
    """Whether Arrow's JSON parser reads a JSON value, of load_json, as this type (of json_types.json_type), and exactly.

    A float is the nearest one of the type, as JSON's numbers always are; an integer in a column of floats has to be equal.
    """
    check = _reads_value(data_type)
    return lambda value: value is None or check(value)


def _reads_value(data_type: pa.DataType) -> Callable[[Any], bool]:
    if data_type in STRINGS or pa.types.is_binary(data_type) or pa.types.is_large_binary(data_type):
        return lambda value: type(value) is str
    if pa.types.is_boolean(data_type):
        return lambda value: type(value) is bool
    if pa.types.is_integer(data_type):
        limits = np.iinfo(data_type.to_pandas_dtype())
        least, greatest = int(limits.min), int(limits.max)
        return lambda value: type(value) is int and least <= value <= greatest
    if pa.types.is_floating(data_type):
        return _reads_float(data_type)
    if pa.types.is_decimal(data_type):
        return lambda value: isinstance(value, int | float | str) and type(value) is not bool and _is_cast(value, data_type)
    if pa.types.is_timestamp(data_type):
        zoned = pa.timestamp(data_type.unit, "UTC")
        return lambda value: isinstance(value, str) and any(_is_cast(value, t) for t in (pa.timestamp(data_type.unit), zoned))
    if pa.types.is_struct(data_type):
        fields = {field.name: reads(field.type) for field in data_type}
        return lambda value: type(value) is dict and all(name in fields and fields[name](value[name]) for name in value)
    if pa.types.is_list(data_type):
        item = reads(data_type.value_type)
        return lambda value: type(value) is list and all(map(item, value))
    return lambda value: False  # null


def _reads_float(data_type: pa.DataType) -> Callable[[Any], bool]:
    rounded = data_type.to_pandas_dtype()

    def check(value: Any) -> bool:
        if isinstance(value, float):
            return math.isfinite(value) or isinstance(value, Constant)
        if type(value) is not int:
            return False
        return abs(value) <= EXACT_INTEGERS[data_type] or (abs(value) < 2**128 and int(rounded(value)) == value)

    return check


# up to these, floats hold all integers
EXACT_INTEGERS = {pa.float16(): 2**11, pa.float32(): 2**24, pa.float64(): 2**53}


def _is_cast(value: Any, data_type: pa.DataType) -> bool:
    text = value if isinstance(value, str) else str(Decimal(repr(value)))
    try:
        pa.scalar(text).cast(data_type)
    except pa.ArrowException:
        return False
    return True


def fit_value(value: Any, data_type: pa.DataType) -> Any:
    """A value with text in place of whatever is no string where `data_type` has strings, at any depth.

    Raises:
        pa.ArrowInvalid: text is no date or time where `data_type` has one.
    """
    if data_type in STRINGS:
        return as_text(value)
    if pa.types.is_struct(data_type) and type(value) is dict:
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
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else _dump(value)


def as_json(value: Any) -> str:
    """A value as JSON text that UTF-8 can hold: half a surrogate pair stays an escape."""
    return _dump(value) if is_unicode(value) else json.dumps(value, default=_plain)


def is_unicode(value: Any) -> bool:
    """False for a JSON value with half a surrogate pair in it, which UTF-8 cannot hold."""
    try:
        _dump(value).encode()
    except UnicodeEncodeError:
        return False
    return True


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> str | None:
    """What JSON has no form for."""
    return as_text(value) if isinstance(value, bytes) else str(value)
