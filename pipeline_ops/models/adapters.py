"""Adapters of PEFT, such as LoRA: which model they adapt, their head and identity, from files alone. No torch, no peft."""

import hashlib
import json
import os
import re
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.util import find_spec
from typing import Any

from pipeline_ops.model_files.tensor_names import HEAD_MODULES
from pipeline_ops.model_files.weight_files import DamagedFile, read_header
from pipeline_ops.models.config import AdaptedModel, ModelConfig, ModelFacts
from pipeline_ops.models.fetch import downloaded, hub_commit, is_hub_id, local_copy, model_file, model_identity
from pipeline_ops.models.head_weights import check_head
from pipeline_ops.models.heads import GENERIC_LABEL
from pipeline_ops.schema.errors import UserError, one_line
from pipeline_ops.storage.config import StorageConfig
from pipeline_ops.storage.paths import is_local
from pipeline_ops.storage.store import Store

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
MODEL_WEIGHTS = {"model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json"}
TOKENIZER = "tokenizer_config.json"  # by which peft decides, too
# peft's methods whose merged weights give the logits of the adapter; tests/integration/labels/test_adapters.py compares them.
# Prompts and prefixes are inputs: no weights that could be merged.
MERGED_TYPES = (
    *("LORA", "ADALORA", "BOFT", "DELORA", "FOURIERFT", "HIRA", "HRA", "IA3"),
    *("LN_TUNING", "LOHA", "LOKR", "OFT", "VERA"),
)
TASKS = (None, "SEQ_CLS")
HEAD_LAYERS = ("classifier", "score", "out_proj", "logits_proj", "linear_out", "summary")  # a head's last, in transformers
COMMIT = re.compile(r"[0-9a-f]{40}")
NEEDS_PEFT = "is a PEFT adapter, which needs a package that is not installed: pip install 'label-corpus[peft]'"


@dataclass(frozen=True)
class Adapter:
    """An adapter and the model that it adapts."""

    folder: str  # local; of one on the hub or on object storage a copy
    settings: dict[str, Any]  # adapter_config.json
    base: ModelConfig  # of a model on the hub with its commit as revision

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the tensors, by their names in the model."""
        store = Store(self.folder)
        try:
            tensors = read_header(store, store.stat(WEIGHTS))
        except DamagedFile as error:
            raise UserError(f"model.path: {self.folder!r}: {error}") from error
        return {name.removeprefix("base_model.model."): tensor.shape for name, tensor in tensors.items()}

    @property
    def num_labels(self) -> int | None:
        """Of the head that it has in place of the model's; None: it has none."""
        for name, shape in self.shapes.items():
            *modules, kind = name.split(".")
            if kind == "weight" and modules[-1] in HEAD_LAYERS and HEAD_MODULES.intersection(modules):
                return shape[0]
        return None

    @property
    def has_tokenizer(self) -> bool:
        return os.path.isfile(os.path.join(self.folder, TOKENIZER))

    @property
    def identity(self) -> str:
        """SHA-256 of weights and settings, such as lora_alpha; without those that say where the model is."""
        with open(os.path.join(self.folder, WEIGHTS), "rb") as weights:
            digest = hashlib.file_digest(weights, "sha256")
        unset = ("base_model_name_or_path", "revision")
        settings = {key: value for key, value in self.settings.items() if value is not None and key not in unset}
        digest.update(json.dumps(settings, sort_keys=True).encode())
        return f"sha256:{digest.hexdigest()}"

    def adapted_model(self, storage: StorageConfig) -> AdaptedModel:
        return AdaptedModel(self.base.path, self.base.revision, model_identity(self.base, storage))


def find_adapter(config: ModelConfig, storage: StorageConfig) -> Adapter | None:
    """The adapter that `model.path` is; None: it is a whole model, or nothing that is known.

    Args:
        config: with the commit as revision, for a path on the hub.

    Raises:
        UserError: the adapter is not for classification, of a method that cannot be merged, or has no weights that may be
            loaded; its model is missing, quantized or an adapter, too; or model.base is given for a whole model.
    """
    folder = adapter_folder(config, storage)
    if folder is None:
        if config.base is not None:
            raise UserError(
                f"model.base: {config.base!r} is for adapters, and {config.path!r} is none (no {CONFIG}); leave it out"
            )
        return None
    try:
        with open(os.path.join(folder, CONFIG), encoding="utf-8") as file:
            settings = json.load(file)
        method, task = settings["peft_type"], settings.get("task_type")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"model.path: {CONFIG} in {config.path!r} is not one that peft writes: {one_line(error)}") from error
    if task not in TASKS:
        raise UserError(f"model.path: {config.path!r} is an adapter for {task}; give one for classification (SEQ_CLS)")
    if method not in MERGED_TYPES or settings.get("alora_invocation_tokens") or settings.get("layer_replication"):
        raise UserError(
            f"model.path: {config.path!r} is a {method} adapter with settings that cannot be merged into its model; of peft's"
            f" methods these can: {', '.join(MERGED_TYPES)}"
        )
    if not os.path.isfile(os.path.join(folder, WEIGHTS)):
        raise UserError(
            f"model.path: the adapter {config.path!r} has no {WEIGHTS}; save it with peft's save_pretrained, which writes that"
            f" file (an adapter_model.bin can run code, and is not read)"
        )
    return Adapter(folder, settings, _base_of(config, settings, folder, storage))


