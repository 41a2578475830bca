"""JSON files that are not JSON Lines: how they are distinguished, where elements begin and end, and what damage costs."""

import io
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline_ops.line_formats import json_arrays
from pipeline_ops.line_formats.json_arrays import LOOK_BYTES, JsonElements, json_layout
from pipeline_ops.line_formats.line_records import read_record_blocks, split_records
from pipeline_ops.schema.streams import BrokenStream
from tests.support.corpora import EDGE_CASES

DOCUMENTS: list[dict[str, Any]] = [
    {"id": number, "text": text, "tags": [text[:3], {"deep": [[], {}]}], "facts": {"size": len(text), "[{,": '"'}}
    for number, text in enumerate((*EDGE_CASES, '\\"', "\\\\", '"}],[{"', "\\" * 9 + '"' * 3))
]
ARRAYS = {
    "one_line": json.dumps(DOCUMENTS),
    "compact": json.dumps(DOCUMENTS, ensure_ascii=False, separators=(",", ":")),
    "indented": json.dumps(DOCUMENTS, indent=2),
    "indented_by_nothing": json.dumps(DOCUMENTS, indent=0),
    "an_object_per_line": "[\n" + ",\n".join(map(json.dumps, DOCUMENTS)) + "\n]\n",
    "commas_first": "[ " + "\n, ".join(map(json.dumps, DOCUMENTS)) + "\n]\n",
    "windows_line_ends": json.dumps(DOCUMENTS, indent=2).replace("\n", "\r\n") + "\r\n",
    "byte_order_mark": "\ufeff" + json.dumps(DOCUMENTS),
    "blank_beginning": "\n\n  \t" + json.dumps(DOCUMENTS),
}
WRAPPED = {
    "data_alone": json.dumps({"data": DOCUMENTS}),
    "squad": json.dumps({"version": "1.1", "data": DOCUMENTS}),
    "indented": json.dumps({"version": [1, {"a": []}], "meta": {"data": [{}]}, "data": DOCUMENTS, "next": None}, indent=4),
    "members_behind": json.dumps({"data": DOCUMENTS, "empty": [], "n": [1, 2], "deep": {"x": [{"y": 1}]}, "s": '"]}[{'}),
}
OBJECTS = {
    "one": json.dumps(DOCUMENTS[0], indent=2),
    "jq": "".join(json.dumps(document, indent=2) + "\n" for document in DOCUMENTS),
    "without_line_ends": "".join(map(json.dumps, DOCUMENTS)),
    "first_line_goes_on": "".join('{"a": 1,\n"text": "x"}' for _ in range(5)),
}


def read(data: bytes, chunk: int = 2**20, text_columns: tuple[str, ...] = ("text",)) -> bytes:
    """All lines, as reads of `chunk` bytes of and for the transform give them."""
    layout = json_layout(data[:LOOK_BYTES], by_objects=True, text_columns=text_columns)
    assert layout is not None
    stream, parts = JsonElements(io.BytesIO(data), layout), []
    while part := stream.read(chunk):
        parts.append(part)
    assert all(len(part) <= chunk for part in parts)
    return b"".join(parts)


def lines_of(data: bytes, **options: Any) -> list[bytes]:
    return [line for line in read(data, **options).split(b"\n") if line.strip()]


def read_damaged(data: bytes) -> tuple[list[bytes], str]:
    """(the whole lines before the damage, the error)"""
    layout = json_layout(data[:LOOK_BYTES], by_objects=True, text_columns=("text",))
    assert layout is not None
    lines, blocks = [], read_record_blocks(JsonElements(io.BytesIO(data), layout), target_bytes=10**9)
    try:
        for block in blocks:
            assert not block.last
            lines += split_records(block, None)
    except BrokenStream as broken:
        return [line for line in lines if line.strip()], str(broken)
    raise AssertionError("no error")


@pytest.mark.parametrize("name", ARRAYS)
def test_elements_of_an_array_are_lines(name: str) -> None:
    data = ARRAYS[name].encode()
    assert [json.loads(line) for line in lines_of(data)] == DOCUMENTS
    assert json_layout(data, by_objects=False, text_columns=("text",)) is not None, "an array is one in a .jsonl file as well"


