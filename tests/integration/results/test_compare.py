"""compare on real runs: two models, other units, merged files, a changed and a moved input; and the command itself."""

import json
import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.config import JobConfig
from jobs.results.compare import compare
from jobs.results.open_output import find_labeled
from pipeline_ops.output.commit_log import commit_unit, read_ledger
from pipeline_ops.output.compaction import compacted, merge_files, plan_compactions
from pipeline_ops.storage.config import StorageConfig
from pipeline_ops.storage.store import Store
from tests.models.tiny import make_model
from tests.support.compared_outputs import joined_by_duckdb
from tests.support.corpora import real_documents, write_jsonl
from tests.support.running import command, job_settings, make_job, write_job_file
from tests.support.serial_chain import run_serially

TEXTS = [text[:300] for text in real_documents(90, seed=4)]
OTHER_LABELS = ("NEGATIVE", "NEUTRAL", "POSITIVE")


@pytest.fixture(scope="module")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("other") / "model", "distilbert", OTHER_LABELS, seed=3)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    write_jsonl(tmp_path / "in" / "first.jsonl", [{"text": text} for text in TEXTS[:50]])
    write_jsonl(tmp_path / "in" / "second.jsonl", [*({"text": text} for text in TEXTS[50:]), {"text": None}])
    return tmp_path / "in"


@pytest.fixture
def old(source: Path, model: Path, tmp_path: Path) -> JobConfig:
    job = make_job(source, model, tmp_path / "old", "compute.unit_bytes=3000")
    run_serially(job, quiet=True)
    return job


def merge(output: Path) -> None:
    """As compact, without Ray."""
    storage = StorageConfig()
    ledger = read_ledger(Store(str(output), storage))
    for compaction in plan_compactions(ledger.commits.values(), 2**20, {}):
        files = [merge_files(Store(str(output), storage), one) for one in compaction.merges]
        commit_unit(
            Store(str(output), storage), ledger, replace(compacted(Store(str(output), storage), compaction, files), term=99)
        )


def flows_of(rows: list[tuple]) -> Counter[tuple[str, str]]:
    return Counter((row[0], row[1]) for row in rows)


def told_flows(result: dict) -> Counter[tuple[str, str]]:
    return Counter({(flow["a"], flow["b"]): flow["documents"] for flow in result["flows"]})


def test_another_model_and_other_units_are_compared_document_by_document(
    old: JobConfig, source: Path, other_model: Path, tmp_path: Path
) -> None:
    renamed = ("output.label_name=topic", "output.partition_by=[]", "output.source_row_column=source_row")
    run_serially(make_job(source, other_model, tmp_path / "new", "compute.unit_bytes=7000", *renamed), quiet=True)
    rows = joined_by_duckdb(old.output.path, str(tmp_path / "new"), "a.label, b.topic, a.text")
    merge(tmp_path / "old")
    a, b = find_labeled(str(tmp_path / "old")), find_labeled(str(tmp_path / "new"))
    assert len(a.commits) < len(b.commits), "merged"
    result = compare(a, b)
    assert result["documents"] == len(rows) == 90
    assert result["agreed"] == sum(one == other for one, other, _ in rows)
    assert told_flows(result) == {flow: count for flow, count in flows_of(rows).items() if flow[0] != flow[1]}
    assert result["labels_only_b"] == ["NEUTRAL"]
    assert set(result["differences"]) >= {"model.path", "model.labels", "output.label_name"}
    assert {change["text"] for change in result["most_changed"]} <= set(TEXTS)
    assert len(result["most_changed"]) == 20


def test_a_file_that_changed_between_the_runs_is_left_out(
    old: JobConfig, source: Path, other_model: Path, tmp_path: Path
) -> None:
    write_jsonl(source / "second.jsonl", [{"text": text} for text in TEXTS[:7]])
    run_serially(make_job(source, other_model, tmp_path / "new"), quiet=True)
    result = compare(find_labeled(str(tmp_path / "old")), find_labeled(str(tmp_path / "new")))
    assert (result["documents"], result["changed_files"], result["changed_input"]) == (50, 1, 40)
    rows = joined_by_duckdb(
        old.output.path,
        str(tmp_path / "new"),
        "a.label, b.label",
        "a.source_file = b.source_file and a.source_file like '%first%'",
    )
    assert result["agreed"] == sum(one == other for one, other in rows)


