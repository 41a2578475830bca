"""What is found out where the classifiers run: the dtype, and of GPUs more."""

from pathlib import Path

import pytest

from pipeline_ops.loading.device import probe_models, resolve_dtype
from pipeline_ops.models.config import JobModel, ModelConfig
from pipeline_ops.models.resolve import resolve_model
from pipeline_ops.schema.errors import UserError
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.storage.config import StorageConfig
from tests.models.all_kinds import make_kind


def test_probe_without_a_gpu_says_the_dtype(model: Path) -> None:
    models = []
    for dtype in ("float32", "bfloat16"):
        config = ModelConfig(path=str(model), dtype=dtype)
        models.append(JobModel("", config, resolve_model(config, StorageConfig()).facts, "", OutputConfig(path="out")))
    probed = probe_models(models, StorageConfig(), 0)
    assert probed == {"dtypes": ["float32", "bfloat16"], "device": None, "batch_tokens": None}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_dtype_that_is_given_is_taken(dtype: str) -> None:
    assert resolve_dtype(dtype, False) == dtype


def test_dtype_auto_on_cpus_is_bfloat16_or_float32() -> None:
    assert resolve_dtype("auto", False) in ("bfloat16", "float32")


def test_kind_that_computes_in_float32_alone_gets_it_or_says_so(tmp_path: Path) -> None:
    make_kind(tmp_path, "fnet")
    config = ModelConfig(path=str(tmp_path))
    models = [JobModel("", config, resolve_model(config, StorageConfig()).facts, "", OutputConfig(path="out"))]
    assert probe_models(models, StorageConfig(), 0)["dtypes"] == ["float32"]
    with pytest.raises(UserError, match=r"model\.dtype: 'bfloat16' for a fnet model.*set it to float32"):
        resolve_model(ModelConfig(path=str(tmp_path), dtype="bfloat16"), StorageConfig())
