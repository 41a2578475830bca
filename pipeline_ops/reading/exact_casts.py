"""Casts that keep values: where Arrow's would change one without a word, it is an error."""

import pyarrow as pa
import pyarrow.compute as pc

from pipeline_ops.line_formats.fitted_values import STRINGS, fit_value
from pipeline_ops.row_formats.plain_types import BYTES_OR_STRINGS, values_of

JSON_NUMBER = r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$"  # "007" and "+1" are texts
JSON_BOOL = "^(true|false)$"


def cast_exactly(column: pa.ChunkedArray, wanted: pa.DataType, asked: bool) -> pa.ChunkedArray:
    """A column as `wanted`, with the same values.

    Args:
        asked: a person wants this type, or the column is text that stands for values of any type, as in CSV. Then texts are
            parsed, floats are rounded to narrower ones, and an integer may become a time. Otherwise a value of another kind
            is an error: a bool for a number, a number for a time, a time without a zone for one with a zone, "007" for 7.

    Raises:
        pa.ArrowException, TypeError, ValueError, OverflowError: some value does not fit.
    """
    if column.null_count == len(column):
        return pa.chunked_array([pa.nulls(len(column), wanted)])
    if not asked:
        _check_kinds(column.type, wanted)
    try:
        cast = column.cast(wanted)
    except pa.ArrowNotImplementedError:
        return pa.chunked_array([pa.array([fit_value(value, wanted) for value in values_of(column)], wanted)])
    if column.type in BYTES_OR_STRINGS and (_is_number(wanted) or pa.types.is_boolean(wanted)):
        own = JSON_NUMBER if _is_number(wanted) else JSON_BOOL
        same = asked or bool(pc.all(pc.match_substring_regex(column.cast(pa.large_string()), own), min_count=0).as_py())
    elif asked and pa.types.is_floating(column.type) and pa.types.is_floating(wanted):
        same = pc.sum(pc.is_finite(column)) == pc.sum(pc.is_finite(cast))
    else:
        same = _is_kept(column.type, wanted) or _is_equal(cast.cast(column.type), column)
    if not same:
        raise pa.ArrowInvalid(f"{wanted} does not hold each {column.type}")
    return cast


def _is_equal(one: pa.ChunkedArray, other: pa.ChunkedArray) -> bool:
    """Whether two columns of one type have the same values; NaN is NaN."""
    return one.equals(other) or repr(values_of(one)) == repr(values_of(other))


def _check_kinds(known: pa.DataType, wanted: pa.DataType) -> None:
    """Raises pa.ArrowInvalid if the types, or those of items or fields, mean different things."""
    for ours, theirs in _children(known, wanted):
        _check_kinds(ours, theirs)
    kinds = _kind(known), _kind(wanted)
    if None not in kinds and kinds[0] != kinds[1] and known not in BYTES_OR_STRINGS and wanted not in STRINGS:
        raise pa.ArrowInvalid(f"{known} is no {wanted}")


def _kind(data_type: pa.DataType) -> str | None:
    if pa.types.is_timestamp(data_type):
        return "date" if data_type.tz is None else "instant"
    for kind, belongs in (
        ("number", _is_number),
        ("bool", pa.types.is_boolean),
        ("date", pa.types.is_date),
        ("time", pa.types.is_time),
        ("duration", pa.types.is_duration),
        ("bytes", lambda known: known in BYTES_OR_STRINGS or pa.types.is_fixed_size_binary(known)),
    ):
        if belongs(data_type):
            return kind
    return None


def _is_number(data_type: pa.DataType) -> bool:
    return pa.types.is_integer(data_type) or pa.types.is_floating(data_type) or pa.types.is_decimal(data_type)


def _is_kept(known: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether Arrow's cast raises an error for each value that it would change."""
    if known.num_fields or wanted.num_fields:
        children = _children(known, wanted)
        return bool(children) and all(_is_kept(ours, theirs) for ours, theirs in children)
    if known == wanted or wanted in STRINGS or pa.types.is_null(known):
        return True
    if pa.types.is_integer(known):
        return _is_number(wanted)
    if pa.types.is_floating(known):
        return pa.types.is_integer(wanted) or (pa.types.is_floating(wanted) and wanted.bit_width > known.bit_width)
    if known in BYTES_OR_STRINGS:  # of a time; numbers are looked at before
        return wanted in BYTES_OR_STRINGS or pa.types.is_temporal(wanted)
    return known.id == wanted.id and pa.types.is_temporal(known)  # of another unit


def _children(known: pa.DataType, wanted: pa.DataType) -> list[tuple[pa.DataType, pa.DataType]]:
    """The types of items, or of fields with the same name, in both."""
    if pa.types.is_struct(known) and pa.types.is_struct(wanted):
        return [(field.type, wanted.field(field.name).type) for field in known if wanted.get_field_index(field.name) >= 0]
    if known.num_fields == wanted.num_fields == 1:
        return [(known.field(0).type, wanted.field(0).type)]
    return []