def test_a_moved_input_is_matched_by_what_follows_its_folder(
    old: JobConfig, source: Path, other_model: Path, tmp_path: Path
) -> None:
    shutil.copytree(source, tmp_path / "elsewhere" / "corpus")
    run_serially(make_job(tmp_path / "elsewhere" / "corpus", other_model, tmp_path / "new"), quiet=True)
    result = compare(find_labeled(str(tmp_path / "old")), find_labeled(str(tmp_path / "new")))
    assert (result["documents"], result["matched_by"]) == (90, "path below the input")
    rows = joined_by_duckdb(
        old.output.path,
        str(tmp_path / "new"),
        "a.label, b.label",
        "split_part(a.source_file, '/', -1) = split_part(b.source_file, '/', -1)",
    )
    assert told_flows(result) == {flow: count for flow, count in flows_of(rows).items() if flow[0] != flow[1]}


def test_one_model_of_several_is_compared_with_a_single_one(
    old: JobConfig, source: Path, model: Path, other_model: Path, tmp_path: Path
) -> None:
    settings = job_settings(source, "-", tmp_path / "both", "output.partition_by=[]")
    settings.pop("model")
    settings["models"] = [
        {"name": name, "path": str(path), "dtype": "float32"} for name, path in (("one", model), ("two", other_model))
    ]
    from jobs.config import check_config

    run_serially(check_config(JobConfig, settings), quiet=True)
    single, both = find_labeled(str(tmp_path / "old")), find_labeled(str(tmp_path / "both"))
    same = compare(single, both, model="one")
    assert (same["documents"], same["agreement"]) == (90, 1)
    assert "model.path" not in same["differences"]
    within = compare(both, both, model="one", model_b="two")
    assert told_flows(within) == told_flows(compare(single, both, model_b="two"))


@pytest.fixture
def compared(old: JobConfig, source: Path, other_model: Path, tmp_path: Path) -> Path:
    """A folder with two job files whose outputs are there."""
    hostile = "<script>alert(1)</script> [bold]not markup[/] \x1b[31m"
    write_jsonl(source / "third.jsonl", [{"text": hostile, "truth": "<b>POSITIVE"}, {"text": "plain", "truth": "POSITIVE"}])
    for name, model in (("old", old.model.path if old.model else ""), ("new", other_model)):
        settings = job_settings(source, model, tmp_path / name)
        write_job_file(tmp_path / f"{name}.yaml", settings)
        run_serially(make_job(source, model, tmp_path / name), quiet=True)
    return tmp_path


def test_command_tells_people_and_programs_and_writes_a_page_that_stands_alone(compared: Path) -> None:
    page = compared / "page.html"
    finished = command("compare", compared / "old.yaml", compared / "new", "--html", page, "--truth", "truth")
    assert finished.code == 0, finished.stderr
    assert finished.result["documents"] == 92
    truth = finished.result["truth"]
    assert (truth["documents"], truth["without_truth"], truth["wrong_in_both"] >= 1) == (2, 90, True)
    assert f"accuracy against truth, 2 documents (90 more have none): {truth['accuracy_a']:.2%} in A" in finished.stderr
    assert "McNemar's test (exact binomial): p = 1: the difference may be chance" in finished.stderr
    assert "None" not in re.split("Became wrong:|Largest changes", finished.stderr)[0], "behind them are texts"
    assert "kappa" in finished.stderr
    assert "Changed labels" in finished.stderr
    assert "\x1b[31m" not in finished.stderr
    html = page.read_text()
    assert "<svg" in html
    assert "McNemar" in html
    assert "<script" not in html
    assert "<b>POSITIVE" not in html
    assert "http://" not in html.replace("http://www.w3.org/", "")
    assert "https://" not in html
    quiet = command("compare", "--quiet", compared / "old", compared / "new.yaml", "--truth", "truth")
    assert (quiet.code, quiet.stderr) == (0, "")
    assert {**quiet.result, "seconds": 0} == {**finished.result, "seconds": 0}
    assert json.loads(quiet.stdout)


def test_command_says_mistakes_in_one_line_and_exits_2(compared: Path) -> None:
    (compared / "no-output").mkdir()
    for other, word in (("no-output", "holds no labels"), ("old.yaml", "the same output"), ("nowhere", "neither a job file")):
        finished = command("compare", compared / "old", compared / other)
        assert (finished.code, finished.stdout, len(finished.error_lines)) == (2, "", 1)
        assert word in finished.stderr
    finished = command("compare", compared / "old", compared / "new", "--html", compared / "no" / "page.html")
    assert finished.code == 2
    assert "--html" in finished.stderr
