"""The job's answers are those of transformers' own pipeline, however the work is cut and spread."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import AutoTokenizer, pipeline

from jobs.label_corpus import run
from tests.models.tiny import ARCHITECTURES, Architecture
from tests.support.corpora import real_documents, write_jsonl, write_parquet
from tests.support.invariant import check_exactly_once
from tests.support.running import keys, make_job
from tests.support.serial_chain import run_serially

NUM_DOCUMENTS = 1000
TOLERANCE = 1e-5
ON_RAY = "roberta"  # its pad id is not 0


@pytest.fixture(scope="module")
def documents() -> list[str]:
    return real_documents(NUM_DOCUMENTS)


@pytest.fixture(scope="module")
def labeled_by_job(
    ray_address: str,
    model_of: Callable[[Architecture], Path],
    documents: list[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[Architecture], pa.Table]:
    """The rows that the job gives, in input order, with its default batches and units; of ON_RAY by Ray's processes."""

    @cache
    def label(architecture: Architecture) -> pa.Table:
        folder = tmp_path_factory.mktemp(f"parity-{architecture}")
        source = write_jsonl(folder / "corpus.jsonl", [{"text": text} for text in documents])
        label_job = run if architecture == ON_RAY else run_serially
        label_job(make_job(source, model_of(architecture), folder / "out", "output.logits=true"), quiet=True)
        labeled, rejects = check_exactly_once(folder / "out", keys(source, NUM_DOCUMENTS))
        assert rejects == []
        return labeled.sort_by("source_row")

    return label


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_run_on_real_documents_agrees_with_the_pipeline(
    architecture: Architecture,
    documents: list[str],
    model_of: Callable[[Architecture], Path],
    labeled_by_job: Callable[[Architecture], pa.Table],
):
    labeled = labeled_by_job(architecture)
    folder = str(model_of(architecture))
    torch.set_num_threads(1)  # threads only get in each other's way in a model this small
    classify = pipeline("text-classification", model=folder, device="cpu", dtype=torch.float32)
    expected = classify(documents, truncation=True, batch_size=1)
    assert labeled["text"].to_pylist() == documents
    assert labeled["label"].to_pylist() == [answer["label"] for answer in expected]
    np.testing.assert_allclose(labeled["score"].to_numpy(), [answer["score"] for answer in expected], rtol=0, atol=TOLERANCE)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    cut = tokenizer(documents, truncation=True)["input_ids"]
    whole = tokenizer([text[:3000] for text in documents], verbose=False)["input_ids"]
    assert labeled["num_tokens"].to_pylist() == [len(ids) for ids in cut]
    assert labeled["truncated"].to_pylist() == [len(ids) > 128 for ids in whole]
    assert min(labeled["label"].value_counts().field("counts").to_pylist()) > NUM_DOCUMENTS // 10, "both labels occur"
    assert 0 < sum(labeled["truncated"].to_pylist()) < NUM_DOCUMENTS // 2, "long and short ones occur"


@pytest.mark.slow
@pytest.mark.parametrize(
    "compute",
    [
        ("compute.batch_tokens=1", "compute.unit_bytes=50000", "compute.tokenizers=2"),  # each document alone
        ("compute.batch_tokens=16384", "compute.classifiers=2"),
    ],
    ids=["batches-of-one", "large-batches"],
)
def test_run_with_other_batches_units_and_actors_gives_the_same_logits(
    compute: tuple[str, ...],
    documents: list[str],
    model_of: Callable[[Architecture], Path],
    labeled_by_job: Callable[[Architecture], pa.Table],
    tmp_path: Path,
):
    table = pa.table({"text": documents})
    source = write_parquet(tmp_path / "corpus.parquet", table, row_group_size=300)
    job = make_job(source, model_of(ON_RAY), tmp_path / "out", "output.logits=true", *compute)
    summary = run(job, quiet=True)
    labeled = check_exactly_once(tmp_path / "out", keys(source, NUM_DOCUMENTS))[0].sort_by("source_row")
    reference = labeled_by_job(ON_RAY)
    assert labeled["label"].equals(reference["label"])
    np.testing.assert_allclose(
        np.array(labeled["logits"].to_pylist()), np.array(reference["logits"].to_pylist()), rtol=0, atol=TOLERANCE
    )
    assert (summary.units > 3) == ("compute.unit_bytes=50000" in compute)