@pytest.mark.parametrize("name", WRAPPED)
def test_elements_of_a_wrapped_array_are_lines(name: str) -> None:
    data = WRAPPED[name].encode()
    assert [json.loads(line) for line in lines_of(data)] == DOCUMENTS
    assert json_layout(data, by_objects=False, text_columns=("text",)) is None


@pytest.mark.parametrize("name", OBJECTS)
def test_objects_are_lines(name: str) -> None:
    data = OBJECTS[name].encode()
    decoder, position, expected = json.JSONDecoder(), 0, []
    while text := OBJECTS[name][position:].lstrip():
        position = len(OBJECTS[name]) - len(text)
        document, position = decoder.raw_decode(OBJECTS[name], position)
        expected.append(document)
    assert [json.loads(line) for line in lines_of(data)] == expected
    assert json_layout(data, by_objects=False, text_columns=("text",)) is None


LINES = {
    "empty": "",
    "blank": " \n\n",
    "objects": '{"text": "a"}\n{"text": "b"}\n',
    "objects_with_arrays": '{"data": [{"text": "a"}]}\n{"data": [{"text": "b"}]}\n',
    "one_object": '{"text": "a"}',
    "one_object_with_an_array": '{"text": "a", "links": [{"url": "b"}]}\n',
    "one_object_with_an_array_first": '{"links": [{"url": "b"}], "text": "a"}\n',
    "broken_first_line": '{"text": "a\n{"text": "b"}\n',
    "no_json": "<!DOCTYPE html>\n",
    "null": "null\n",
    "first_line_longer_than_the_look": '{"text": "' + "a" * LOOK_BYTES + '", "links": [{}]}\n{"text": "b"}\n',
    "a_transcript": json.dumps({"segments": [{"text": "a", "more": "x" * 600}] * 2000, "text": "all of it"}),
    "the_same_with_a_list_first": '{"links": [{}], "text": "' + "a" * LOOK_BYTES + '"}\n{"text": "b"}\n',
}


@pytest.mark.parametrize("name", LINES)
def test_json_lines_stay_json_lines(name: str) -> None:
    assert json_layout(LINES[name].encode()[:LOOK_BYTES], by_objects=True, text_columns=("text",)) is None


def test_an_object_is_a_document_if_it_has_the_text_column() -> None:
    data = json.dumps({"body": "a", "data": [{"url": "b"}]}, indent=1).encode()
    assert [json.loads(line) for line in lines_of(data)] == [{"url": "b"}]
    assert [json.loads(line) for line in lines_of(data, text_columns=("body",))] == [{"body": "a", "data": [{"url": "b"}]}]


@pytest.mark.parametrize("indent", [None, 1])
def test_the_lines_are_the_same_however_the_bytes_arrive(indent: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = [{"text": 'a\\"b', "tags": [{}, ["]", "\\"]]}, 1, {"text": "}],é"}]
    array = json.dumps(documents, indent=indent)
    wrapped = json.dumps({"v": "\\", "data": documents, "end": {"[": ["\\", {}]}}, indent=indent)
    objects = "".join(json.dumps({"facts": document}, indent=indent) for document in documents)
    for data in (array.encode(), wrapped.encode(), objects.encode()):
        expected = read(data)
        for chunk in range(1, len(data) + 1):
            monkeypatch.setattr(json_arrays, "CHUNK_BYTES", chunk)
            assert read(data, chunk) == expected, chunk
        monkeypatch.undo()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet='ab"\\[]{},:\n\r é🤗', max_size=12),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(alphabet='a"\\[{,', max_size=3), values, max_size=3),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None)
@given(
    elements=st.lists(VALUES, max_size=6),
    indent=st.sampled_from([None, 0, 2]),
    chunk=st.integers(1, 60),
    ascii_only=st.booleans(),
)
def test_any_array_gives_the_elements_that_python_finds(
    elements: list[Any], indent: int | None, chunk: int, ascii_only: bool
) -> None:
    data = json.dumps(elements, indent=indent, ensure_ascii=ascii_only).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_arrays, "CHUNK_BYTES", chunk)
        lines = read(data, chunk).split(b"\n")
    found = [json.loads(line) for line in lines if line.strip()]
    assert found == elements
    assert [json.loads(line) for line in lines[: len(elements)]] == elements, "an element's line is its index"


