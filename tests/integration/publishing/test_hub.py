"""`publish --hub`, with the real huggingface_hub against a stand-in of the hub: what is in the repository at each commit."""

import io
import random
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from jobs.config import load_job
from jobs.maintenance.compact import compact
from jobs.maintenance.split import split
from jobs.publishing import hub as hub_publication
from jobs.results.labels import labels
from tests.conftest import Bucket
from tests.servers.hub_server import READ_TOKEN, TOKEN, Fault, HubServer
from tests.support.corpora import write_jsonl, write_parquet
from tests.support.running import (
    Finished,
    command,
    command_in_own_process,
    job_settings,
    kill_group,
    start_command,
    write_job_file,
)
from tests.support.serial_chain import run_serially
from tests.support.tiers import mostly_slow

FILES, ROWS = 3, 12
NAME = "user/labels"
HAND_WRITTEN = "---\nlicense: mit\n---\n# Mine\n\nWritten by hand.\n"


@pytest.fixture
def server(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> HubServer:
    monkeypatch.setattr(hub_publication, "FIRST_PAUSE_S", 0.001)
    return hub


def text(file: int, row: int) -> str:
    return f"document {row} of file {file}: {'good' if (file + row) % 3 else 'bad'} number {7919 * row % 97}"


def write_file(folder: Path, number: int, rows: int = ROWS, reject: bool = False) -> None:
    documents = [{"id": 100 * number + row, "text": text(number, row), "tags": ["a", str(row)]} for row in range(rows)]
    write_jsonl(folder / f"f{number}.jsonl", [*documents, *([{"id": -1, "text": None}] if reject else [])])


def label_files(folder: Path, model: Path, *overrides: str) -> Path:
    """Labels FILES files, two units each; returns the job file."""
    for number in range(FILES):
        write_file(folder / "corpus", number, reject=number == 0)
    job_file = write_job_file(
        folder / "job.yaml", job_settings(folder / "corpus", model, folder / "out", "compute.unit_bytes=700", *overrides)
    )
    run_serially(load_job(str(job_file), []), quiet=True)
    return job_file


@pytest.fixture(scope="module")
def labeled_once(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return label_files(tmp_path_factory.mktemp("labeled"), model)


@pytest.fixture
def job_file(model: Path, tmp_path: Path) -> Path:
    """A labeled job of which the test may change all."""
    return label_files(tmp_path, model)


def publish(job_file: Path, *options: str, name: str = NAME) -> Finished:
    finished = command("publish", job_file, "--hub", name, *options)
    assert finished.code == 0, finished.stderr
    return finished


def table_of(files: dict[str, bytes]) -> pa.Table:
    """The rows of a repository's data files."""
    tables = [pq.read_table(io.BytesIO(content)) for path, content in files.items() if path.startswith("data/")]
    return pa.concat_tables(tables) if tables else pa.table({"source_file": [], "source_row": []})


def rows_of(table: pa.Table) -> list[dict]:
    rows = [{**row, "source_file": row["source_file"].rpartition("/")[2]} for row in table.to_pylist()]
    return sorted(rows, key=lambda row: (row["source_file"], row["source_row"]))


def check_same_rows(files: dict[str, bytes], output: Path) -> None:
    """Asserts that a repository has exactly the committed rows, with the same columns and types."""
    published, committed = table_of(files), labels(str(output), "arrow").to_table()
    assert published.schema.remove_metadata() == committed.schema
    assert rows_of(published) == rows_of(committed)


def check_each_commit(server: HubServer, name: str = NAME) -> list[set[tuple[str, int]]]:
    """Asserts that no commit has a document twice; returns the documents of each."""
    repository, found = server.repositories[name], []
    for sha in repository.log:
        counts = Counter((row["source_file"], row["source_row"]) for row in rows_of(table_of(server.files(name, sha))))
        assert max(counts.values(), default=1) == 1
        found.append(set(counts))
    return found


def card_of(server: HubServer, revision: str = "main", name: str = NAME) -> tuple[dict, str]:
    """(metadata, text) of the card."""
    _, front, body = server.files(name, revision)["README.md"].decode().split("---\n", 2)
    return yaml.safe_load(front), body


def test_repository_has_exactly_the_labeled_rows_and_a_card_about_them(server: HubServer, labeled_once: Path) -> None:
    finished = publish(labeled_once)
    folder = labeled_once.parent
    files = server.files(NAME)
    check_same_rows(files, folder / "out")
    assert {row["source_file"] for row in table_of(files).to_pylist()} == {f"f{number}.jsonl" for number in range(FILES)}
    assert not any(str(folder).encode() in content for content in files.values()), "where the corpus lies is nobody's business"

    metadata, body = card_of(server)
    assert metadata["configs"] == [{"config_name": "default", "data_files": [{"split": "train", "path": "data/*/*.parquet"}]}]
    assert metadata["size_categories"] == ["n<1K"]
    assert "label-corpus" in metadata["tags"]
    counts = Counter(table_of(files)["label"].to_pylist())
    assert all(f"| {label} | {count} |" in body for label, count in counts.items())
    assert "36 documents of corpus" in body
    assert "1 document of the corpus is not" in body
    assert "being uploaded" not in body
    result = finished.result
    assert (result["documents"], result["commits"], result["removed"]) == (36, 1, 0)
    assert result["added"] == sum(path.startswith("data/") for path in files)


def test_second_publication_uploads_only_what_is_new(server: HubServer, job_file: Path) -> None:
    publish(job_file)
    server.requests.clear()
    again = publish(job_file).result
    assert (again["added"], again["commits"]) == (0, 0)
    assert server.uploads() == []

    write_file(job_file.parent / "corpus", 7)
    run_serially(load_job(str(job_file), []), quiet=True)
    grown = publish(job_file).result
    assert (grown["documents"], grown["removed"]) == (48, 0)
    assert len(server.uploads()) == grown["added"] > 0
    check_same_rows(server.files(NAME), job_file.parent / "out")
    check_each_commit(server)


def test_replaced_files_go_in_the_commit_that_adds_their_successors(
    server: HubServer, job_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(job_file)
    monkeypatch.setattr(hub_publication, "BATCH_FILES", 1)
    write_file(job_file.parent / "corpus", 1, rows=5)
    write_file(job_file.parent / "corpus", 8)
    run_serially(load_job(str(job_file), []), quiet=True)
    before = len(server.repositories[NAME].log)
    result = publish(job_file).result
    assert result["removed"] > 0
    assert result["commits"] > 1
    documents = check_each_commit(server)
    stays = {(f"f{number}.jsonl", row) for number in (0, 2) for row in range(ROWS)} | {("f1.jsonl", row) for row in range(5)}
    assert all(stays <= found for found in documents[before - 1 :])
    check_same_rows(server.files(NAME), job_file.parent / "out")


@pytest.mark.slow
def test_documents_that_the_corpus_has_lost_and_compaction_leave_nothing_behind(server: HubServer, job_file: Path) -> None:
    publish(job_file)
    (job_file.parent / "corpus" / "f2.jsonl").unlink()
    run_serially(load_job(str(job_file), ["output.drop_removed=true"]), quiet=True)
    assert publish(job_file).result["documents"] == 24
    check_same_rows(server.files(NAME), job_file.parent / "out")
    compact(load_job(str(job_file), []), 2**28, quiet=True)
    result = publish(job_file).result
    assert result["added"] < result["removed"]
    assert result["commits"] == 1
    check_same_rows(server.files(NAME), job_file.parent / "out")
    assert check_each_commit(server)[-1] == check_each_commit(server)[-2]


@pytest.mark.slow
def test_card_says_that_rows_are_missing_until_the_last_commit(
    server: HubServer, labeled_once: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_publication, "BATCH_FILES", 2)
    publish(labeled_once)
    _, *commits = server.repositories[NAME].log
    assert len(commits) > 1
    assert ["being uploaded" in card_of(server, sha)[1] for sha in commits] == [True] * (len(commits) - 1) + [False]
    check_same_rows(server.files(NAME), labeled_once.parent / "out")


@pytest.mark.slow
def test_what_people_write_into_the_card_stays(server: HubServer, job_file: Path) -> None:
    server.create(NAME)
    server.put(NAME, "README.md", HAND_WRITTEN.encode())
    publish(job_file)
    metadata, body = card_of(server)
    assert metadata["license"] == "mit"
    assert "Written by hand." in body
    server.put(NAME, "README.md", server.files(NAME)["README.md"].replace(b"by hand", b"with care"))
    write_file(job_file.parent / "corpus", 7)
    run_serially(load_job(str(job_file), []), quiet=True)
    publish(job_file)
    metadata, body = card_of(server)
    assert metadata["license"] == "mit"
    assert "Written with care." in body
    assert body.count("## Columns") == 1
    assert "48 documents of corpus" in body


@pytest.mark.slow
def test_labels_with_odd_names_of_several_models_in_other_columns(server: HubServer, model: Path, tmp_path: Path) -> None:
    names = '{NEGATIVE: "a|b/c=1 %2F", POSITIVE: "00"}'
    settings = job_settings(tmp_path / "corpus", model, tmp_path / "out", "compute.unit_bytes=700")
    one = settings.pop("model")
    settings["models"] = [{"name": "tone", **one, "id2label": yaml.safe_load(names)}, {"name": "topic", **one}]
    settings["output"]["partition_by"] = ["tone_label", "id"]
    job_file = write_job_file(tmp_path / "job.yaml", settings)
    for number in range(FILES):
        write_file(tmp_path / "corpus", number)
    run_serially(load_job(str(job_file), []), quiet=True)
    publish(job_file)
    check_same_rows(server.files(NAME), tmp_path / "out")
    assert set(table_of(server.files(NAME))["tone_label"].to_pylist()) == {"a|b/c=1 %2F", "00"}
    assert r"| a\|b/c=1 %2F |" in card_of(server)[1]


@pytest.mark.slow
def test_column_that_comes_later_is_in_all_files(server: HubServer, job_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers take the columns from whatever file they see first."""
    monkeypatch.setattr(hub_publication, "BATCH_FILES", 2)
    publish(job_file)
    before = len(server.repositories[NAME].log)
    write_jsonl(job_file.parent / "corpus" / "wide.jsonl", [{"id": 1, "text": "more", "tags": [], "year": "2026"}])
    run_serially(load_job(str(job_file), []), quiet=True)
    publish(job_file)
    check_same_rows(server.files(NAME), job_file.parent / "out")
    schemas = {str(pq.read_schema(io.BytesIO(one))) for path, one in server.files(NAME).items() if path.startswith("data/")}
    assert len(schemas) == 1
    documents = check_each_commit(server)
    assert all(documents[before - 1] <= found for found in documents[before:])
    assert "year" in schemas.pop()


@pytest.mark.slow
def test_parts_of_a_split_job_are_one_dataset(server: HubServer, model: Path, tmp_path: Path) -> None:
    for number in range(6):
        write_file(tmp_path / "corpus", number)
    job_file = write_job_file(tmp_path / "job.yaml", job_settings(tmp_path / "corpus", model, tmp_path / "out"))
    for part in split(str(job_file), 2)["parts"].values():
        run_serially(load_job(part["job"], []), quiet=True)
    assert publish(job_file).result["documents"] == 6 * ROWS
    check_same_rows(server.files(NAME), tmp_path / "out")


@pytest.mark.slow
def test_output_on_object_storage(server: HubServer, model: Path, tmp_path: Path, s3: Bucket) -> None:
    write_file(tmp_path / "corpus", 0)
    endpoint = f"storage.endpoint_url={s3.endpoint_url}"
    settings = job_settings(tmp_path / "corpus", model, f"{s3.url}/out", endpoint, "compute.unit_bytes=300")
    job_file = write_job_file(tmp_path / "job.yaml", settings)
    run_serially(load_job(str(job_file), []), quiet=True)
    publish(job_file)
    committed = labels(f"{s3.url}/out", "arrow", storage={"endpoint_url": s3.endpoint_url}).to_table()
    assert rows_of(table_of(server.files(NAME))) == rows_of(committed)
    finished = command("publish", f"{s3.url}/out", endpoint, "--hub", NAME)
    assert finished.result["commits"] == 0, "the folder stands for the job"


def test_branch_and_private_dataset(server: HubServer, labeled_once: Path) -> None:
    publish(labeled_once, "--private", "--branch", "next")
    assert server.repositories[NAME].private
    assert set(server.files(NAME)) == {".gitattributes"}
    check_same_rows(server.files(NAME, "next"), labeled_once.parent / "out")
    assert f"hf://datasets/{NAME}@next/data/" in card_of(server, "next")[1]


@pytest.mark.parametrize(
    ("arguments", "token", "message"),
    [
        (("--hub", "labels"), TOKEN, "'labels' has no namespace"),
        (("--hub", "user/my labels"), TOKEN, "is no name of a repository"),
        (("--hub", NAME), "", "there is no token for the hub; log in with `hf auth login`, or set HF_TOKEN"),
        (("--hub", NAME), "hf_wrong", "401"),
        (("--hub", NAME), READ_TOKEN, "403"),
        (("--hub", "others/labels"), TOKEN, "the token needs the right to write to 'others'"),
        (("--hub", "user/public", "--private"), TOKEN, "user/public exists on the hub and is public"),
        (("--hub", "user/photos"), TOKEN, "user/photos holds other files, such as photos/0.jpeg"),
        (("output.path=nowhere", "--hub", NAME), TOKEN, "holds no labels"),
    ],
)
def test_mistake_is_one_line_that_names_it(
    server: HubServer,
    labeled_once: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    token: str,
    message: str,
) -> None:
    server.create("user/public")
    server.create("user/photos")
    server.put("user/photos", "photos/0.jpeg", b"...")
    monkeypatch.setenv("HF_TOKEN", token)
    finished = command("publish", labeled_once, *arguments, "--quiet")
    assert finished.code == 2
    assert message in finished.error_lines[-1]
    assert "hf_" not in finished.stderr


def test_hub_that_cannot_be_reached_is_one_line(server: HubServer, labeled_once: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    finished = command("publish", labeled_once, "--hub", NAME, "--quiet")
    assert finished.code == 2
    assert "--hub: the hub at http://127.0.0.1:9 cannot be reached" in finished.error_lines[-1]


@pytest.mark.slow
def test_labels_of_another_job_are_replaced_only_on_request(
    server: HubServer, labeled_once: Path, model: Path, tmp_path: Path
) -> None:
    publish(labeled_once)
    other = label_files(tmp_path, model, "model.max_length=8")
    finished = command("publish", other, "--hub", NAME, "--quiet")
    assert finished.code == 2
    assert "holds the labels of another job" in finished.error_lines[-1]
    check_same_rows(server.files(NAME), labeled_once.parent / "out")
    publish(other, "--replace")
    check_same_rows(server.files(NAME), tmp_path / "out")
    check_each_commit(server)


def other_commit(server: HubServer, job_file: Path) -> None:
    """Somebody else commits just before the first commit, as does the network."""

    def before(request: str) -> None:
        if request == f"POST /api/datasets/{NAME}/commit/main":
            server.before = lambda request: None
            server.put(NAME, "README.md", HAND_WRITTEN.encode())

    server.before = before


def busy(server: HubServer, job_file: Path) -> None:
    server.faults = [Fault("POST .*/commit/", status=503, times=2), Fault("POST .*/commit/", status=409)]


def lost_answer(server: HubServer, job_file: Path) -> None:
    server.faults = [Fault("POST .*/commit/", done=True, skip=1), Fault("POST .*/commit/", done=True, skip=2)]


def cut_upload(server: HubServer, job_file: Path) -> None:
    server.faults = [Fault("PUT /objects/"), Fault("GET .*/tree/"), Fault("POST .*/preupload/")]


@pytest.mark.parametrize("trouble", mostly_slow([other_commit, busy, lost_answer, cut_upload], quick=[lost_answer]))
def test_publication_comes_through(
    server: HubServer, labeled_once: Path, monkeypatch: pytest.MonkeyPatch, trouble: Callable[[HubServer, Path], None]
) -> None:
    monkeypatch.setattr(hub_publication, "BATCH_FILES", 2)
    server.create(NAME)
    trouble(server, labeled_once)
    publish(labeled_once)
    check_same_rows(server.files(NAME), labeled_once.parent / "out")
    check_each_commit(server)


@pytest.mark.slow
def test_hub_that_keeps_failing_ends_with_a_line_and_without_addresses(server: HubServer, labeled_once: Path) -> None:
    server.create(NAME)
    server.faults = [Fault("POST .*/commit/", status=500, times=1000)]
    finished = command("publish", labeled_once, "--hub", NAME, "--quiet")
    assert finished.code == 1
    assert finished.error_lines[-1] == (
        f"label-corpus: failed: the hub answered 500 for {NAME}: injected; run it again to continue"
    )
    assert "Signature" not in finished.stderr
    assert check_each_commit(server) == [set()]


@pytest.mark.slow
def test_output_that_changes_meanwhile_is_published_as_it_is_then(
    server: HubServer, job_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run replaces files, and deletes the old ones, between two commits of the publication."""
    monkeypatch.setattr(hub_publication, "BATCH_FILES", 2)
    write_file(job_file.parent / "corpus", 0, rows=4)

    def before(request: str) -> None:
        if request == f"POST /api/datasets/{NAME}/commit/main":
            server.before = lambda request: None
            run_serially(load_job(str(job_file), ["compute.unit_bytes=100000"]), quiet=True)
            compact(load_job(str(job_file), []), 2**28, quiet=True)

    server.before = before
    assert publish(job_file).result["removed"] > 0
    check_same_rows(server.files(NAME), job_file.parent / "out")
    check_each_commit(server)


@pytest.mark.slow
def test_large_files_are_uploaded_in_parts_and_found_by_the_next_publication(
    server: HubServer, model: Path, tmp_path: Path
) -> None:
    numbers = iter(range(10**9))
    rows = [{"text": " ".join(f"{next(numbers) * 2654435761 % 2**32:x}" for _ in range(300))} for _ in range(400)]
    write_jsonl(tmp_path / "in.jsonl", rows)
    job_file = write_job_file(tmp_path / "job.yaml", job_settings(tmp_path / "in.jsonl", model, tmp_path / "out"))
    run_serially(load_job(str(job_file), ["model.max_length=16"]), quiet=True)
    server.create(NAME)
    server.faults = [Fault("POST .*/commit/", status=403)]
    refused = command("publish", job_file, "model.max_length=16", "--hub", NAME)
    assert refused.code == 2
    assert sum("/objects/" in path and method == "PUT" for method, path, _ in server.requests) > 1
    server.requests.clear()
    publish(job_file)
    assert server.uploads() == [], "what the hub has received is not sent again"
    check_same_rows(server.files(NAME), tmp_path / "out")


@pytest.mark.slow
def test_publication_that_was_killed_is_continued(server: HubServer, model: Path, tmp_path: Path) -> None:
    """At moments from the first upload on; every commit has each document at most once, and the end has all."""
    job_file = label_files(tmp_path, model)
    for kills, request in enumerate(("PUT /objects/", "POST .*/verify", "POST .*/commit/", "PUT /objects/")):
        write_file(tmp_path / "corpus", 1, rows=3 + kills)
        write_file(tmp_path / "corpus", 10 + kills)
        run_serially(load_job(str(job_file), []), quiet=True)
        _publish_and_kill(server, job_file, request)
        check_each_commit(server)
        received = set(server.objects)
        server.requests.clear()
        finished = command_in_own_process("publish", job_file, "--hub", NAME, environment=server.environment())
        assert finished.code == 0, finished.stderr
        assert not received.intersection(server.uploads()), "what was uploaded before the kill is not sent again"
        check_same_rows(server.files(NAME), tmp_path / "out")
        check_each_commit(server)


def _publish_and_kill(server: HubServer, job_file: Path, request: str) -> None:
    process = start_command("publish", job_file, "--hub", NAME, environment=server.environment())
    killed = threading.Event()

    def before(found: str) -> None:
        if re.match(request, found) and not killed.is_set():
            killed.set()
            kill_group(process)
            process.wait()

    server.before = before
    process.communicate(timeout=120)
    server.before = lambda request: None
    assert killed.is_set()
    assert process.returncode < 0


@pytest.mark.slow
def test_datasets_loads_exactly_the_labeled_rows(server: HubServer, model: Path, tmp_path: Path) -> None:
    columns = {
        "text": [text(0, row) for row in range(20)],
        "map": pa.array([[("a", row)] if row else None for row in range(20)], pa.map_(pa.string(), pa.int64())),
        "nested": [{"list": [{"value": row}] if row % 2 else None} for row in range(20)],
        "price": pa.array(range(20), pa.decimal64(9, 2)),
        "day": pa.array(range(20), pa.date32()),
        "at": pa.array(range(20), pa.timestamp("us", "UTC")),
        "bytes": [bytes([row]) for row in range(20)],
        "year": [2000 + row % 2 for row in range(20)],
    }
    write_parquet(tmp_path / "corpus" / "table.parquet", pa.table(columns), row_group_size=7)
    settings = ["output.partition_by=[label, year]", "output.scores=true", "output.embedding=mean"]
    job_file = write_job_file(tmp_path / "job.yaml", job_settings(tmp_path / "corpus", model, tmp_path / "out", *settings))
    run_serially(load_job(str(job_file), []), quiet=True)
    publish(job_file)
    program = (
        "import datasets, sys\n"
        f"found = datasets.load_dataset({NAME!r})\n"
        "assert list(found) == ['train'], found\n"
        f"found['train'].to_parquet({str(tmp_path / 'loaded.parquet')!r})\n"
    )
    environment = server.environment() | {"HF_HOME": str(tmp_path / "home"), "PATH": "/usr/bin:/bin"}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=120)
    loaded = pq.read_table(tmp_path / "loaded.parquet")
    committed = labels(str(tmp_path / "out"), "arrow").to_table()
    assert loaded.column_names == committed.column_names
    maps = [value and [tuple(one.values()) for one in value] for value in loaded["map"].to_pylist()]
    loaded = loaded.set_column(loaded.column_names.index("map"), "map", pa.array(maps, committed.schema.field("map").type))
    assert rows_of(loaded) == rows_of(committed)
    assert loaded["year"].type == pa.int64()


FAULTS = (
    Fault("POST .*/commit/", status=500),
    Fault("POST .*/commit/", status=412, times=3),
    Fault("POST .*/commit/", skip=1),
    Fault("POST .*/commit/", done=True),
    Fault("POST .*/commit/", done=True, skip=2),
    Fault("POST .*/commit/", status=403, skip=1),  # as a kill does, these end the publication
    Fault("POST .*/info/lfs", status=403, skip=1),
    Fault("GET /api/datasets", status=403, skip=2),
)


@pytest.mark.slow
def test_any_order_of_runs_publications_and_faults(server: HubServer, job_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No commit ever has a document twice, or a row that was not committed, and a publication that comes through has all."""
    monkeypatch.setattr(hub_publication, "BATCH_FILES", 2)
    monkeypatch.setattr("pipeline_ops.publishing.hub_files.FILE_BYTES", 6000)
    draw, folder, came_through = random.Random(0), job_file.parent, 0
    committed = set[str]()
    for _ in range(14):
        for number in draw.sample(range(6), k=draw.randint(0, 2)):
            if draw.random() < 0.2:
                (folder / "corpus" / f"f{number}.jsonl").unlink(missing_ok=True)
            else:
                write_file(folder / "corpus", number, rows=draw.randint(1, 20), reject=draw.random() < 0.3)
        run_serially(load_job(str(job_file), ["output.drop_removed=true"]), quiet=True)
        if draw.random() < 0.2:
            compact(load_job(str(job_file), []), 2**28, quiet=True)
        committed.update(map(repr, rows_of(labels(str(folder / "out"), "arrow").to_table())))
        server.faults = [replace(draw.choice(FAULTS))] if draw.random() < 0.7 else []
        finished = command("publish", job_file, "--hub", NAME, "--quiet")
        server.faults = []
        if finished.code == 0:
            came_through += 1
            check_same_rows(server.files(NAME), folder / "out")
        else:
            assert "403" in finished.error_lines[-1]
    check_each_commit(server)
    for sha in server.repositories[NAME].log:
        assert committed.issuperset(map(repr, rows_of(table_of(server.files(NAME, sha)))))
    assert came_through
    publish(job_file)
    check_same_rows(server.files(NAME), folder / "out")
