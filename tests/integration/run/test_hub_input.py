"""`input.path: hf://…`: files of a dataset repository are read as any others; an output is refused there."""

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.results.labels import labels
from pipeline_ops.schema.errors import UserError
from pipeline_ops.storage.store import Store
from tests.servers.hub_server import HubServer
from tests.support.invariant import check_exactly_once
from tests.support.running import command, keys, make_job
from tests.support.serial_chain import run_serially

REPOSITORY = "others/corpus"
ROOT = f"hf://datasets/{REPOSITORY}"


def lines(*texts: str) -> bytes:
    return "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()


@pytest.fixture
def corpus(hub: HubServer) -> HubServer:
    hub.create(REPOSITORY)
    sink = io.BytesIO()
    pq.write_table(pa.table({"text": [f"row {number} of a table" for number in range(20)]}), sink)
    hub.put(REPOSITORY, "lang=en/a table.parquet", sink.getvalue())
    hub.put(REPOSITORY, "lang=de/lines.jsonl", lines("eins", "zwei"))
    hub.put(REPOSITORY, "README.md", b"---\nlicense: mit\n---\n")
    return hub


def test_files_of_a_repository_are_labeled_and_changed_ones_again(corpus: HubServer, model: Path, tmp_path: Path) -> None:
    job = make_job(ROOT, model, tmp_path / "out")
    assert run_serially(job, quiet=True).documents == 22
    expected = keys(f"{ROOT}/lang=en/a table.parquet", 20) + keys(f"{ROOT}/lang=de/lines.jsonl", 2)
    labeled, _ = check_exactly_once(tmp_path / "out", expected)
    assert set(labels(str(tmp_path / "out"))["lang"]) == {"en", "de"}

    corpus.put(REPOSITORY, "lang=de/lines.jsonl", lines("vier", "drei"))  # as many bytes
    result = run_serially(job, quiet=True)
    assert (result.documents_run, result.files_changed) == (2, 1)
    labeled, _ = check_exactly_once(tmp_path / "out", expected)
    assert {"vier", "drei"} < set(labeled["text"].to_pylist())
    assert run_serially(job, quiet=True).documents_run == 0


def test_file_is_read_as_it_was_listed_or_not_at_all(corpus: HubServer) -> None:
    store = Store(ROOT)
    listed = {file.path.rpartition("/")[2]: file for file in store.list_files()}
    with store.open(listed["lines.jsonl"], sequential=True) as source:
        first = source.read(5)
        corpus.put(REPOSITORY, "lang=de/lines.jsonl", lines("vier", "drei"))
        assert first + source.read() == lines("eins", "zwei")
    with store.open(listed["a table.parquet"], sequential=False) as source:
        assert pq.read_table(source).num_rows == 20
    (content,) = store.try_read_files([listed["lines.jsonl"]])
    assert isinstance(content, OSError)

    listed = {file.path.rpartition("/")[2]: file for file in store.list_files()}
    assert store.read_files([listed["lines.jsonl"]]) == [lines("vier", "drei")]
    corpus.put(REPOSITORY, "lang=de/lines.jsonl", lines("fünf"))
    corpus.put(REPOSITORY, "lang=fr/more.jsonl", lines("un"))
    (new,) = [file for file in store.list_files() if file.path.endswith("more.jsonl")]
    store.open(new, sequential=False).close()  # from here on the newest commit is known
    with pytest.raises(OSError, match=r"lines\.jsonl: has changed since it was listed"):
        store.open(listed["lines.jsonl"], sequential=False)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("hf://datasets/others/nothing", "repository not found"),
        (f"{ROOT}@branch", "revision not found"),
        (f"{ROOT}/lang=fr", "does not exist or holds no files"),
        ("hf://datasets/corpus", "give hf://datasets/user/name"),
    ],
)
def test_path_that_is_not_there_is_one_line(corpus: HubServer, path: str, message: str) -> None:
    finished = command("init", path)
    assert finished.code == 2
    assert message in finished.error_lines[-1]


def test_output_on_the_hub_is_refused_with_the_remedy(corpus: HubServer, model: Path) -> None:
    with pytest.raises(UserError, match=r"no conditional puts.*`label-corpus publish JOB --hub user/name`"):
        run_serially(make_job(ROOT, model, "hf://datasets/user/labels"), quiet=True)
