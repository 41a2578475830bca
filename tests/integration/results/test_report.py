"""The report of an output: what it says, that nothing in it can be taken for markup or a secret, and how a browser shows it."""

import json
import re
import shutil
from dataclasses import dataclass
from html import unescape
from pathlib import Path

import duckdb
import pytest

from jobs.config import JobConfig
from jobs.number_format import counted
from jobs.report.publish import make_report
from jobs.results.open_output import find_labeled
from jobs.run.result import RunResult
from tests.conftest import Bucket
from tests.support.corpora import real_documents, write_jsonl
from tests.support.invariant import check_exactly_once
from tests.support.running import command, command_in_own_process, keys, make_job, wait_for
from tests.support.serial_chain import run_serially

SECTIONS = (
    *("overview", "labels", "scores", "lengths", "documents", "rejects", "speed", "files", "read", "model", "runs"),
    "configuration",
)
SCRIPT = "<script>document.title = 'taken over'</script><img src=x onerror=alert(1)>"
SECRET = "AKIAIOSFODNN7EXAMPLE"
LONG = "a sentence that goes on " * 200
REJECTED = 2


@dataclass(frozen=True)
class Reported:
    job: JobConfig
    result: RunResult
    page: str

    @property
    def path(self) -> Path:
        return Path(self.job.output.path) / "_report" / "report.html"


@pytest.fixture
def reported(model: Path, tmp_path: Path) -> Reported:
    """A run over documents that a page had better not believe."""
    texts = [*real_documents(60), SCRIPT, f"the key is {SECRET} and password = 'hunter2hunter2'", LONG]
    lines = [*({"text": text} for text in texts), *({"text": None} for _ in range(REJECTED))]
    source = write_jsonl(tmp_path / "in" / "a.jsonl", lines)
    job = make_job(tmp_path / "in", model, tmp_path / "out", "compute.unit_bytes=8000")
    result = run_serially(job, quiet=True, report=True)
    check_exactly_once(job.output.path, keys(source, len(lines)))
    return Reported(job, result, (tmp_path / "out" / "_report" / "report.html").read_text())


