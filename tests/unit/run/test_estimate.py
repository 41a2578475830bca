"""`plan --cluster`: what the options may say, and what the JSON line then says."""

from pathlib import Path

import pytest

from jobs.config import JobConfig, check_config
from jobs.run.estimate import Target, plan_on, print_estimate, target_of
from pipeline_ops.models.flops import GPU_NAMES, peak_flops, token_flops_of
from pipeline_ops.schema.errors import UserError
from tests.models.all_kinds import make_kind
from tests.support.corpora import real_documents, write_jsonl, write_parquet
from tests.support.running import command, job_settings, make_job, write_job_file
from tests.support.serial_chain import run_serially

DOCUMENTS = 400


@pytest.fixture
def source(tmp_path: Path) -> Path:
    rows = [{"id": row, "kind": row % 3, "text": text} for row, text in enumerate(real_documents(DOCUMENTS))]
    write_jsonl(tmp_path / "in" / "a.jsonl", rows[:300])
    write_parquet(tmp_path / "in" / "b.parquet", rows[300:])
    return tmp_path / "in"


@pytest.mark.parametrize(
    ("said", "devices", "name"),
    [
        ("64xH100", 64, "H100"),
        ("8 × h200", 8, "H200"),
        ("1x NVIDIA L40S", 1, "L40S"),
        ("16xcpu", 16, "CPU"),
        ("2*A10g", 2, "A10G"),
    ],
)
def test_clusters_are_a_number_and_a_name(said: str, devices: int, name: str) -> None:
    target = target_of(said, None, 2.5)
    assert target == Target(devices, name, None, 2.5)


def test_any_name_does_with_a_rate() -> None:
    assert target_of("4xMI300X", 1e6, None) == Target(4, "MI300X", 1e6, None)
    assert target_of(None, None, None) is None


@pytest.mark.parametrize(
    ("cluster", "rate", "price", "said"),
    [
        ("64", None, None, "--cluster: '64'"),
        ("0xH100", None, None, "--cluster: '0xH100'"),
        ("xH100", None, None, "--cluster: 'xH100'"),
        ("8xMI300X", None, None, "A10, A10G, A100, B200"),
        ("8xH100", 0.0, None, "--rate: 0"),
        ("8xH100", float("nan"), None, "--rate: nan"),
        ("8xH100", None, -1.0, "--price: -1"),
        (None, 1e6, None, "--rate: 1e+06 is for --cluster"),
        (None, None, 2.0, "--price: 2 is for --cluster"),
    ],
)
def test_mistakes_are_one_line(cluster: str | None, rate: float | None, price: float | None, said: str) -> None:
    with pytest.raises(UserError) as caught:
        target_of(cluster, rate, price)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_known_gpus_have_a_peak() -> None:
    for device in GPU_NAMES.values():
        assert peak_flops(f"NVIDIA {device}", "float16"), device


def test_estimate_of_a_small_input_is_exact_and_by_the_users_rate(source: Path, model: Path, tmp_path: Path) -> None:
    target = target_of("4xMI300X", 1000.0, 3.0)
    assert target is not None
    found = plan_on(make_job(source, model, tmp_path / "out"), target)["estimate"]
    assert found["sample"]["exact"]
    assert found["documents"] == {"value": DOCUMENTS, "error": 0, "low": DOCUMENTS, "high": DOCUMENTS}
    assert found["sources"]["tokens_per_second"] == "yours"
    tokens = found["tokens"]["value"]
    assert found["device_seconds"] == pytest.approx(tokens / 1000)
    assert found["unit_seconds"] == pytest.approx(tokens / 1000 / found["units"])
    assert found["cost"] == pytest.approx(3 * found["device_hours"])
    assert found["device_hours"] == pytest.approx(4 * found["seconds"] / 3600)
    assert 0 < found["truncated_share"]["value"] < 1
    assert found["files_per_unit"] == 2
    assert found["jobs"] == 1
    assert found["split"] is None
    print_estimate(found)
    assert not (tmp_path / "out").exists()


def test_several_models_read_each_their_tokens_of_one_tokenizing(source: Path, model: Path, tmp_path: Path) -> None:
    settings = job_settings(source, model, tmp_path / "out", "output.partition_by=[a_label]")
    one = settings.pop("model")
    settings["models"] = [{"name": name, **one} for name in ("a", "b")]
    target = target_of("2xMI300X", 1000.0, None)
    assert target is not None
    both = plan_on(check_config(JobConfig, settings), target)["estimate"]
    alone = plan_on(make_job(source, model, tmp_path / "out"), target)["estimate"]
    assert both["tokens"]["value"] == 2 * alone["tokens"]["value"]
    assert both["device_seconds"] == pytest.approx(2 * alone["device_seconds"])
    assert both["tokenizer_cores"] == pytest.approx(alone["tokenizer_cores"] / 2)
    assert both["files_per_unit"] == 2


