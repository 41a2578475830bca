"""The model folder: where it is, what it is exactly, and loading it. Torch is imported only by what loads weights."""

import hashlib
import json
import os
import shutil
import sys
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, NamedTuple

from pydantic import Field

from pipeline_ops.models.flops import token_flops_of
from pipeline_ops.models.heads import Head, HeadConfig, resolve_head
from pipeline_ops.schema.units import OutputConfig, UserError
from pipeline_ops.tokenizing.sequences import LongDocumentsConfig, Windows, layout_of, resolve_windows
from pipeline_ops.storage.files import StorageConfig, is_local, list_all, read_files

WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".h5", ".msgpack", ".onnx", ".gguf", ".ot")
# learned positions of these begin behind the padding id: two rows of the position table are never used
OFFSET_POSITIONS = {
    *("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "longformer"),
    *("mpnet", "roberta-prelayernorm", "data2vec-text", "ibert", "xmod"),
}
# sequence classifiers that read more than text: where words stand on a page, pictures, tables
MORE_THAN_TEXT = {"layoutlm", "layoutlmv2", "layoutlmv3", "lilt", "markuplm", "modernvbert", "perceiver", "tapas", "ultravbert"}
NO_TOKEN = -1
UNLIMITED = 10**6  # transformers writes 10**30 where a tokenizer has no limit


class ModelConfig(HeadConfig, LongDocumentsConfig):
    """Which sequence classifier labels the documents, and how its answers are read."""

    path: str = Field(description="hub id, local folder, or folder on object storage")
    revision: str | None = Field(default=None, description="hub revision; resolved to its commit and recorded")
    max_length: int | None = Field(
        default=None, ge=1, description="tokens per document at the most; default: the model's limit"
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(default="auto", description="of weights and arithmetic")
    allow_new_weights: bool = Field(default=False, description="label with a head that has not been trained")
    allow_pickled_weights: bool = Field(default=False, description="load weights that are not safetensors: they can run code")
    compile: bool = Field(
        default=False, description="torch.compile: minutes of start for faster passes; may change the last bits of scores"
    )
    trust_remote_code: bool = Field(default=False, description="run Python code that comes with the model")


@dataclass(frozen=True)
class ModelFacts:
    """What results depend on, as resolved; recorded with the output."""

    path: str
    revision: str | None  # commit on the hub
    weights: str  # identity of the weight files
    tokenizer: str  # hash of the tokenizer and its settings
    max_length: int
    head: Head
    pad_id: int
    pad_type_id: int
    pad_left: bool
    has_type_ids: bool
    pairs: bool = False  # documents are pairs of texts
    windows: Windows | None = None  # None: long documents are truncated

    def to_dict(self) -> dict[str, Any]:
        """Flat, for records."""
        fields = asdict(self)
        return {**fields.pop("head"), **(fields.pop("windows") or {}), **fields}


@dataclass(frozen=True)
class JobModel:
    """A model of a job, as the stages are told of it."""

    name: str  # begins its columns' names; empty where it is the only one
    config: ModelConfig
    facts: ModelFacts
    tokenizer: str  # JSON of its backend, which cuts at max_length
    output: OutputConfig  # with its own columns' names
    token_flops: float | None = None  # about
    dtype: str = ""  # what config.dtype means where the classifiers run

    @property
    def reads(self) -> tuple[Any, ...]:
        """Models for which this is equal read the same tokens."""
        facts = self.facts
        windows = None if facts.windows is None else (facts.windows.stride, facts.windows.max_windows)
        padding = (facts.pad_id, facts.pad_type_id, facts.pad_left)
        return (facts.tokenizer, facts.max_length, *padding, facts.has_type_ids, facts.pairs, windows)


def readings_of(models: Sequence[JobModel]) -> list[int]:
    """For each model the number of what it reads: the same for models that read the same tokens."""
    numbers: dict[tuple[Any, ...], int] = {}
    return [numbers.setdefault(model.reads, len(numbers)) for model in models]


def with_dtypes(models: Sequence[JobModel], dtypes: Sequence[str]) -> tuple[JobModel, ...]:
    """The models with what their dtypes have turned out to be."""
    return tuple(replace(model, dtype=dtype) for model, dtype in zip(models, dtypes, strict=True))


def first_readers(models: Sequence[JobModel]) -> list[JobModel]:
    """For each number of readings_of the first model that has it."""
    numbers = readings_of(models)
    return [models[numbers.index(number)] for number in range(max(numbers) + 1)]


def is_hub_id(path: str) -> bool:
    return is_local(path) and not os.path.isdir(os.path.expanduser(path))


def local_copy(config: ModelConfig, storage: StorageConfig, *, weights: bool) -> str:
    """A path that from_pretrained takes: hub ids and local folders as they are, object storage fetched once per node.

    A fetched folder is built beside its place and renamed, so that a second process on the node sees all of it or nothing.

    Raises:
        UserError: a folder that holds no config.json.
    """
    if is_local(config.path):
        if is_hub_id(config.path):
            return config.path
        folder = os.path.abspath(os.path.expanduser(config.path))
        if not os.path.exists(os.path.join(folder, "config.json")):
            raise UserError(f"model.path: {config.path!r} holds no config.json; give a folder that save_pretrained wrote")
        return folder
    files = list_all(config.path, storage)
    if not any(file.path.endswith("/config.json") for file in files):
        raise UserError(f"model.path: {config.path!r} holds no config.json; give a folder that save_pretrained wrote")
    if not weights:
        files = [file for file in files if not file.path.endswith(WEIGHT_SUFFIXES)]
    listing = json.dumps([(file.path, file.identity, file.size) for file in files])
    target = os.path.join(os.path.expanduser(storage.cache_folder), "models", hashlib.sha256(listing.encode()).hexdigest()[:32])
    if not os.path.isdir(target):
        beside = f"{target}.{uuid.uuid4().hex}"
        try:
            for file in files:
                path = os.path.join(beside, file.path.removeprefix(config.path.rstrip("/")).lstrip("/"))
                os.makedirs(os.path.dirname(path), exist_ok=True)
                (content,) = read_files([file], storage)
                with open(path, "xb") as copy:
                    copy.write(content)
            os.rename(beside, target)
        except OSError:
            if not os.path.isdir(target):  # else another process was first; its copy is the same
                raise
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    return target


def without_torch() -> None:
    """Has transformers do without torch in this process, which configurations and tokenizers do not need: 2 s of CPU less.

    Nothing changes where torch is imported already. No model can be loaded in this process afterwards.
    """
    if "torch" in sys.modules:
        return
    sys.modules["torch"] = None  # pyright: ignore[reportArgumentType] so the import system spells "not to be found"
    try:
        from transformers.utils.import_utils import is_torch_available

        is_torch_available()  # asked while transformers was imported; it remembers the answer
    finally:
        del sys.modules["torch"]


class ResolvedModel(NamedTuple):
    """What is known of a model without its weights."""

    facts: ModelFacts
    tokenizer: Any  # transformers'
    token_flops: float | None  # about; see estimating.token_flops_of


def resolve_model(config: ModelConfig, storage: StorageConfig, *, pairs: bool = False) -> ResolvedModel:
    """What the model is, and its tokenizer, without loading weights.

    Args:
        pairs: documents are pairs of texts.

    Raises:
        UserError: no such model, no fast tokenizer, no padding token, no usable max_length, or a setting that its head cannot
            have.
    """
    from transformers import AutoConfig, AutoTokenizer

    model: Any
    tokenizer: Any
    if is_hub_id(config.path):
        config = config.model_copy(update={"revision": hub_commit(config)})
    folder = local_copy(config, storage, weights=False)
    try:
        model, tokenizer = (
            auto.from_pretrained(folder, revision=config.revision, trust_remote_code=config.trust_remote_code)
            for auto in (AutoConfig, AutoTokenizer)
        )
    except (OSError, ValueError) as error:
        what = str(error).strip().split("\n")[0]
        raise UserError(
            f"model.path: {config.path!r} is neither a folder with a model and its tokenizer nor a model on the hub that"
            f" can be reached from here: {what}"
        ) from error
    _check_kind(config, model)
    _check_weights(config, storage)
    if not getattr(tokenizer, "is_fast", False):
        raise UserError(f"model.path: {config.path!r} has no fast tokenizer (tokenizer.json); convert it with transformers")
    if tokenizer.vocab_size <= len(tokenizer.all_special_ids):  # transformers makes one up when the files are missing
        raise UserError(f"model.path: {config.path!r} has no tokenizer vocabulary; save the tokenizer into the same folder")
    if tokenizer.pad_token_id is None:
        raise UserError(f"model.path: the tokenizer of {config.path!r} has no padding token; save it with one")
    settings = [tokenizer.truncation_side, tokenizer.padding_side, tokenizer.pad_token_id]
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    special = tokenizer.num_special_tokens_to_add(pair=pairs)
    max_length = resolve_max_length(config, model, tokenizer, special)
    windows = resolve_windows(config, max_length - special, pairs)
    if pairs or windows is not None:  # a tokenizer that they cannot be laid out for is told now
        layout_of(backend, max_length=max_length, pairs=pairs, from_end=False, windows=windows)
    facts = ModelFacts(
        path=config.path,
        revision=config.revision,
        weights=f"hub:{config.revision}" if is_hub_id(config.path) else weights_identity(config.path, storage),
        tokenizer="sha256:" + hashlib.sha256((backend.to_str() + json.dumps(settings)).encode()).hexdigest(),
        max_length=max_length,
        head=resolve_head(config, [str(model.id2label[index]) for index in range(int(model.num_labels))], model.problem_type),
        pad_id=tokenizer.pad_token_id,
        pad_type_id=tokenizer.pad_token_type_id,
        pad_left=tokenizer.padding_side == "left" or is_decoder(model),
        has_type_ids="token_type_ids" in tokenizer.model_input_names,
        pairs=pairs,
        windows=windows,
    )
    return ResolvedModel(facts, tokenizer, token_flops_of(model))


def _check_kind(config: ModelConfig, model: Any) -> None:
    """Raises UserError for a kind of model that transformers, or this job, cannot classify texts with."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

    kind = model.model_type
    if kind in MORE_THAN_TEXT:
        raise UserError(f"model.path: {config.path!r} is a {kind} model, which reads more than text; give one that reads text")
    has_code = "AutoModelForSequenceClassification" in (getattr(model, "auto_map", None) or {})
    if kind not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES and not has_code:
        raise UserError(
            f"model.path: {config.path!r} is a {kind} model, and transformers has no sequence classifier of that kind; give"
            f" another model"
        )


def _check_weights(config: ModelConfig, storage: StorageConfig) -> None:
    """Raises UserError for a folder of pickled weights alone; of models on the hub it is found when they are loaded."""
    if config.allow_pickled_weights or is_hub_id(config.path):
        return
    weights = [file.path for file in list_all(config.path, storage) if file.path.endswith(WEIGHT_SUFFIXES)]
    if weights and not any(path.endswith(".safetensors") for path in weights):
        raise UserError(
            f"model.path: {config.path!r} has no safetensors, but weights that can run code ({os.path.basename(weights[0])}):"
            f" save it with save_pretrained, or set model.allow_pickled_weights if you trust it"
        )


def is_decoder(model: Any) -> bool:
    """Whether a model's tokens see only what is before them; of these the head reads the last token that is no padding.

    Where the padding token ends texts as well, or the configuration names none, only padding on the left leaves that one where
    the head looks for it, whatever else is in the batch.

    Args:
        model: its configuration.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_MASKED_LM_MAPPING_NAMES

    kind = model.model_type
    return kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind not in MODEL_FOR_MASKED_LM_MAPPING_NAMES


def hub_commit(config: ModelConfig) -> str:
    """The commit that `model.path` and `model.revision` name on the hub, or in its local cache when the hub is not reached.

    Raises:
        UserError: there is no such model or revision, or it may not be read.
    """
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return str(HfApi().model_info(config.path, revision=config.revision, timeout=10).sha)
    except HFValidationError as error:
        raise UserError(f"model.path: {config.path!r} is no existing folder, and no hub id of the form user/name") from error
    except HfHubHTTPError as error:
        what = str(error).strip().splitlines()[-1]
        raise UserError(f"model.path: {config.path!r} at revision {config.revision or 'main'!r}: {what}") from error
    except Exception as error:  # not reached; which HTTP library says so differs by huggingface_hub version
        cached = try_to_load_from_cache(config.path, "config.json", revision=config.revision)
        if isinstance(cached, str):
            return os.path.basename(os.path.dirname(cached))  # snapshots/<commit>/config.json
        raise UserError(
            f"model.path: {config.path!r} is no existing folder, and the hub cannot be reached to look for it"
            f" ({type(error).__name__}); it is not in the local cache either"
        ) from error


def weights_identity(path: str, storage: StorageConfig) -> str:
    """Hash of the weight files: of their bytes in a local folder, of their names, sizes and etags on object storage."""
    digest = hashlib.sha256()
    for file in list_all(path, storage):
        if file.path.endswith(WEIGHT_SUFFIXES):
            digest.update(os.path.basename(file.path).encode())
            if is_local(path):
                with open(file.path, "rb") as weights:
                    digest.update(hashlib.file_digest(weights, "sha256").digest())
            else:
                digest.update(f"{file.size} {file.identity}".encode())
    return "sha256:" + digest.hexdigest()


def resolve_max_length(config: ModelConfig, model: Any, tokenizer: Any, special: int) -> int:
    """The asked-for length, or else the smaller of the tokenizer's limit and the positions that the model has."""
    limits = []
    if tokenizer.model_max_length < UNLIMITED:
        limits.append(int(tokenizer.model_max_length))
    positions = getattr(model, "max_position_embeddings", None)
    if positions and positions > 0:
        offset = model.pad_token_id + 1 if model.model_type in OFFSET_POSITIONS else 0
        positions -= offset
        limits.append(positions)
    if config.max_length is None:
        if not limits:
            raise UserError(
                f"model.max_length: neither the tokenizer nor the model of {config.path!r} has a limit; set it, e.g. 512"
            )
        return min(limits)
    if positions and positions > 0 and config.max_length > positions:
        raise UserError(
            f"model.max_length: {config.max_length} is more than the {positions} positions of {config.path!r}; give at most"
            f" that; model.long_documents: windows reads longer documents whole"
        )
    if config.max_length <= special:
        raise UserError(f"model.max_length: {config.max_length} leaves no room beside {special} special tokens; give more")
    return config.max_length


def load_classifier(
    config: ModelConfig, storage: StorageConfig, *, revision: str | None, dtype: str, device: str, attention: str | None = None
) -> Any:
    """The sequence classification model in eval mode on `device`; "meta" checks that it can be loaded, without the weights.

    Attention is torch's fused one (SDPA) where the architecture has it, else its own: what transformers does unless told.
    BigBird's is the full one, for all: transformers switches to it for good at the first short text.

    Args:
        attention: an implementation of transformers instead of those, such as "eager".

    Raises:
        UserError: no weights, pickled ones, no classification head, or a kind of model that has none.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForSequenceClassification
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        model, report = AutoModelForSequenceClassification.from_pretrained(
            local_copy(config, storage, weights=True),
            revision=revision,
            dtype=getattr(torch, dtype),
            trust_remote_code=config.trust_remote_code,
            use_safetensors=None if config.allow_pickled_weights else True,
            output_loading_info=True,
            **({"device_map": "meta"} if device == "meta" else {}),
            **({"attn_implementation": attention} if attention is not None else {}),
        )
        if model.config.model_type == "big_bird" and device != "meta":
            model.base_model.set_attention_type("original_full")
        if is_decoder(model.config) and model.config.get_text_config().pad_token_id is None:
            model.config.get_text_config().pad_token_id = NO_TOKEN  # else it refuses batches; see is_decoder
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        what = " ".join(str(error).split())[:300]
        raise UserError(f"model.path: {config.path!r} cannot be loaded as a sequence classifier: {what}") from error
    missing = sorted(report["missing_keys"])
    if missing and not config.allow_new_weights:
        raise UserError(
            f"model.path: {config.path!r} has no trained classification head ({', '.join(missing[:4])} would be made up);"
            f" fine-tune it first (label-corpus train), or set model.allow_new_weights"
        )
    return model.eval() if device == "meta" else model.to(device).eval()