def text_of(page: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", page)).split())


def test_report_at_the_end_of_a_run_says_what_duckdb_counts_in_its_files(reported: Reported) -> None:
    files = f"{reported.job.output.path}/label=*/*.parquet"
    rows = f"FROM read_parquet('{files}', hive_partitioning = true)"
    by_label = dict(duckdb.execute(f"SELECT label, count(*) {rows} GROUP BY 1").fetchall())
    assert reported.result.report == str(reported.path)
    assert reported.result.labels == by_label
    shown = text_of(reported.page)
    for label, count in by_label.items():
        assert f"{label} {count:,} documents" in shown
    [(truncated,)] = duckdb.execute(f"SELECT count(*) {rows} WHERE truncated").fetchall()
    assert f"{counted(truncated, 'document')} ({truncated / 63:.1%} of the labeled)" in shown
    assert f"null_text {REJECTED}" in shown


def test_report_has_every_section_and_a_picture_where_it_says_so(reported: Reported) -> None:
    assert tuple(re.findall(r'<section id="(\w+)"', reported.page)) == SECTIONS
    pictures = re.findall(r'<svg role="img" aria-label="([^"]*)"', reported.page)
    assert {"documents by label", "scores by label", "documents by score", "tokens of a document"} <= set(pictures)
    assert {"documents per second over the last run", "processing time by stage"} <= set(pictures)


def test_report_escapes_texts_masks_secrets_and_loads_nothing(reported: Reported, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "<script" not in reported.page
    assert "<img" not in reported.page
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!#|data:,)""", reported.page.replace("xlink:href", "xlink"))
    assert "@import" not in reported.page
    assert "url(http" not in reported.page
    monkeypatch.setenv("HF_TOKEN", "correct-horse-battery")
    page = Path(make_report(find_labeled(reported.job.output.path), lambda text: None)).read_text()
    for secret in (SECRET, "hunter2hunter2", "correct-horse-battery"):
        assert secret not in page


@pytest.fixture
def three_secrets(model: Path, tmp_path: Path) -> str:
    """The page of an output in which every document is shown."""
    texts = [SCRIPT, f"the key is {SECRET} and password = 'hunter2hunter2'", "token correct-horse-battery staple"]
    write_jsonl(tmp_path / "in.jsonl", [{"text": text} for text in texts])
    run_serially(make_job(tmp_path / "in.jsonl", model, tmp_path / "out"), quiet=True, report=True)
    return (tmp_path / "out" / "_report" / "report.html").read_text()


def test_report_of_few_documents_shows_them_all_escaped_and_masked(
    three_secrets: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = text_of(three_secrets)
    assert "<script>document.title" not in three_secrets
    assert "&lt;script&gt;document.title" in three_secrets
    assert "the key is ▇▇▇ and password = ▇▇▇" in shown
    assert "correct-horse-battery" in shown, "nothing says that it is a secret"
    monkeypatch.setenv("HF_TOKEN", "correct-horse-battery")
    again = Path(make_report(find_labeled(str(tmp_path / "out")), lambda text: None)).read_text()
    assert "correct-horse-battery" not in again


def test_report_of_several_models_heads_and_kept_columns(model: Path, model_of, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "in.jsonl", [{"text": text} for text in real_documents(20)])
    from jobs.config import check_config

    models = [
        {"name": "one", "path": str(model), "dtype": "float32"},
        {"name": "two", "path": str(model_of("distilbert")), "dtype": "float32", "problem_type": "multi_label_classification"},
    ]
    settings = {
        "input": {"path": str(tmp_path / "in.jsonl")},
        "models": models,
        "output": {"path": str(tmp_path / "out"), "partition_by": ["one_label"], "columns": "none"},
        "compute": {"tokenizers": 1, "classifiers": 1},
    }
    result = run_serially(check_config(JobConfig, settings), quiet=True, report=True)
    assert result.report_error is None
    shown = text_of((tmp_path / "out" / "_report" / "report.html").read_text())
    assert "(the output has no text column)" in shown
    for key, count in result.labels.items():
        assert f"{key.partition('=')[2]} {count:,} documents" in shown


def test_report_of_documents_that_were_all_rejected(model: Path, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "in.jsonl", [{"text": None}] * 3 + [{"text": ""}])
    result = run_serially(
        make_job(tmp_path / "in.jsonl", model, tmp_path / "out", "input.min_characters=1"), quiet=True, report=True
    )
    assert (result.rejected, result.report_error) == (4, None)
    shown = text_of((tmp_path / "out" / "_report" / "report.html").read_text())
    assert "No labeled documents" in shown
    assert "null_text 3" in shown
    assert "too_short 1" in shown
    assert re.search(r"file rejects documents reasons \S*in\.jsonl 4 4 null_text, too_short", shown)


def test_report_on_a_bucket_is_a_page_to_a_browser(s3: Bucket, model: Path) -> None:
    s3.filesystem.pipe_file(f"{s3.name}/in/a.jsonl", b'{"text": "one"}\n{"text": "two"}\n')
    job = make_job(f"{s3.url}/in", model, f"{s3.url}/out", f"storage.endpoint_url={s3.endpoint_url}")
    result = run_serially(job, quiet=True, report=True)
    assert result.report == f"{s3.url}/out/_report/report.html"
    info = s3.filesystem.info(f"{s3.name}/out/_report/report.html")
    assert info["ContentType"] == "text/html; charset=utf-8"
    check_exactly_once(f"{s3.name}/out", keys(f"{s3.url}/in/a.jsonl", 2), s3.filesystem)


def test_report_that_cannot_be_made_is_told_and_changes_nothing_else(
    reported: Reported, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shutil.rmtree(reported.path.parent)
    reported.path.parent.write_text("a file where the folder belongs")
    write_jsonl(tmp_path / "in" / "b.jsonl", [{"text": "one more"}])
    again = run_serially(reported.job, quiet=True, report=True)
    assert again.complete
    assert again.report is None
    assert again.report_error
    shown = command("report", reported.job.output.path, "--quiet")
    assert shown.code != 0


def test_report_command_takes_a_folder_or_a_job_file_and_refuses_others(reported: Reported, tmp_path: Path) -> None:
    reported.path.unlink()
    finished = command("report", reported.job.output.path)
    assert finished.code == 0, finished.stderr
    assert finished.result["report"] == str(reported.path)
    assert reported.path.exists()
    refused = command("report", tmp_path / "nothing")
    assert refused.code == 2
    assert len(refused.error_lines) == 1
    empty = tmp_path / "empty"
    empty.mkdir()
    refused = command("report", empty)
    assert refused.code == 2
    assert len(refused.error_lines) == 1


def test_report_has_what_evaluate_found_and_says_when_the_output_has_grown(model: Path, tmp_path: Path) -> None:
    texts = real_documents(30)
    write_jsonl(tmp_path / "in" / "a.jsonl", [{"text": text, "truth": "POSITIVE"} for text in texts[:20]])
    job = make_job(tmp_path / "in", model, tmp_path / "out")
    result = run_serially(job, quiet=True, report=True)
    evaluated = command("evaluate", tmp_path / "out", "--truth", "truth", "--quiet")
    assert evaluated.code == 0, evaluated.stderr
    assert evaluated.result["accuracy"] == pytest.approx(result.labels.get("POSITIVE", 0) / 20, abs=1e-6)
    page = Path(evaluated.result["report"]).read_text()
    section = page[page.index('<section id="evaluation">') : page.index('<section id="rejects">')]
    assert f"{evaluated.result['accuracy']:.4f}" in text_of(section)
    assert section.count("<svg") >= 2
    assert "accuracy of the majority baseline" in section
    assert "Evaluated when" not in section
    overview = text_of(page[page.index('<section id="overview">') : page.index('<section id="labels">')])
    accuracy = evaluated.result["accuracy"]
    assert f"{accuracy:.1%} accuracy, measured : {1 - accuracy:.1%} error" in overview
    assert "expected error if the scores are calibrated" in overview
    assert f"Measured: {1 - accuracy:.1%}" in text_of(page)
    said = command("report", tmp_path / "out").stderr
    assert "report written (all 20 labeled documents)" in said
    for wrong in ("1 files", "1 units", "1 input files", "None"):
        assert wrong not in overview
    write_jsonl(tmp_path / "in" / "b.jsonl", [{"text": text, "truth": "NEGATIVE"} for text in texts[20:]])
    run_serially(job, quiet=True, report=True)
    assert "Evaluated when the output had 20 documents; it has 30 now" in text_of(Path(evaluated.result["report"]).read_text())


@pytest.mark.slow
def test_report_is_opened_in_the_browser_of_the_environment(reported: Reported, tmp_path: Path) -> None:
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/opened\n')
    browser.chmod(0o755)
    finished = command_in_own_process("report", reported.job.output.path, "--open", environment={"BROWSER": f"{browser} %s"})
    assert finished.code == 0, finished.stderr
    opened = tmp_path / "opened"
    wait_for(lambda: opened.exists() and opened.read_text().endswith("\n"), "the browser was started", 60)
    assert opened.read_text().strip() == reported.path.as_uri()


def test_run_without_report_leaves_the_page_as_it_was(reported: Reported, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "in" / "b.jsonl", [{"text": "one more"}])
    result = run_serially(reported.job, quiet=True)
    assert result.documents_run == 1
    assert result.report is None
    assert reported.path.read_text() == reported.page


def test_run_with_nothing_to_do_writes_nothing(reported: Reported) -> None:
    before = {path: path.stat().st_mtime_ns for path in Path(reported.job.output.path).rglob("*") if path.is_file()}
    run_serially(reported.job, quiet=True, report=True)
    assert {path: path.stat().st_mtime_ns for path in Path(reported.job.output.path).rglob("*") if path.is_file()} == before


def test_record_of_each_run_stands_in_the_report_of_the_last(reported: Reported, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "in" / "b.jsonl", [{"text": "one more"}, {"text": "and another"}])
    run_serially(reported.job, quiet=True, report=True)
    records = [json.loads(path.read_text()) for path in sorted((Path(reported.job.output.path) / "_runs").iterdir())]
    assert sorted((record["outcome"], record["documents"]) for record in records) == [("complete", 2), ("complete", 65)]
    page = reported.path.read_text()
    rows = page[page.index('<section id="runs">') :].split("<tr>")[2:]
    assert [text_of(row).split()[1:3] for row in rows[:2]] == [["complete", "2"], ["complete", "65"]]


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_report_in_a_browser_is_whole_quiet_and_fits(reported: Reported, browser, scheme: str, width: int) -> None:
    """Every section is seen, nothing is asked of anybody, no error is logged, nothing sticks out, text stands out."""
    page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})
    complaints, requests = [], []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(reported.path.as_uri())
    assert page.title() == f"{reported.job.output.path} – label-corpus"
    for section in SECTIONS:
        box = page.locator(f"section#{section}").bounding_box()
        assert box is not None, section
        assert box["height"] > 20, section
    for picture in page.locator("figure svg").all():
        box = picture.bounding_box()
        assert box is not None
        assert box["width"] > 200
        assert box["height"] > 30
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    ink, paper = page.evaluate("['color', 'backgroundColor'].map(name => getComputedStyle(document.body)[name])")
    dark = [sum(map(int, re.findall(r"\d+", color)[:3])) < 384 for color in (ink, paper)]
    assert dark == ([True, False] if scheme == "light" else [False, True])
    shot = page.screenshot(full_page=True)
    assert shot.startswith(b"\x89PNG")
    assert complaints == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    page.close()
