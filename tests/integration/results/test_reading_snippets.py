"""The lines that a run and its report end with: split by a shell, then run in this process."""

import html
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import chdir, redirect_stdout
from io import StringIO
from pathlib import Path

import duckdb
import pandas
import pytest
from fsspec.implementations.local import LocalFileSystem

from jobs.config import JobConfig, check_config
from jobs.results.open_output import find_labeled
from jobs.results.reading_snippets import print_snippets_of, reading_snippets
from pipeline_ops.output.commit_log import Ledger
from pipeline_ops.output.labeled_output import Labeled
from pipeline_ops.storage.config import StorageConfig
from pipeline_ops.storage.store import Store
from tests.conftest import Bucket
from tests.support import REPOSITORY
from tests.support.corpora import real_documents, write_jsonl
from tests.support.invariant import read_labeled
from tests.support.running import job_settings, make_job
from tests.support.screens import on_terminal
from tests.support.serial_chain import run_serially
from tests.support.table_readers import Published, duckdb_connection

TEXTS = [text for text in real_documents(80, seed=9) if text.strip()][:40]
LABEL = "review label"  # a name that has to be quoted

LAYOUTS = {
    "as the README's": ("labeled", ()),
    "the input has a column label": ("labeled", ("output.label_name=predicted_label",)),
    "a name to be quoted": ("labeled", (f"output.label_name={LABEL}", "output.score_column=it's")),
    "no partitions": ("labeled", ("output.partition_by=[]",)),
    "two partitions": ("labeled", ("output.partition_by=[lang, label]",)),
    "without the input's columns": ("labeled", ("output.columns=none",)),
    "a folder to be quoted": ("it's $HOME, a [new] \"folder\" `here`", ()),
    "a folder with an exclamation mark": ("it's new!", ()),
}  # fmt: skip


