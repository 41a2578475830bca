"""CSV as it lies: dialects of Python's csv module come back as they were written; quotes that are wrong are rejects."""

import csv
import io
import random

import pytest

from pipeline_ops.line_formats.csv_syntax import CsvSyntax
from pipeline_ops.line_formats.line_records import read_record_blocks
from pipeline_ops.line_formats.parsing import BadRecord, parse_csv

BLOCK_BYTES = (1, 50, 10**9)
PIECES = ["", "a", "word ", '"', "'", ",", "\t", "\n", "\r\n", "\\", "\\\\", '\\"', "\\n", "é🤗", "N/A", '""', '","', "x" * 30]
DIALECTS = {
    "minimal": (CsvSyntax(), {}),
    "all quoted": (CsvSyntax(), {"quoting": csv.QUOTE_ALL}),
    "tabs": (CsvSyntax("\t"), {"delimiter": "\t"}),
    "single quotes": (CsvSyntax(";", "'"), {"delimiter": ";", "quotechar": "'"}),
    "quotes are escaped": (CsvSyntax(escape="\\"), {"doublequote": False, "escapechar": "\\"}),
    "all quoted, quotes are escaped": (
        CsvSyntax(escape="\\"),
        {"quoting": csv.QUOTE_ALL, "doublequote": False, "escapechar": "\\"},
    ),
    "quotes are doubled, escapes are escaped": (CsvSyntax(escape="\\"), {"escapechar": "\\"}),
    "another escape": (CsvSyntax(escape="^"), {"doublequote": False, "escapechar": "^"}),
    "nothing quoted": (CsvSyntax("\t", None, "\\"), {"quoting": csv.QUOTE_NONE, "delimiter": "\t", "escapechar": "\\"}),
}


def read(
    data: bytes, syntax: CsvSyntax, num_columns: int, target_bytes: int = 10**9
) -> tuple[list[list[str]], list[BadRecord]]:
    """The values of the records that parse, in their order, and the bad records."""
    names = [f"c{number}" for number in range(num_columns)]
    values, bad = list[list[str]](), list[BadRecord]()
    for block in read_record_blocks(io.BytesIO(data), target_bytes=target_bytes, syntax=syntax):
        table, _, broken = parse_csv(block, names, syntax)
        values += [list(row.values()) for row in table.to_pylist()]
        bad += broken
    return values, bad


@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_csv_of_any_dialect_comes_back_as_it_was_written(name: str, line_end: str) -> None:
    syntax, dialect = DIALECTS[name]
    # without quotes a writer for lines that end in \n leaves carriage returns as they are
    pieces = [piece for piece in PIECES if syntax.quote is not None or "\r" not in piece]
    for seed in range(2):
        rng = random.Random(f"{name} {seed}")
        rows = [["first", *("".join(rng.choices(pieces, k=rng.randrange(5))) for _ in range(4))] for _ in range(40)]
        file = io.StringIO(newline="")
        csv.writer(file, lineterminator=line_end, **dialect).writerows(rows)
        data = rng.choice([b"", b"\xef\xbb\xbf"]) + file.getvalue().encode()
        for target_bytes in BLOCK_BYTES:
            assert read(data, syntax, 5, target_bytes) == (rows, [])


@pytest.mark.parametrize("target_bytes", BLOCK_BYTES)
@pytest.mark.parametrize("quoted", ["", '4,"a\rb"\n'])
def test_csv_carriage_return_outside_quotes_costs_its_record_alone(target_bytes: int, quoted: str) -> None:
    data = f'1,abc\r"def\n2,ghi",zzz\n3,ok\n5,a\r6,b\n7\r,\n8,"c"\r\r\n\r\r\n9,d\r\r\n{quoted}'.encode()
    values, bad = read(data, CsvSyntax(), 2, target_bytes)
    assert values == [["3", "ok"], ["8", "c"], ["9", "d"], *([["4", "a\rb"]] if quoted else [])]
    assert [(record.row, record.reason) for record in bad] == [(row, "broken_csv") for row in (0, 1, 3, 4)]
    assert [record.row for record in bad if "\\r outside quotes" in record.detail] == [0, 3, 4]


