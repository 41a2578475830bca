"""What Prometheus finds at the nodes of a cluster while a job runs and when it has ended; the dashboard that asks for it."""

import json
import os
import re
import time
import urllib.request
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest
from fsspec.implementations.local import LocalFileSystem
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from cluster.prometheus_metrics import DECLARED
from tests.models import tiny
from tests.support import REPOSITORY
from tests.support.corpora import real_documents, write_bytes, write_parquet
from tests.support.invariant import read_rejects
from tests.support.ray_nodes import ray_nodes
from tests.support.running import Finished, commit_paths, job_settings, kill_group, start_command, write_job_file

DASHBOARD = REPOSITORY / "cluster" / "grafana" / "label-corpus.json"
ROWS = 30
TIMEOUT_S = 400
pytestmark = pytest.mark.timeout(600)  # a model that dies is loaded again, and Ray sends what it counts every ten seconds
# Ray exports these from nodes with a GPU only; their names are checked against its list of gauges
OF_GPUS = {"ray_node_gpus_utilization", "ray_node_gram_used", "ray_node_gram_available"}
# words of PromQL that stand where names of metrics do
PROMQL = {"by", "without", "on", "ignoring", "group_left", "group_right", "and", "or", "unless", "bool", "offset"}


@dataclass(frozen=True)
class Scraped:
    """A job on a cluster, and what its nodes said when it had ended."""

    finished: Finished
    output: Path
    samples: list[Sample]

    def total(self, name: str, **labels: str) -> float:
        wanted = labels.items()
        return sum(sample.value for sample in self.samples if sample.name == name and wanted <= sample.labels.items())

    def by(self, name: str, label: str) -> dict[str, float]:
        found: dict[str, float] = defaultdict(float)
        for sample in self.samples:
            if sample.name == name:
                found[sample.labels[label]] += sample.value
        return dict(found)


