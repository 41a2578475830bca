"""The activation that sentence-transformers saves with a reranker."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline_ops.schema.errors import UserError
from tests.models.folders import change_json, facts_of
from tests.models.tiny import make_model

IDENTITY, SIGMOID = "torch.nn.modules.linear.Identity", "torch.nn.modules.activation.Sigmoid"
TANH = "torch.nn.modules.activation.Tanh"


@pytest.fixture(scope="module")
def single_logit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("reranker"), labels=["relevance"], texts=["one text", "another", "a third"])


def save_as(folder: Path, version: int, activation: str | None, model_type: str = "CrossEncoder") -> None:
    """Writes an activation where that version of sentence-transformers does."""
    if version >= 6:
        settings = {"model_type": model_type, "activation_fn": activation, "prompts": {}}
        (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    elif version >= 4:
        change_json(folder / "config.json", sentence_transformers={"activation_fn": activation, "version": "4.1.0"})
    else:
        change_json(folder / "config.json", sbert_ce_default_activation_function=activation)


def activation_of(folder: Path, **settings: Any) -> tuple[str, str]:
    head = facts_of(folder, **settings).head
    return head.activation, head.activation_from


@pytest.mark.parametrize("version", [3, 4, 6])
def test_saved_activation_of_a_single_logit_counts_unless_the_job_file_has_one(
    single_logit: Path, tmp_path: Path, version: int
) -> None:
    folder = shutil.copytree(single_logit, tmp_path / "model")
    assert activation_of(folder) == ("sigmoid", "head")
    save_as(folder, version, IDENTITY)
    assert activation_of(folder) == ("none", "CrossEncoder")
    assert activation_of(folder, activation="sigmoid") == ("sigmoid", "job")
    assert facts_of(folder).head.kind == "value"
    save_as(folder, version, SIGMOID)
    assert activation_of(folder) == ("sigmoid", "CrossEncoder")
    assert activation_of(folder, problem_type="regression") == ("none", "head")
    save_as(folder, version, TANH)
    with pytest.raises(UserError, match=f"the activation {TANH}, which .*; choose one for it: model.activation=none"):
        facts_of(folder)
    assert activation_of(folder, activation="none") == ("none", "job")


def test_newer_settings_come_before_older_ones_and_those_of_embedders_do_not_count(single_logit: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(single_logit, tmp_path / "model")
    save_as(folder, 3, TANH)
    save_as(folder, 4, SIGMOID)
    save_as(folder, 6, IDENTITY)
    assert activation_of(folder) == ("none", "CrossEncoder")
    save_as(folder, 6, IDENTITY, model_type="SentenceTransformer")
    assert activation_of(folder) == ("sigmoid", "CrossEncoder")


def test_default_of_several_labels_leaves_the_pipelines_softmax(copy: Path) -> None:
    save_as(copy, 6, IDENTITY)
    assert activation_of(copy) == ("softmax", "head")
    save_as(copy, 6, SIGMOID)
    assert activation_of(copy) == ("sigmoid", "CrossEncoder")


def test_damaged_settings_are_refused_in_one_line(copy: Path) -> None:
    for content in ("{", "[1]"):
        (copy / "config_sentence_transformers.json").write_text(content)
        with pytest.raises(UserError, match=r"config_sentence_transformers\.json of .* is cut or damaged .*; copy or download"):
            facts_of(copy)
