"""Damaged input files: each row is labeled, rejected or quarantined, or the job says in one line why it does not begin.

1,640 seeded cases, 40 of each kind; `python -m tests.fault.fuzz.fuzzed_job KIND SEED` does one of them, with a range of seeds
as many as wanted.
"""

import base64
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow.parquet import encryption

from jobs.config import JobConfig
from jobs.run.job_record import job_record
from jobs.run.prepare import prepare
from pipeline_ops.inputs.config import InputConfig
from pipeline_ops.models.config import ModelConfig
from pipeline_ops.output.commit_log import write_job
from pipeline_ops.schema.arrow_cells import binary_cell, pack_table, unpack_table
from pipeline_ops.schema.errors import UserError
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.storage.store import Store
from tests.fault.fuzz.damage import KINDS
from tests.fault.fuzz.fuzzed_job import DIED, HUNG, RESOLVED, WRONG, Worker, do_cases
from tests.support.corpora import write_bytes, write_jsonl, write_parquet
from tests.support.reading_path import read_path, try_path

CASES_PER_KIND = 40
FIRST_SEED = 20_260_101
MAX_DEATHS = 2  # of a kind's cases: a run quarantines what kills a worker process, but it costs several processes


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    worker = Worker(tmp_path_factory.mktemp("worker"))
    yield worker
    worker.stop()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_file_has_every_row_accounted_for(worker: Worker, kind: str) -> None:
    cases = [(kind, FIRST_SEED + index) for index in range(CASES_PER_KIND)]
    outcomes, remarkable = do_cases(cases, worker)
    report = f"{kind}: {dict(outcomes)}\n" + "\n".join(remarkable)
    assert outcomes[WRONG] == outcomes[HUNG] == 0, report
    assert outcomes[DIED] <= MAX_DEATHS, report
    if outcomes[DIED]:
        warnings.warn(report, stacklevel=1)


def prepare_job(source: Path, output: Path, **settings):
    """What `run` does before anything starts, without a model."""
    job = JobConfig(
        input=InputConfig(path=str(source), **settings),
        model=ModelConfig(path="model"),
        output=OutputConfig(path=str(output)),
    )
    with mock.patch("jobs.run.prepare.resolve_model", return_value=RESOLVED):
        return prepare(job)


