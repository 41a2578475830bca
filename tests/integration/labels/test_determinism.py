"""Two runs of one job give the same rows, in the same order; and what a finished output refuses to mix with."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.label_corpus import run
from pipeline_ops.schema.errors import UserError
from tests.integration.conftest import FinishedJob
from tests.models.tiny import make_model
from tests.support.running import commit_paths, committed_files, snapshot
from tests.support.serial_chain import run_serially


def files_by_unit(output: Path) -> dict[str, pa.Table]:
    """The labeled files' rows, by unit and partition: what is left of the name without the attempt."""
    return {f"{path.parent.name}/{path.name.split('-')[0]}": pq.ParquetFile(path).read() for path in committed_files(output)}


def units(output: Path) -> list[str]:
    return sorted(json.loads(path.read_text())["unit"] for path in commit_paths(output))


@pytest.mark.slow
def test_two_runs_give_equal_files_with_the_rows_in_the_same_order(finished_job: FinishedJob, tmp_path: Path):
    overrides = ("compute.classifiers=2", "output.logits=true", "compute.unit_bytes=12000")
    for name in ("one", "two"):
        run(finished_job.job(tmp_path / name, *overrides), quiet=True)
    one, two = files_by_unit(tmp_path / "one"), files_by_unit(tmp_path / "two")
    assert len(one) > 10
    assert one.keys() == two.keys()
    for name, table in one.items():
        assert table.equals(two[name], check_metadata=True), name
    assert units(tmp_path / "one") == units(tmp_path / "two")


def test_run_with_another_model_or_columns_refuses_and_names_the_keys(finished_job: FinishedJob, tmp_path: Path):
    other = make_model(tmp_path / "other", seed=1)
    before = snapshot(finished_job.output)
    for overrides, names in (
        ((f"model.path={other}",), ("model.path", "model.weights")),
        (("output.scores=true",), ("output.scores",)),
        (("output.columns=[id]", "output.partition_by=[]"), ("output.columns", "output.partition_by")),
        (("output.label_name=mood",), ("output.label_name",)),
        (("model.dtype=bfloat16",), ("model.dtype",)),
    ):
        with pytest.raises(UserError) as raised:
            run(finished_job.job(finished_job.output, *overrides), quiet=True)
        for name in names:
            assert f"{name} (was " in str(raised.value)
        assert "give another output.path" in str(raised.value)
    assert snapshot(finished_job.output) == before


def test_run_with_weights_or_tokenizer_changed_in_place_refuses(finished_job: FinishedJob, tmp_path: Path):
    model = Path(shutil.copytree(finished_job.model, tmp_path / "model"))
    job = finished_job.job(tmp_path / "out", f"model.path={model}")
    run_serially(job, quiet=True)
    make_model(model, seed=2)
    with pytest.raises(UserError, match=r"model\.weights \(was "):
        run_serially(job, quiet=True)
    shutil.copytree(finished_job.model, model, dirs_exist_ok=True)
    settings = json.loads((model / "tokenizer.json").read_text())
    vocabulary = settings["model"]["vocab"]
    one, two = [word for word in vocabulary if word.isalpha()][-2:]
    vocabulary[one], vocabulary[two] = vocabulary[two], vocabulary[one]
    (model / "tokenizer.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match=r"model\.tokenizer \(was "):
        run_serially(job, quiet=True)


def test_run_with_settings_that_change_no_label_goes_on(finished_job: FinishedJob):
    before = snapshot(finished_job.output)
    overrides = ("output.lease_seconds=5", "output.drop_removed=true", "compute.max_failed_units=3", "compute.tokenizers=2")
    run(finished_job.job(finished_job.output, *overrides), quiet=True)
    assert snapshot(finished_job.output) == before