def test_nothing_left_takes_nothing(source: Path, model: Path, tmp_path: Path) -> None:
    job = make_job(source, model, tmp_path / "out")
    run_serially(job, quiet=True)
    target = target_of("64xH100", 1000.0, 2.5)
    assert target is not None
    found = plan_on(job, target)["estimate"]
    assert (found["units"], found["documents"]["value"], found["seconds"], found["cost"], found["jobs"]) == (0, 0, 0, 0, 1)
    print_estimate(found)


def test_rate_follows_from_the_models_size_and_the_gpus_peak(source: Path, model: Path, tmp_path: Path) -> None:
    from transformers import AutoConfig

    flops = token_flops_of(AutoConfig.from_pretrained(model))
    assert flops is not None
    rates = {}
    for name in ("H100", "L4", "T4", "CPU"):
        job = make_job(source, model, tmp_path / "out", "model.dtype=auto", "compute.classifiers=auto")
        target = target_of(f"8x{name}", None, None)
        assert target is not None
        found = plan_on(job, target)["estimate"]
        assert found["sources"]["tokens_per_second"].startswith("assumed")
        assert found["sources"]["tokenizers"] == "assumed: 350,000 tokens/s of a core"
        rates[name] = found["tokens_per_second"]
    expected = {"H100": 0.4 * 989e12 / flops, "L4": 0.4 * 121e12 / flops, "T4": 0.4 * 65e12 / flops, "CPU": 1e11 / flops}
    assert rates == pytest.approx(expected)


def test_dtype_without_a_known_peak_asks_for_the_rate(source: Path, model: Path, tmp_path: Path) -> None:
    target = target_of("8xH100", None, None)
    assert target is not None
    with pytest.raises(UserError, match="H100 in float32 is not known"):
        plan_on(make_job(source, model, tmp_path / "out"), target)


def test_kind_that_is_float32_on_every_gpu_asks_for_the_rate(source: Path, tmp_path: Path) -> None:
    make_kind(tmp_path / "fnet", "fnet")
    job = make_job(source, tmp_path / "fnet", tmp_path / "out", "model.dtype=auto")
    target, given = target_of("8xH200", None, None), target_of("8xH200", 1e6, None)
    assert target is not None
    assert given is not None
    with pytest.raises(UserError, match="H200 in float32 is not known; give --rate"):
        plan_on(job, target)
    assert plan_on(job, given)["settings"]["model.dtype"] == {"value": "float32", "from": "the model's kind, fnet"}


def test_partition_columns_say_how_many_files_a_unit_has(source: Path, model: Path, tmp_path: Path) -> None:
    target = target_of("8xH100", 1e6, None)
    assert target is not None
    for partition_by, files in (("[]", 1), ("[kind]", 3), ("[label, kind]", 6)):
        job = make_job(source, model, tmp_path / "out", f"output.partition_by={partition_by}")
        assert plan_on(job, target)["estimate"]["files_per_unit"] == files, partition_by


def test_driver_that_is_not_enough_asks_for_several_jobs(source: Path, model: Path, tmp_path: Path) -> None:
    job = make_job(
        source, model, tmp_path / "out", "compute.unit_bytes=1", "compute.classifiers=auto", "compute.tokenizers=auto"
    )
    fast, slow = (target_of("64xH100", rate, None) for rate in (1e5, 1e-3))
    assert fast is not None
    assert slow is not None
    found = plan_on(job, fast)["estimate"]
    assert found["bottleneck"] == "driver"
    assert found["jobs"] > 1
    assert found["split"].startswith(f"{found['jobs']} jobs with {64 // found['jobs']} of the 64 each")
    assert f"{tmp_path}/out/part-*/label=*/*.parquet" in found["split"]
    assert found["one_job_seconds"] > found["seconds"]
    assert plan_on(job, slow)["estimate"]["jobs"] == 1


def test_command_prints_the_estimate_and_refuses_in_one_line(source: Path, model: Path, tmp_path: Path) -> None:
    job_file = write_job_file(tmp_path / "job.yaml", job_settings(source, model, tmp_path / "out"))
    finished = command("plan", job_file, "--cluster", "64xH100", "--rate", "1e6", "--price", "2.5")
    assert finished.code == 0, finished.stderr
    assert finished.result["units_to_run"] == finished.result["estimate"]["units"]
    assert finished.result["estimate"]["documents"]["value"] == DOCUMENTS
    assert "GPU hours" in finished.stderr
    for wrong in (["--cluster", "64xTPU"], ["--rate", "1e6"]):
        refused = command("plan", job_file, *wrong)
        assert refused.code == 2
        assert len(refused.error_lines) == 1
        assert wrong[0] in refused.error_lines[0]