def test_bytes_of_an_element_are_kept() -> None:
    elements = ['{"a":1,"a":2}', "1e400", "123456789012345678901234567890", '"\\ud800"', '{"text" :  "\\u0041"}', "1.10"]
    assert lines_of(("[" + ",".join(elements) + "]").encode()) == [element.encode() for element in elements]


@pytest.mark.parametrize("element", ["{'text': 'b'}", '{"text": nope}', '{"text"}', '{"text": "b"]', '{"text": "a\nb"}', ""])
def test_a_broken_element_costs_itself_alone(element: str) -> None:
    data = f'[{{"text": "a"}},{element},{{"text": "c"}}]'.encode()
    before, broken, behind, _ = read(data).split(b"\n")
    assert (json.loads(before), json.loads(behind)) == ({"text": "a"}, {"text": "c"})
    with pytest.raises(ValueError):
        json.loads(broken)


@pytest.mark.parametrize("text", ["[]", "[ \n]", " []\n\n"])
def test_an_empty_array_has_no_documents(text: str) -> None:
    assert lines_of(text.encode()) == []


def test_a_trailing_comma_is_no_document() -> None:
    assert lines_of(b'[{"text": "a"},\n]') == [b'{"text": "a"}']


DAMAGED = {
    "within_an_element": ('[{"text": "a"}, {"text": "b', 1, "within the element with index 1"),
    "within_a_number": ('[{"text": "a"}, {"n": 1', 1, "within the element with index 1"),
    "without_the_bracket": ('[{"text": "a"}, {"text": "b"}\n', 2, "without the closing bracket"),
    "behind_a_comma": ('[{"text": "a"}, ', 1, "without the closing bracket"),
    "bracket_alone": ("[", 0, "without the closing bracket"),
    "text_behind_it": ('[{"text": "a"}]\n[{"text": "b"}]', 1, "text follows the end"),
    "closed_by_a_brace": ('[{"text": "a"}}, {"text": "b"}]', 1, "closed by '}'"),
    "wrapped_within_an_element": ('{"data": [{"text": "a"}, {"te', 1, "within the element with index 1"),
    "wrapped_behind_the_array": ('{"data": [{"text": "a"}], "next": ', 1, "without its closing bracket"),
    "text_behind_the_wrapping": ('{"data": [{"text": "a"}]} x', None, ""),
    "second_array": ('{"data": [{"text": "a"}], "more": [ {"text": "b"}]}', 1, "a second array of objects"),
    "object_within": ('{\n"text": "a"}\n{\n"text": "b"', 1, "within the element with index 1"),
    "object_closed_twice": ('{\n"text": "a"}\n}\n{"text": "b"}', 1, "a closing bracket too many"),
}


@pytest.mark.parametrize("name", DAMAGED)
@pytest.mark.parametrize("chunk", [1, 5, 1000])
def test_damage_is_an_error_behind_the_elements_before_it(name: str, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_arrays, "CHUNK_BYTES", chunk)
    text, whole, message = DAMAGED[name]
    if whole is None:
        assert [json.loads(lines_of(text.encode())[0])] == [json.loads(text[:25])], "concatenated objects"
        return
    lines, error = read_damaged(text.encode())
    assert [json.loads(line) for line in lines] == [{"text": "a"}, {"text": "b"}][:whole]
    assert message in error


def test_a_text_column_behind_a_long_array_is_an_error_with_the_remedy() -> None:
    data = json.dumps({"data": [{"text": "a" * LOOK_BYTES}], "next": ["text"], "text": "all of it"}).encode()
    lines, error = read_damaged(data)
    assert len(lines) == 1
    assert error.endswith("""put it first: jq '{"text"} + .'""")


def test_an_element_without_end_is_an_error() -> None:
    layout = json_layout(b"[", by_objects=True, text_columns=())
    assert layout
    stream = JsonElements(io.BytesIO(b'[{"text": "' + b"a" * 10_000), layout)
    with pytest.raises(OSError, match="has no end within 1000 bytes"):
        next(read_record_blocks(stream, target_bytes=100, max_record_bytes=1000))
