"""Classifiers that share a trunk: labels are those of each alone, documents are in the output once, plans count right."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import pipeline

from jobs.config import JobConfig, check_config
from jobs.console.plan_table import plan_lines
from jobs.label_corpus import run
from jobs.maintenance.verify import verify
from jobs.run.estimate import Target, plan_on
from jobs.run.plan import plan
from pipeline_ops.classifying import shared_passes
from tests.models.folders import change_json
from tests.models.relatives import make_relative
from tests.models.tiny import make_model
from tests.support.corpora import real_documents, write_jsonl
from tests.support.invariant import check_exactly_once
from tests.support.running import job_settings, keys
from tests.support.serial_chain import run_serially

TEXTS = [text[:600] for text in real_documents(40, seed=4)]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """`quality` and `topic` have everything but the head in common, `style` the lower one of two layers with both."""
    folder = tmp_path_factory.mktemp("models")
    quality = make_model(folder / "quality", "roberta", ("good", "bad"), max_length=64)
    return {
        "quality": quality,
        "topic": make_relative(quality, folder / "topic", ("art", "law", "maths")),
        "style": make_relative(quality, folder / "style", ("plain", "ornate"), lowest=1, seed=2),
    }


def job_of(source: Path, models: dict[str, Path], target: Path, *overrides: str, **of_models: Any) -> JobConfig:
    settings = job_settings(source, "-", target, "output.partition_by=[]", "output.scores=true", *overrides)
    settings.pop("model")
    settings["models"] = [{"dtype": "float32", **of_models, "name": name, "path": str(path)} for name, path in models.items()]
    return check_config(JobConfig, settings)


def check_labels(labeled: pa.Table, models: dict[str, Path]) -> None:
    """Compares with the pipeline's answers, one document at a time."""
    torch.set_num_threads(1)
    for name, path in models.items():
        classify = pipeline("text-classification", model=str(path), device="cpu", dtype=torch.float32)
        expected = classify(TEXTS, truncation=True, batch_size=1)
        assert labeled[f"{name}_label"].to_pylist() == [answer["label"] for answer in expected]
        scores = [answer["score"] for answer in expected]
        np.testing.assert_allclose(labeled[f"{name}_score"], scores, rtol=0, atol=1e-5)


def check_run(how: Callable[..., Any], models: dict[str, Path], folder: Path, *overrides: str) -> Any:
    source = write_jsonl(folder / "in" / "a.jsonl", [{"text": text} for text in TEXTS])
    job = job_of(source.parent, models, folder / "out", *overrides)
    result = how(job, quiet=True)
    labeled, rejects = check_exactly_once(folder / "out", keys(source, len(TEXTS)))
    assert rejects == []
    check_labels(labeled.sort_by("source_row"), models)
    assert verify(job, deep=True)["ok"]
    return result


@pytest.mark.parametrize("names", [("quality", "topic"), ("style", "quality", "topic")])
def test_labels_of_models_with_a_common_trunk_are_the_pipelines(
    names: tuple[str, ...], models: dict[str, Path], tmp_path: Path
) -> None:
    check_run(run_serially, {name: models[name] for name in names}, tmp_path)


def test_run_says_once_that_a_model_does_not_share_its_layers(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Such as one whose code does not come through the comparison with itself alone."""

    def fail(*arguments: Any) -> None:
        raise RuntimeError("of a test")

    monkeypatch.setattr(shared_passes, "SharedTrunk", fail)
    two = {name: models[name] for name in ("quality", "topic")}
    result = check_run(lambda job, quiet: run_serially(job), two, tmp_path, "compute.unit_bytes=3000")
    assert result.units > 1
    said = "topic has a pass of its own, though it has layers in common with quality: the comparison failed"
    assert result.without_sharing == [f"{said} (of a test)"]
    assert " ".join(capsys.readouterr().err.split()).count(said) == 1


@pytest.mark.slow
def test_models_share_a_trunk_on_ray(ray_address: str, models: dict[str, Path], tmp_path: Path) -> None:
    check_run(run, models, tmp_path)


def test_plan_says_what_models_share_and_counts_it_once(models: dict[str, Path], tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": "a text"}])
    summary = plan(job_of(source, models, tmp_path / "out"))
    said = "quality and topic share 2 of 2 layers, quality and style share 1 of 2 layers: about 1.5 passes in place of 3"
    assert said in list(plan_lines(summary))
    assert summary["passes"] == 1.5
    assert {name: (shared["model"], shared["layers"]) for name, shared in summary["shared_layers"].items()} == {
        "topic": ("quality", 2),
        "style": ("quality", 1),
    }


def test_cluster_is_estimated_by_what_is_computed(models: dict[str, Path], tmp_path: Path) -> None:
    """A token counts once for each model: three models with 1.5 passes get through twice as many as one."""
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": "a text"}])
    rates = []
    for chosen in ({"quality": models["quality"]}, models):
        job = job_of(source, chosen, tmp_path / "out", dtype="bfloat16")
        rates.append(plan_on(job, Target(1, "H100", None, None))["estimate"]["tokens_per_second"])
    assert rates[1] / rates[0] == pytest.approx(2)


def change_layers(folder: Path) -> None:
    make_relative(folder, folder, ("good", "bad"), lowest=0)


@pytest.mark.parametrize(
    ("change", "of_models"),
    [
        (lambda folder: change_json(folder / "config.json", hidden_act="relu"), {}),
        (change_layers, {}),
        (lambda folder: None, {"compile": True}),
    ],
    ids=["another activation", "other layers", "compiled"],
)
def test_plan_counts_models_that_share_nothing_as_a_pass_each(
    change: Callable[[Path], None], of_models: dict[str, Any], models: dict[str, Path], tmp_path: Path
) -> None:
    changed = Path(shutil.copytree(models["quality"], tmp_path / "changed"))
    change(changed)
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": "a text"}])
    summary = plan(job_of(source, {"quality": models["quality"], "other": changed}, tmp_path / "out", **of_models))
    assert "2 models, 2 passes: as far as their files show, they have no layers in common" in list(plan_lines(summary))
    assert (summary["passes"], summary["shared_layers"]) == (2, {})