BROKEN = {
    "a.parquet": b"PAR1 is how it begins, PAR1",
    "a.jsonl.gz": b"no gzip",
    "a.csv.zst": b"no zstd",
    "a.csv": b"text,text\nis,twice\n",
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_first_file_beside_a_good_one_does_not_end_the_job(tmp_path: Path, name: str) -> None:
    write_bytes(tmp_path / "in" / f"{name}.tmp", BROKEN[name]).rename(tmp_path / "in" / name)
    good = tmp_path / "in" / f"b{name[1:]}"
    if name.endswith("parquet"):
        write_parquet(good, [{"text": "good"}])
    elif "jsonl" in name:
        write_jsonl(good, [{"text": "good"}])
    else:
        write_bytes(good, b"text\ngood\n")
    prepared = prepare_job(tmp_path / "in", tmp_path / "out")
    assert [span.file.path for task in prepared.plan.tasks for span in task] == [str(tmp_path / "in" / name), str(good)]
    if "jsonl" in name:
        assert prepared.column_types == pa.schema([("text", pa.string())])


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_only_are_refused_by_name_unless_the_job_has_begun_or_other_formats_can_be_read(
    tmp_path: Path, name: str
) -> None:
    good = write_bytes(tmp_path / "good.txt", b"good\n")
    begun = prepare_job(good, tmp_path / "out")
    for copy in range(3):
        write_bytes(tmp_path / "in" / f"{name}.tmp", BROKEN[name]).rename(tmp_path / "in" / f"{copy}{name}")
    with pytest.raises(UserError, match=rf"input\.path: .*{tmp_path}/in/0{name}.*2 others") as refused:
        prepare_job(tmp_path / "in", tmp_path / "out")
    assert "\n" not in str(refused.value)
    write_job(Store(str(tmp_path / "out"), begun.job.storage), job_record(begun, ["float32"], "run"))
    assert prepare_job(tmp_path / "in", tmp_path / "out").plan.files == 3
    good.rename(tmp_path / "in" / "good.txt")
    assert prepare_job(tmp_path / "in", tmp_path / "elsewhere").plan.files == 4


SOUND = '{"text": "sound", "tags": ["x"], "facts": {"y": 1}}'
ODD_LINES = {
    "so_deep_that_arrow_crashes": '{"text": "a", "new": ' + "[" * 200_000 + "]" * 200_000 + "}",
    "deep_and_broken": '{"text": ' + "[" * 5000,
    "half_a_surrogate_pair": '{"text": "\\udc00", "new": 1}',
    "half_a_surrogate_pair_in_a_name": '{"text": "a", "\\ud800": 1}',
    "undecodable_name": '{"text": "a", "n\udcffw": 1}',
    "integer_of_5000_digits": '{"text": "a", "facts": {"y": ' + "9" * 5000 + "}}",
    "column_twice": '{"text": "a", "text": "b"}',
    "nul_in_a_text": '{"text": "a\0b"}',
}
LINES_OF_OTHER_TYPES = {
    "deep_list": '{"text": "a", "new": ' + "[" * 60 + "]" * 60 + "}",
    "deep_object": '{"text": "a", "new": ' + '{"a":' * 900 + "1" + "}" * 901,
    "list_mixed_within_itself": '{"text": "a", "tags": [1, "a"]}',
    "list_in_a_list_of_texts": '{"text": "a", "tags": [[]]}',
    "text_where_others_have_objects": '{"text": "a", "facts": "y"}',
    "other_type_in_an_object": '{"text": "a", "facts": {"y": [1]}}',
    "half_a_surrogate_pair": '{"text": "a", "new": "\\udc00"}',
    "half_a_surrogate_pair_in_an_inner_name": '{"text": "a", "facts": {"\\ud800": 1}}',
    "integer_beyond_64_bits": '{"text": "a", "facts": {"y": 18446744073709551616}}',
}


@pytest.mark.parametrize("odd", ODD_LINES)
@pytest.mark.parametrize("place", [0, 3])
def test_json_line_that_is_odd_is_rejected_alone(tmp_path: Path, odd: str, place: int) -> None:
    lines = [SOUND] * 6
    lines.insert(place, ODD_LINES[odd])
    path = write_bytes(tmp_path / "a.jsonl", "\n".join(lines).encode(errors="surrogateescape"))
    prepare_job(path, tmp_path / "out")
    result = read_path(path)
    assert [row for row, _ in result.rejected] == [place]
    assert result.column("text") == ["sound"] * 6
    assert result.column("tags") == [["x"]] * 6
    assert all(unpack_table(binary_cell(pack_table(table))[0]).equals(table) for table in result.tables)


@pytest.mark.parametrize("odd", LINES_OF_OTHER_TYPES)
@pytest.mark.parametrize("place", [0, 3])
def test_json_line_with_a_value_of_another_type_is_a_document_like_the_others(tmp_path: Path, odd: str, place: int) -> None:
    lines = [SOUND] * 6
    lines.insert(place, LINES_OF_OTHER_TYPES[odd])
    result = read_path(write_bytes(tmp_path / "a.jsonl", "\n".join(lines).encode()))
    assert result.rejected == []
    assert result.column("text") == [json.loads(line)["text"] for line in lines]
    assert len({table.schema for table in result.tables}) == 1
    assert all(unpack_table(binary_cell(pack_table(table))[0]).equals(table) for table in result.tables)


def test_csv_whose_quote_is_never_closed_is_one_reject(tmp_path: Path) -> None:
    """The record is longer than the 128 KiB that Python's parser takes by default."""
    path = write_bytes(tmp_path / "a.csv", b'id,text\n1,a\n2,"' + b"b,c\n" * 50_000)
    result = read_path(path)
    assert result.column("text") == ["a"]
    assert result.rejected == [(1, "broken_csv")]


def test_csv_whose_header_is_never_closed_is_refused_in_one_line(tmp_path: Path) -> None:
    path = write_bytes(tmp_path / "a.csv", b'id,"text\n' + b"b,c\n" * 50_000)
    with pytest.raises(UserError, match=r"input\.path: the header of .* cannot be read: a quoted field has no end") as refused:
        prepare_job(path, tmp_path / "out")
    assert "\n" not in str(refused.value)


def test_parquet_with_two_text_columns_is_refused(tmp_path: Path) -> None:
    table = pa.table([["a"], ["b"]], names=["text", "text"])
    with pytest.raises(UserError, match=r"input\.path: .*names a column twice"):
        prepare_job(write_parquet(tmp_path / "a.parquet", table), tmp_path / "out")


def test_parquet_that_is_nested_too_deep_is_quarantined(tmp_path: Path) -> None:
    data_type = pa.int64()
    for _ in range(70):
        data_type = pa.struct([("inner", data_type)])
    path = write_parquet(tmp_path / "a.parquet", pa.table({"text": ["a"], "deep": pa.array([None], data_type)}))
    (failure,) = try_path(path).failures
    assert "nested deeper" in failure.message


class PlainKeys(encryption.KmsClient):
    """Keeps keys as they are."""

    def __init__(self, _: encryption.KmsConnectionConfig) -> None:
        super().__init__()

    def wrap_key(self, key_bytes: bytes, master_key_identifier: str) -> bytes:
        return base64.b64encode(key_bytes)

    def unwrap_key(self, wrapped_key: bytes, master_key_identifier: str) -> bytes:
        return base64.b64decode(wrapped_key)


def test_parquet_with_an_encrypted_column_is_read_without_it_and_quarantined_with_it(tmp_path: Path) -> None:
    """Arrow ends the process when it is asked for the metadata of such a column."""
    table = pa.table({"text": ["a"] * 100, "secret": ["b"] * 100})
    properties = encryption.CryptoFactory(PlainKeys).file_encryption_properties(
        encryption.KmsConnectionConfig(),
        encryption.EncryptionConfiguration(footer_key="footer", column_keys={"column": ["secret"]}, plaintext_footer=True),
    )
    with pq.ParquetWriter(tmp_path / "a.parquet", table.schema, encryption_properties=properties) as writer:
        writer.write_table(table)
    assert read_path(tmp_path / "a.parquet", columns="none").column("text") == ["a"] * 100
    (failure,) = try_path(tmp_path / "a.parquet").failures
    assert "decrypt" in failure.message