@pytest.fixture(scope="module")
def label(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder in which the output of that layout is."""

    def make(layout: str) -> Path:
        folder = tmp_path_factory.mktemp("snippets")
        name, overrides = LAYOUTS[layout]
        truth = {"label": "truth"} if layout == "the input has a column label" else {}
        rows = [{"text": text, "lang": ("en", "de")[row % 2], **truth} for row, text in enumerate(TEXTS)]
        write_jsonl(folder / "in.jsonl", rows)
        run_serially(make_job(folder / "in.jsonl", model, folder / name, *overrides), quiet=True)
        return folder

    return make


def by_duckdb(line: str, folder: Path) -> dict[str, int]:
    """What DuckDB's command answers in that folder."""
    program, option, sql = split_by_a_shell(line)
    assert (program, option) == ("duckdb", "-c")
    with chdir(folder), duckdb.connect() as connection:
        return dict(connection.sql(sql).fetchall())


def split_by_a_shell(line: str) -> list[str]:
    """The words of a line as bash gives them to a program."""
    script = f'python() {{ printf "%s\\0" python "$@"; }}; duckdb() {{ printf "%s\\0" duckdb "$@"; }}; {line}'
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout.split("\0")[:-1]


def by_python(line: str, folder: Path) -> str:
    """What a Python line prints in that folder."""
    program, option, code = split_by_a_shell(line)
    assert (program, option) == ("python", "-c")
    printed = StringIO()
    options = ("display.width", 1000, "display.max_columns", None, "display.max_rows", None)
    with chdir(folder), redirect_stdout(printed), pandas.option_context(*options):
        exec(code, {})
    return printed.getvalue()


def check_lines(lines: Sequence[str], folder: Path, output: Path, label_column: str, columns: Sequence[str]) -> None:
    labeled = read_labeled(output, LocalFileSystem())
    counts = Counter(labeled[label_column].to_pylist())
    assert set(counts) == {"NEGATIVE", "POSITIVE"}
    assert by_duckdb(lines[0], folder) == counts
    for line in lines[1:]:
        printed = by_python(line, folder)
        assert " ".join(printed.splitlines()[0].split()) == " ".join(columns)
        assert printed.count("\n") == len(TEXTS) + 1
        assert "truth" not in printed


@pytest.mark.parametrize("layout", LAYOUTS)
def test_snippets_read_the_labels_of_the_output_they_are_made_from(label: Callable[[str], Path], layout: str):
    folder = label(layout)
    output = folder / LAYOUTS[layout][0]
    snippets = reading_snippets(find_labeled(str(output)))
    assert [snippet.tool for snippet in snippets] == ["DuckDB", "pandas", "label_corpus"]
    names = find_labeled(str(output)).columns
    texts = [] if names.columns == "none" else ["text"]
    check_lines(
        [snippet.line for snippet in snippets],
        folder,
        output,
        names.label_name,
        [*texts, names.label_name, names.score_column],
    )


def test_snippets_of_the_readme_are_those_of_its_output_and_run_as_they_are(label: Callable[[str], Path]):
    folder = label("as the README's")
    section = (REPOSITORY / "README.md").read_text().split("\n## Read the labels\n")[1].split("\n## ")[0]
    lines = section.split("```\n")[1].splitlines()
    made = [snippet.line for snippet in reading_snippets(find_labeled(str(folder / "labeled")), path="labeled")]
    assert lines == made[:2]
    check_lines(made, folder, folder / "labeled", "label", ["text", "label", "score"])


def test_snippets_of_several_models_name_the_columns_of_each(model: Path, tmp_path: Path):
    write_jsonl(tmp_path / "in.jsonl", [{"text": text} for text in TEXTS])
    settings = job_settings(tmp_path / "in.jsonl", model, tmp_path / "out", "output.partition_by=[two_label]") | {"model": None}
    settings["models"] = [{"name": name, "path": str(model), "dtype": "float32"} for name in ("one", "two")]
    run_serially(settings, quiet=True)
    lines = [snippet.line for snippet in reading_snippets(find_labeled(str(tmp_path / "out")))]
    columns = ["text", "one_label", "one_score", "two_label", "two_score"]
    check_lines(lines, tmp_path, tmp_path / "out", "one_label", columns)


@pytest.mark.parametrize(("table", "extensions"), [("delta", ["delta"]), ("iceberg", ["avro", "iceberg"])])
def test_snippets_of_a_published_output_read_no_replaced_file(model: Path, tmp_path: Path, table: str, extensions: list[str]):
    output = tmp_path / "it's new"
    for texts in (TEXTS, TEXTS[:15]):
        write_jsonl(tmp_path / "in.jsonl", [{"text": text} for text in texts])
        run_serially(make_job(tmp_path / "in.jsonl", model, output, f"output.table={table}"), quiet=True)
    duck, own = reading_snippets(find_labeled(str(output)))
    assert (duck.tool, own.tool) == ("DuckDB", "label_corpus")
    assert by_python(own.line, tmp_path).count("\n") == len(texts) + 1
    with duckdb_connection(Published(str(output)), *extensions) as connection:
        counts = connection.sql(split_by_a_shell(duck.line)[2]).fetchall()
    assert sum(count for _, count in counts) == len(texts)


def test_snippets_of_an_output_that_is_published_no_more_read_no_replaced_file(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    output = tmp_path / "out"
    for texts, table in ((TEXTS, "delta"), (TEXTS[:15], "none")):
        write_jsonl(tmp_path / "in.jsonl", [{"text": text} for text in texts])
        run_serially(make_job(tmp_path / "in.jsonl", model, output, f"output.table={table}"), quiet=True)
    capsys.readouterr()
    print_snippets_of(Store(str(output)))
    remark, _, line = capsys.readouterr().err.splitlines()
    assert remark.startswith("output.table is none: the table here is updated")
    assert by_python(line.strip(), tmp_path).count("\n") == 15 + 1


def test_snippets_of_an_output_on_s3_have_its_endpoint(s3: Bucket, model: Path, tmp_path: Path):
    write_jsonl(tmp_path / "in.jsonl", [{"text": text} for text in TEXTS])
    endpoint = f"storage.endpoint_url={s3.endpoint_url}"
    job = make_job(tmp_path / "in.jsonl", model, f"{s3.url}/my labels", endpoint, "storage.region=eu-west-1")
    run_serially(job, quiet=True)
    labeled = find_labeled(f"{s3.url}/my labels", [endpoint, "storage.region=eu-west-1"])
    duck, *python = [snippet.line for snippet in reading_snippets(labeled)]
    for line in python:
        assert by_python(line, tmp_path).count("\n") == len(TEXTS) + 1
    sql = split_by_a_shell(duck)[2]
    assert len(duckdb.extract_statements(sql)) == 2
    host = s3.endpoint_url.removeprefix("http://")
    assert f"REGION 'eu-west-1', ENDPOINT '{host}', URL_STYLE 'path', USE_SSL false" in sql
    assert f"'{s3.url}/my labels/label=*/*.parquet'" in sql


def test_snippets_of_a_public_bucket_need_no_credentials_and_other_stores_are_left_to_python():
    config = {"input": {"path": "in"}, "model": {"path": "m"}, "output": {"path": "out"}}
    record = {"config": check_config(JobConfig, config).model_dump(mode="json"), "models": {"": {}}}
    public = Labeled(Store("s3://bucket/out", StorageConfig(anonymous=True)), record, Ledger())
    lines = [snippet.line for snippet in reading_snippets(public)]
    assert "CREATE SECRET (TYPE s3); SELECT" in lines[0]
    assert "storage_options={'anon': True}" in lines[1]
    assert "storage={'anonymous': True}" in lines[2]
    other = [snippet.tool for snippet in reading_snippets(Labeled(Store("memory://out"), record, Ledger()))]
    assert other == ["pandas", "label_corpus"]


@pytest.mark.slow
def test_report_ends_with_the_lines_on_a_terminal_and_has_them_in_its_page(label: Callable[[str], Path]):
    folder = label("the input has a column label")
    lines = [snippet.line for snippet in reading_snippets(find_labeled(str(folder / "labeled")))]
    command_line = [sys.executable, "-m", "jobs.cli", "report", str(folder / "labeled")]
    with on_terminal(command_line, columns=400, rows=30) as terminal:
        assert terminal.end(120) == 0
        shown = terminal.lines
    at = shown.index("read the labels:")
    assert [line.strip() for line in shown[at + 1 : at + 4]] == lines
    page = (folder / "labeled" / "_report" / "report.html").read_text()

    assert [html.unescape(found) for found in re.findall("<pre>(.*?)</pre>", page) if "read" in found or "labels" in found][
        :3
    ] == lines


def test_record_that_cannot_be_read_after_a_run_is_named_and_no_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "_job.json").mkdir()
    print_snippets_of(Store(str(tmp_path)))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("the output's record cannot be read: IsADirectoryError: ")