def scrape(port: int) -> str:
    """What a node's agent answers."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        return answer.read().decode()


def samples_of(text: str) -> list[Sample]:
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Scraped:
    """A run with two kinds of rejects, a file that cannot be read, and a classifier that dies once or more.

    The unit that kills is cured as soon as a node's metrics say that it was begun again: they are there while a run goes on.
    """
    folder = tmp_path_factory.mktemp("scraped")
    cured, output = folder / "cured", folder / "out"
    model = tiny.make_poisonous_model(folder / "model", cured)
    texts = [text[:300] for text in real_documents(ROWS, seed=3)]
    texts[4], texts[9], texts[15] = "", f"a text with {tiny.RAISING_WORD} in it", f"one with {tiny.KILLING_WORD} in it"
    source = folder / "in"
    write_parquet(source / "a.parquet", [{"text": text} for text in texts], row_group_size=10)
    write_bytes(source / "b.parquet", b"this is no Parquet file")
    settings = job_settings(
        source, model, output, "model.trust_remote_code=true", "compute.unit_bytes=1", "input.min_characters=1"
    )
    job_file = write_job_file(folder / "job.yaml", settings)
    often = {"RAY_metrics_report_interval_ms": "2000"}  # of 10,000, in which the unit could die as often as it may
    with mock.patch.dict(os.environ, often), ray_nodes(folder, token="a token of this test's cluster alone") as nodes:
        nodes.add_node(num_cpus=4)
        began = time.monotonic()
        process = start_command(
            *("run", job_file, "--log-format", "json"), ray_address=nodes.address, environment=nodes.environment
        )
        try:
            deadline = began + TIMEOUT_S
            while process.poll() is None and not cured.exists() and time.monotonic() < deadline:
                if any("ray_label_corpus_retries_total{" in scrape(port) for port in nodes.metrics_ports):
                    cured.touch()
                time.sleep(1)
            stdout, stderr = process.communicate(timeout=TIMEOUT_S)
        finally:
            kill_group(process)
        finished = Finished(process.returncode, stdout, stderr, time.monotonic() - began)
        assert finished.code == 1, stderr  # a file could not be read
        assert cured.exists(), "nothing was said of the retry while the run went on"
        samples = [sample for port in nodes.metrics_ports for sample in samples_of(scrape(port))]
    return Scraped(finished, output, samples)


@pytest.mark.slow
def test_metrics_of_a_run_add_up_to_its_json_line(scraped: Scraped) -> None:
    line, total = scraped.finished.result, scraped.total
    rejects = Counter(reject["reason"] for reject in read_rejects(scraped.output, LocalFileSystem()))
    assert scraped.by("ray_label_corpus_rejects_total", "reason") == rejects
    assert scraped.by("ray_label_corpus_documents_total", "outcome") == {
        "labeled": line["labeled"],
        "rejected": line["rejected"],
    }
    assert {"too_short", "model_error"} <= set(rejects)
    assert total("ray_label_corpus_units_total") == line["units"] == len(commit_paths(scraped.output))
    assert total("ray_label_corpus_failed_units_total") == line["units_failed"]
    assert total("ray_label_corpus_failed_units_total", step="read") == 1
    assert 1 <= total("ray_label_corpus_retries_total", stage="classify") <= 3
    for part, seconds in scraped.by("ray_label_corpus_classifier_seconds_total", "part").items():
        assert seconds == pytest.approx(line["classify_seconds"][part], abs=0.006), "the line is rounded"


@pytest.mark.slow
def test_metrics_of_tokens_are_those_of_the_json_line(scraped: Scraped) -> None:
    line = scraped.finished.result
    tokens, padding = (scraped.total(f"ray_label_corpus_{name}_total") for name in ("tokens", "padding_tokens"))
    rejected = tokens - line["tokens_run"]  # those of the document that made the model raise: it went through it
    assert 0 < rejected < 20
    assert line["padding_share"] == pytest.approx((padding + rejected) / (padding + tokens), abs=1e-4)


@pytest.mark.slow
def test_metrics_of_stages_count_each_unit(scraped: Scraped) -> None:
    units = scraped.finished.result["units"]
    read = units + scraped.total("ray_label_corpus_failed_units_total", step="classify")
    commits = [json.loads(path.read_text()) for path in commit_paths(scraped.output)]
    worked = scraped.by("ray_label_corpus_stage_work_seconds_count", "stage")
    assert (worked["read"], worked["tokenize"], worked["write"]) == (read, read, units)
    assert 0 < worked["classify"] <= units, "a process that is killed takes along what it has counted last"
    assert scraped.by("ray_label_corpus_stage_wait_seconds_count", "stage") == {
        stage: worked[stage] for stage in ("tokenize", "classify")
    }
    with_batches = [commit for commit in commits if commit["padded_tokens"]]  # not those of an empty text alone
    assert scraped.total("ray_label_corpus_batch_seconds_count") == len(with_batches) < units
    assert scraped.total("ray_label_corpus_stage_seconds_total", stage="tokenize", state="working") > 0


@pytest.mark.slow
def test_every_declared_metric_is_exported_under_the_run_and_its_output(scraped: Scraped) -> None:
    (run,) = {json.loads(path.read_text())["run"] for path in commit_paths(scraped.output)}
    for metric in DECLARED:
        for name in metric.exported():
            found = [sample for sample in scraped.samples if sample.name == name]
            assert found, name
            for sample in found:
                assert (sample.labels["run"], sample.labels["output"]) == (run, str(scraped.output))


def queries() -> list[str]:
    """Every PromQL expression of the dashboard, those of its variables too."""
    board = json.loads(DASHBOARD.read_text())
    found = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    variables = [one["query"]["query"] for one in board["templating"]["list"] if one["type"] == "query"]
    assert len(found) > 10
    assert variables
    return found + variables


def names_in(query: str) -> set[str]:
    """The names of metrics in a PromQL expression."""
    query = re.sub(r'"[^"]*"', '""', query)
    query = re.sub(r"label_values\((.*), *\w+\)", r"\1", query)  # Grafana's own function; what follows the comma is a label
    query = re.sub(r"\b(by|without|on|ignoring|group_left|group_right) *\([^)]*\)", " ", query)
    query = re.sub(r"\{[^}]*\}|\[[^]]*\]", " ", query)
    words = re.findall(r"[A-Za-z_:][\w:]*(?! *\()(?![\w:])", query)
    return set(words) - PROMQL


def labels_in(query: str) -> set[str]:
    """The names of labels in it: those that it groups by, and those that it asks for."""
    groups = re.findall(r"\b(?:by|without) *\(([^)]*)\)", query)
    return {label.strip() for group in groups for label in group.split(",")} | set(re.findall(r"(\w+) *=~?", query))


def test_names_of_a_query_are_told_from_functions_labels_and_numbers() -> None:
    query = 'histogram_quantile(0.5, sum by (le, stage) (rate(a_bucket{run=~"$run", x="b_c"}[$__rate_interval]))) / 2 + c:d'
    assert names_in(query) == {"a_bucket", "c:d"}
    assert labels_in(query) == {"le", "stage", "run", "x"}


@pytest.mark.slow
def test_every_query_of_the_dashboard_names_metrics_and_labels_that_there_are(scraped: Scraped) -> None:
    from ray.dashboard.modules.reporter.reporter_agent import METRICS_GAUGES

    assert {f"ray_{name}" for name in METRICS_GAUGES} >= OF_GPUS
    known = {sample.name for sample in scraped.samples} | OF_GPUS
    labels = {label for sample in scraped.samples for label in sample.labels}
    for query in queries():
        names = names_in(query)
        assert names, query
        assert names <= known, query
        assert labels_in(query) <= labels, query


def test_dashboard_asks_for_every_declared_metric_and_leaves_the_data_source_open() -> None:
    asked = set().union(*map(names_in, queries()))
    for metric in DECLARED:
        assert asked & set(metric.exported()), metric.name
    board = json.loads(DASHBOARD.read_text())
    sources = [panel["datasource"]["uid"] for panel in board["panels"] if panel["type"] != "row"]
    assert set(sources) == {"${datasource}"}
    assert board["templating"]["list"][0]["type"] == "datasource"


@pytest.mark.slow
def test_json_log_has_an_object_per_line_one_run_and_the_committed_units(scraped: Scraped) -> None:
    lines = [json.loads(line) for line in scraped.finished.error_lines if not is_rays_own(line)]
    events = Counter(line["event"] for line in lines)
    assert (events["run_started"], events["run_ended"]) == (1, 1)
    commits = [json.loads(path.read_text()) for path in commit_paths(scraped.output)]
    assert {line["run"] for line in lines} == {commit["run"] for commit in commits}
    logged = {line["unit"]: line["documents"] for line in lines if line["event"] == "unit_committed"}
    assert logged == {commit["unit"]: commit["labeled"] + commit["rejected"] for commit in commits}
    assert events["unit_failed"] == scraped.finished.result["units_failed"]
    assert str(scraped.output.parent / "in" / "b.parquet") in {line["where"] for line in lines if "where" in line}


def is_rays_own(line: str) -> bool:
    """Whether Ray's C++ has written it past Python: `[2026-11-22 08:00:01,277 E 9487 9487] core_worker.cc:2465: …`."""
    return re.match(r"\[\d{4}-\d\d-\d\d [\d:,]+ [IWEC] \d+ \d+\] ", line) is not None