def test_csv_of_every_character_behind_an_escape_is_as_arrow_takes_it() -> None:
    data = b'"a\\\nb",\\"c\nd\\\ne,"\\\\"\nf\\\r\ng,h\n\\N,\\n\n'
    syntax = CsvSyntax(escape="\\")
    expected = [["a\nb", '"c'], ["d\ne", "\\"], ["g", "h"], ["N", "n"]]
    for target_bytes in BLOCK_BYTES:
        values, bad = read(data, syntax, 2, target_bytes)
        assert (values, [record.reason for record in bad]) == (expected, ["broken_csv"])


@pytest.mark.parametrize(
    ("record", "remedies"),
    [
        ('"she said \\"hi\\" there",1', ["input.escape='\\'", "input.quote=null"]),
        ('""x,1', ["input.escape='\\'", "input.quote=null"]),
        ('"a" ,1', ["input.escape='\\'", "input.quote=null"]),
        ('1,"a"b"', ["input.escape='\\'", "input.quote=null"]),
        ('"a,"b,"c"', ["input.escape='\\'", "input.quote=null"]),
        ('1,2,"a\nb"', ["input.quote=null"]),
    ],
)
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("position", range(4))
def test_csv_with_text_behind_a_closing_quote_is_bad_and_its_neighbors_are_not(
    record: str, remedies: list[str], line_end: str, position: int
) -> None:
    rows = ['1,5" pipe', '2,"a ""b"", c"', '3,""']
    rows.insert(position, record)
    for end in ("", line_end):
        for target_bytes in BLOCK_BYTES:
            values, bad = read((line_end.join(rows) + end).encode(), CsvSyntax(), 2, target_bytes)
            assert values == [["1", '5" pipe'], ["2", 'a "b", c'], ["3", ""]]
            assert [(broken.row, broken.reason) for broken in bad] == [(position, "broken_csv")]
            assert all(remedy in bad[0].detail for remedy in remedies)


def test_tsv_rows_between_two_stray_quotes_are_bad_and_the_rows_of_prose_are_not() -> None:
    merged = '2\t"Hello\ta\n3\tso what\tb\n4\tthe end"\tc'
    prose = '5\t"one line\nand another\twith a tab\n"\td'
    code = '6\t"if x:\tx\n\ty\tz\n\tz\tz"\te'
    values, bad = read(f"1\tx\ty\n{merged}\n{prose}\n{code}\n".encode(), CsvSyntax("\t"), 3)
    assert values == [
        ["1", "x", "y"],
        ["5", "one line\nand another\twith a tab\n", "d"],
        ["6", "if x:\tx\n\ty\tz\n\tz\tz", "e"],
    ]
    assert [(broken.row, broken.reason) for broken in bad] == [(1, "broken_csv")]
    assert "3 lines with 3 fields each" in bad[0].detail
    assert "input.quote=null" in bad[0].detail


def test_csv_rows_between_two_stray_quotes_are_bad_from_six_lines_on() -> None:
    """Fewer lines of prose may have as many commas as a record by chance."""
    swallowed = "".join(f"{row},some text {row},b\n" for row in range(2, 10))
    poem = '1,"Roses are red, or so,\nviolets are blue, you know,\nI am not, nor, are you",x'
    values, bad = read(f'1,"Hello,a\n{swallowed}10,end",c\n{poem}\n'.encode(), CsvSyntax(), 3)
    assert [value[1].split("\n")[1] for value in values] == ["violets are blue, you know,"]
    assert [(broken.row, "10 lines with 3 fields each" in broken.detail) for broken in bad] == [(0, True)]


def test_csv_quote_without_an_end_names_how_much_it_takes() -> None:
    values, bad = read(b'1,a\n2,"b\n3,c\n4,d\n', CsvSyntax(), 2)
    assert values == [["1", "a"]]
    assert [(broken.row, broken.reason) for broken in bad] == [(1, "broken_csv")]
    assert "takes the 3 lines up to the end of the file" in bad[0].detail
    assert "input.quote=null" in bad[0].detail


def test_csv_texts_of_one_column_may_have_lines() -> None:
    assert read(b'"a\nb"\n"c\nd\ne\nf\ng\nh\ni"\n', CsvSyntax(), 1)[1] == []
