"""`publish --hub`, with the real huggingface_hub against a stand-in of the hub: what is in the repository at each commit."""

import io
import subprocess
import sys
from collections import Counter
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
from tests.servers.hub_server import READ_TOKEN, TOKEN, HubServer
from tests.support.corpora import write_jsonl, write_parquet
from tests.support.hub_publications import (
    FILES,
    HAND_WRITTEN,
    NAME,
    ROWS,
    card_of,
    check_each_commit,
    check_same_rows,
    label_files,
    publish,
    rows_of,
    table_of,
    text,
    write_file,
)
from tests.support.running import (
    command,
    job_settings,
    write_job_file,
)
from tests.support.serial_chain import run_serially


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
