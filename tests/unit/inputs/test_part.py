"""Parts of an input: every file is in one, whatever other files there are."""

import pytest
import yaml

from jobs.config import JobConfig, check_config
from pipeline_ops.inputs.part import InputPart, part_named, part_of_file, path_hash
from pipeline_ops.schema.errors import UserError


def test_part_of_a_file_depends_on_its_path_below_the_input_alone() -> None:
    names = [f"2024/{number:03}.jsonl" for number in range(300)]
    for base in ("/corpus", "/mnt/other/corpus", "s3://bucket/corpus", "s3://bucket/corpus/*/*.jsonl"):
        prefix = base.split("/*")[0]
        assert [path_hash(f"{prefix}/{name}", base) for name in names] == [path_hash(f"/x/{name}", "/x") for name in names]
    sizes = [sum(part_of_file(f"/x/{name}", "/x", 4).number == number for name in names) for number in range(4)]
    assert sum(sizes) == 300
    assert min(sizes) > 50


def test_part_of_a_file_is_the_one_of_earlier_versions() -> None:
    """A change of the hash would label files twice that are in another part then."""
    assert [part_of_file(f"/in/{name}", "/in", 16).number for name in ("a.jsonl", "lang=en/b.parquet", "\udcff.txt")] == [
        0,
        15,
        2,
    ]


def test_name_of_a_part_is_its_own() -> None:
    part = InputPart(number=3, of=16)
    assert part.name == "part-00003-of-00016"
    assert part_named(part.name) == part
    assert [part_named(name) for name in ("part-00016-of-00016", "part-3-of-16", f"{part.name}-trial", "label=a")] == [None] * 4


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("{number: 4, of: 4}", "input.part: .*parts are counted from 0, so the last is 3"),
        ("{number: 1}", "input.part.of is missing"),
        ("3", "input.part: invalid value 3"),
    ],
)
def test_part_that_is_none_is_refused(part: str, message: str) -> None:
    settings = {"input": {"path": "in", "part": yaml.safe_load(part)}, "model": "m", "output": "out"}
    with pytest.raises(UserError, match=message):
        check_config(JobConfig, settings)
