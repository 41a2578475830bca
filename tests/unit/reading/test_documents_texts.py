"""Types of columns that can hold texts."""

import pyarrow as pa
import pytest

from pipeline_ops.reading.documents import is_text_type


@pytest.mark.parametrize(
    ("data_type", "expected"),
    [
        (pa.string(), True),
        (pa.large_string(), True),
        (pa.string_view(), True),
        (pa.binary(), True),
        (pa.dictionary(pa.int32(), pa.string()), True),
        (pa.int64(), False),
        (pa.list_(pa.string()), False),
        (pa.dictionary(pa.int32(), pa.int64()), False),
        (pa.timestamp("s"), False),
    ],
)
def test_text_types_are_distinguished_from_others(data_type: pa.DataType, expected: bool) -> None:
    assert is_text_type(data_type) is expected
