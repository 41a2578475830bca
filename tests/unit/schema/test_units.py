"""What travels between the stages comes out as it went in."""

import json

from pipeline_ops.schema.units import Piece, Reject, Unit, pack_rejects, unpack_rejects


def test_unit_as_json_comes_back_the_same() -> None:
    unit = Unit("0" * 24, (Piece("s3://b/ü.jsonl", "etag", 0, 7, False, 0, 90), Piece("s3://b/b.jsonl", "etag", 0, 0, True)))
    assert Unit.from_json(unit.to_json()) == unit
    replacing = Unit("0" * 24, unit.pieces, ("1" * 24 + "-attempt", "2" * 24 + "-attempt"))
    assert Unit.from_json(replacing.to_json()) == replacing


def test_rejects_as_lines_hold_one_json_object_each_and_come_back_the_same() -> None:
    rejects = [Reject("a.csv", 3, "undecodable", "a\nb\u2028c"), Reject("ü.csv", 2**40, "null_text", "")]
    packed = pack_rejects(rejects)
    assert [json.loads(line)["source_row"] for line in packed.decode().split("\n")[:-1]] == [3, 2**40]
    assert unpack_rejects(packed) == rejects


def test_rejects_with_a_lone_surrogate_can_be_stored() -> None:
    (back,) = unpack_rejects(pack_rejects([Reject("a.jsonl", 0, "column_type", "\ud800 here")]))
    assert back.detail.endswith(" here")


def test_rejects_without_any_are_no_bytes() -> None:
    assert pack_rejects([]) == b""
    assert unpack_rejects(b"") == []
