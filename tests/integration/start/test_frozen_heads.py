"""Two heads that `train` gave on one frozen encoder: a job with both labels as transformers' pipeline does with each."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from transformers import pipeline

from jobs.config import JobConfig, check_config
from tests.models.tiny import make_model
from tests.support.corpora import real_documents, write_jsonl
from tests.support.invariant import check_exactly_once
from tests.support.running import command, job_settings, keys, write_job_file
from tests.support.serial_chain import run_serially

TEXTS = [text[:200] for text in real_documents(40, seed=5) if text.strip()][:30]


@pytest.mark.slow
def test_two_heads_share_the_encoder_and_label_as_the_pipeline(tmp_path: Path) -> None:
    make_model(tmp_path / "start", max_length=64)
    rows = [{"text": text, "long": str(len(text) > 100), "vowel": str(text[0] in "aeiouAEIOU")} for text in TEXTS]
    source = write_jsonl(tmp_path / "in.jsonl", rows)
    for column in ("long", "vowel"):
        file = write_job_file(
            tmp_path / f"{column}.yaml",
            {
                "input": {"path": str(source), "label_column": column},
                "model": str(tmp_path / "start"),
                "training": {"freeze": "encoder"},
                "output": str(tmp_path / column),
                "storage": {"cache_folder": str(tmp_path / "cache")},
            },
        )
        trained = command("train", file)
        assert trained.code == 0, trained.stderr
        assert f" of which {trained.result['trained_parameters']:,} are trained" in trained.stderr
        assert "every epoch" not in trained.stderr
    first, second = (load_file(tmp_path / column / "model.safetensors") for column in ("long", "vowel"))
    different = {name for name in first if first[name].tobytes() != second[name].tobytes()}
    assert {name.split(".")[0] if name.startswith("classifier") else name.split(".")[1] for name in different} == {
        "pooler",
        "classifier",
    }
    settings = job_settings(source, "-", tmp_path / "out", "output.partition_by=[long_label]")
    del settings["model"]
    settings["models"] = [{"name": column, "path": str(tmp_path / column), "dtype": "float32"} for column in ("long", "vowel")]
    run_serially(check_config(JobConfig, settings), quiet=True)
    table, rejects = check_exactly_once(tmp_path / "out", keys(source, len(TEXTS)))
    assert rejects == []
    table = table.sort_by("source_row")
    torch.set_num_threads(1)
    for column in ("long", "vowel"):
        classify = pipeline("text-classification", model=str(tmp_path / column), device="cpu", dtype=torch.float32)
        expected = classify(TEXTS, truncation=True, batch_size=1)
        assert table[f"{column}_label"].to_pylist() == [answer["label"] for answer in expected]
        np.testing.assert_allclose(table[f"{column}_score"], [answer["score"] for answer in expected], rtol=0, atol=1e-5)
