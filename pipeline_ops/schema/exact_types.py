"""Whether the values of a sample keep their exact value in a wider type; the mark of columns whose values do."""

import pyarrow as pa

EXACT = b"exact"  # key of a field's metadata
UNITS_IN_NS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "D": 86_400 * 10**9}


def exact(field: pa.Field) -> pa.Field:
    """Marks a column of a sample: a double holds its integers exactly, and timestamp[ns] its dates and times."""
    return field.with_metadata({EXACT: b""})


def are_exact(data_type: pa.DataType, least: int, greatest: int) -> bool:
    """Whether a double holds integers, and timestamp[ns] dates and times, exactly, by the least and the greatest of them.

    Args:
        least, greatest: in the units of the type; of uint64 as int64 with the same bits.
    """
    if pa.types.is_timestamp(data_type) or pa.types.is_date(data_type):
        unit = UNITS_IN_NS["D" if data_type == pa.date32() else "ms" if data_type == pa.date64() else data_type.unit]
        return least * unit > -(2**63) and greatest * unit < 2**63
    lowest = 0 if pa.types.is_unsigned_integer(data_type) else -(2**53)
    return all(lowest <= value <= 2**53 for value in (least, greatest))
