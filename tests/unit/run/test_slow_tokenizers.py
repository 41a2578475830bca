"""What `plan` says about a model whose tokenizer is slow: one that transformers has in Python alone."""

import re
from pathlib import Path

import pytest

from cluster.resources import GPU_FLOPS, TOKENIZERS_AHEAD, TOKENS_PER_CORE, Machines
from jobs.run.estimate import Target, plan_on
from jobs.run.plan import plan
from tests.models.folders import change_json
from tests.models.python_tokenizers import make_classifier
from tests.support.corpora import write_jsonl
from tests.support.running import make_job

MAX_LENGTH, LAYERS, LAYER_FLOPS = 64, 5000, 16384  # as deep as a GPU needs tokenizers, not all cores that there are


@pytest.mark.slow
def test_slow_tokenizer_gets_the_cores_that_keep_the_models_device_busy(tmp_path: Path) -> None:
    model = make_classifier(tmp_path / "model", "BERTweet", ("a", "b"), MAX_LENGTH)
    change_json(model / "config.json", num_hidden_layers=LAYERS)
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": "a text about law"}] * 30)
    job = make_job(source, model, tmp_path / "out", "compute.tokenizers=auto")

    planned = plan(job, Machines(cpus=2048, cores=2048, gpus=1))
    (said,) = [line for line in planned["remarks"] if "has no fast version" in line]
    found = re.search(r"about ([\d,.]+) documents of 1,000 characters per second", said)
    assert found is not None
    tokens_per_core = float(found[1].replace(",", "")) * MAX_LENGTH  # such documents are truncated
    assert tokens_per_core < TOKENS_PER_CORE / 4
    needed = TOKENIZERS_AHEAD * GPU_FLOPS / (LAYERS * LAYER_FLOPS) / tokens_per_core
    first, most = map(int, planned["settings"]["compute.tokenizers"]["value"].split(" to "))
    assert first == planned["units_to_run"] == 1
    assert most == pytest.approx(needed, rel=0.1, abs=1)

    estimate = plan_on(job, Target(8, "H100", 1e6, None))["estimate"]
    assert estimate["sources"]["tokenizers"].startswith("measured")
    assert estimate["tokenizers"] > 4 * 8e6 / TOKENS_PER_CORE  # measured again, so not to be compared with the first time