def adapter_folder(config: ModelConfig, storage: StorageConfig) -> str | None:
    """A local folder with the adapter's files, without those of subfolders; None: it is no adapter."""
    if is_hub_id(config.path):
        if model_file(config.path, CONFIG, config.revision) is None:
            return None
        from huggingface_hub import snapshot_download

        wanted = ["*.json", "*.txt", "*.model", WEIGHTS]
        return snapshot_download(config.path, revision=config.revision, allow_patterns=wanted, ignore_patterns=["*/*"])
    if is_local(config.path):
        folder = os.path.abspath(os.path.expanduser(config.path))
        if not os.path.isfile(os.path.join(folder, CONFIG)):
            return None
        _check_alone(config, set(os.listdir(folder)))
        return folder
    store = Store(config.path, storage)
    files = {name: file for file in store.list_all() if "/" not in (name := store.relative(file.path))}
    if CONFIG not in files:
        return None
    _check_alone(config, {*files})
    return downloaded(config.path, storage, list(files.values()))


def _check_alone(config: ModelConfig, names: set[str]) -> None:
    """Raises UserError for a folder with a model's own weights beside the adapter's, which may be merged into these already."""
    if names & MODEL_WEIGHTS:
        raise UserError(
            f"model.path: {config.path!r} holds a whole model and an adapter ({CONFIG}); move one of the two away: the adapter"
            f" if it is merged into the model, else the model, to where model.base names it"
        )


def _base_of(config: ModelConfig, settings: dict[str, Any], folder: str, storage: StorageConfig) -> ModelConfig:
    """The model that an adapter adapts, by model.base or else as peft has written it, and checked."""
    path = config.base or settings.get("base_model_name_or_path")
    remedy = "set model.base to its folder or hub id"
    if not path:
        raise UserError(f"model.base: the adapter {config.path!r} does not name its model (base_model_name_or_path); {remedy}")
    if is_local(path):
        # as peft takes it, from the working directory, or else from the adapter's folder
        named = os.path.expanduser(path)
        path = next((os.path.abspath(at) for at in (named, os.path.join(folder, named)) if os.path.isdir(at)), path)
    revision = config.base_revision or (settings.get("revision") if config.base is None else None)
    base = adapted_config(config, path, revision)
    try:
        if is_hub_id(path):
            if path.startswith((".", "/", "~")):
                raise UserError("no such folder")
            if not COMMIT.fullmatch(revision or ""):
                base = base.model_copy(update={"revision": hub_commit(base)})
        files = local_copy(base, storage, weights=False)
        if model_file(files, CONFIG, base.revision) is not None:
            raise UserError("it is an adapter, too; merge it and save the whole model")
    except UserError as error:
        reason = str(error).removeprefix("model.path: ")
        if config.base:
            raise type(error)(
                f"model.base: the model {path!r} of the adapter {config.path!r} cannot be used: {reason}"
            ) from error
        raise type(error)(
            f"model.base: {config.path!r} is an adapter of the model {path!r}, which cannot be used: {reason}; {remedy}"
        ) from error
    return base


def adapted_config(config: ModelConfig, path: str, revision: str | None) -> ModelConfig:
    """The configuration of an adapter's model."""
    return config.model_copy(update={"path": path, "revision": revision, "base": None, "base_revision": None})


def fit_head(adapter: Adapter, config: ModelConfig, storage: StorageConfig, model: Any) -> list[str]:
    """Check what can be merged, and give the configuration of the adapted model as many labels as the adapter's head has.

    Args:
        config: of the adapter.
        model: the adapted model's transformers config.

    Returns:
        Sentences as check_head's, where the head is the adapted model's.

    Raises:
        UserError: peft is not installed, the model is quantized, or neither of the two has a trained head.
    """
    if find_spec("peft") is None:
        raise UserError(f"model.path: {config.path!r} {NEEDS_PEFT}")
    quantization = getattr(model, "quantization_config", None)
    if quantization:
        method = quantization.get("quant_method", "") if isinstance(quantization, dict) else ""
        raise UserError(
            f"model.base: the model {adapter.base.path!r} of the adapter {config.path!r} is quantized"
            f" by {method or 'quantization_config'}, and merging would round its weights again; set model.base to the model"
            f" that is not quantized"
        )
    if adapter.num_labels is not None:
        model.num_labels = adapter.num_labels  # of another number, the names go
        return [] if config.id2label else _names_remark(model)
    try:
        return check_head(adapter.base, storage, model)
    except UserError as error:
        raise UserError(
            f"model.path: neither the adapter {config.path!r} (modules_to_save) nor its model {adapter.base.path!r} has a"
            f" trained classification head: labels would be random; train it with task_type SEQ_CLS"
        ) from error


def _names_remark(model: Any) -> list[str]:
    """A sentence about a new head on a model of as many labels, whose names may be of another task; an adapter has none."""
    names = [str(name) for name in model.id2label.values()]
    if all(GENERIC_LABEL.fullmatch(name) for name in names):
        return []
    shown = ", ".join(map(repr, names[:4])) + (", ..." if len(names) > 4 else "")
    return [
        f"the adapter has a head of its own, without names for its labels: they get those of the model that it adapts"
        f" ({shown}), as in transformers' pipeline; model.id2label gives others"
    ]


def pinned(config: ModelConfig, facts: ModelFacts) -> ModelConfig:
    """The configuration as workers get it: with the commits, and with where an adapter's model is."""
    adapted = {} if facts.adapted is None else asdict(facts.adapted)
    return config.model_copy(
        update={"revision": facts.revision, **{key: adapted[key] for key in ("base", "base_revision") if key in adapted}}
    )


def adapted_settings(adapted: AdaptedModel | None) -> dict[str, Any]:
    """The settings that results depend on, by config key, as they are recorded; none of a whole model."""
    return {} if adapted is None else {f"model.{key}": value for key, value in asdict(adapted).items()}
