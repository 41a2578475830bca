"""Whether a model's weights are those of a sequence classifier: by its files, in milliseconds and without torch.

load.py decides, by the modules that the weights leave untrained. This says the same earlier, and says nothing where it cannot
know: for weights that are not safetensors, or belong to code of the model's own.
"""

import os
from collections.abc import Collection
from typing import Any

from pipeline_ops.model_files.tensor_names import HEAD_MODULES, tensor_fault, wrapper_remarks
from pipeline_ops.model_files.weight_files import INDEX, WEIGHTS, DamagedFile, Tensor, read_tensors
from pipeline_ops.models.config import ModelConfig
from pipeline_ops.models.fetch import is_hub_id
from pipeline_ops.schema.errors import UserError
from pipeline_ops.storage.config import StorageConfig
from pipeline_ops.storage.store import Store

# classes of transformers whose heads have the names of a sequence classifier's, some of them: what they do in its place
OTHER_TASKS = {
    "ForTokenClassification": "labels tokens, not texts",
    "ForQuestionAnswering": "finds answers in a text",
    "ForMultipleChoice": "compares several texts",
    "ForNextSentencePrediction": "says whether one text follows another",
}


def check_head(config: ModelConfig, storage: StorageConfig, model: Any) -> list[str]:
    """Checks the weights against the configuration, as far as files that are here say what they hold.

    Args:
        config: with the commit as revision, for a model on the hub.
        model: its configuration, a transformers PreTrainedConfig.

    Returns:
        Sentences about weights that are read otherwise than they were saved.

    Raises:
        UserError: no tensor of a classification head, one of another size or of another task, numbers that are no weights, or a
            damaged file.
    """
    tensors = _tensors(config, storage)
    own_code = bool(getattr(model, "auto_map", None))
    fault = None if own_code else _other_task(model.architectures or [])
    if fault is None and tensors is not None and not own_code:
        fault = tensor_fault(tensors, model.num_labels, quantized=bool(getattr(model, "quantization_config", None)))
    if fault is not None:
        raise UserError(f"model.path: {config.path!r} {fault}")
    if not own_code and not config.allow_new_weights:
        _check_head_is_there(config, model.architectures or [], tensors)
    return wrapper_remarks(tensors or {})


def _tensors(config: ModelConfig, storage: StorageConfig) -> dict[str, Tensor] | None:
    """Of a folder's safetensors, or of those of a hub model that are in the local cache; None: there are none."""
    store = Store(config.path, storage)
    if is_hub_id(config.path):
        from huggingface_hub import try_to_load_from_cache

        cached = [try_to_load_from_cache(config.path, name, revision=config.revision) for name in (WEIGHTS, INDEX)]
        files = [path for path in cached if isinstance(path, str)]
        if not files:
            return None
        store = Store(os.path.dirname(files[0]))
    try:
        return read_tensors(store)
    except DamagedFile as error:
        if is_hub_id(config.path):  # shards that loading will fetch
            return None
        raise UserError(f"model.path: {config.path!r}: {error}") from error


def _other_task(architectures: list[str]) -> str | None:
    for suffix, task in OTHER_TASKS.items():
        if architectures and all(name.endswith(suffix) for name in architectures):
            return f"is a {architectures[0]}, which {task}; give a sequence classifier, or fine-tune one (label-corpus train)"
    return None


def _check_head_is_there(config: ModelConfig, architectures: list[str], tensors: Collection[str] | None) -> None:
    if any(name.endswith("ForSequenceClassification") for name in architectures):
        return
    names = _hub_tensor_names(config) if tensors is None and is_hub_id(config.path) else tensors
    if names is None or any(HEAD_MODULES.intersection(name.split(".")) for name in names):
        return
    kind = f" is a {architectures[0]}, and" if architectures else ""
    raise UserError(
        f"model.path: {config.path!r}{kind} has no trained classification head: its labels would be random; fine-tune it first"
        f" (label-corpus train), or set model.allow_new_weights"
    )


def _hub_tensor_names(config: ModelConfig) -> list[str] | None:
    """The tensors of a model on the hub, by requests for the headers alone; None if not known."""
    from huggingface_hub import get_safetensors_metadata

    try:
        return list(get_safetensors_metadata(config.path, revision=config.revision).weight_map)
    except Exception:  # none there, or not reachable; the HTTP library that raises depends on the huggingface_hub version
        return None
