"""ModelConfig -> ModelFacts and the tokenizer: everything about a model that does not need its weights. No torch."""

import sys
from typing import Any, NamedTuple

from pipeline_ops.models.config import ModelConfig, ModelFacts
from pipeline_ops.models.cross_encoder import saved_activation
from pipeline_ops.models.fetch import check_weights, hub_commit, is_hub_id, local_copy, weights_identity
from pipeline_ops.models.flops import token_flops_of
from pipeline_ops.models.head_weights import check_head
from pipeline_ops.models.heads import resolve_head
from pipeline_ops.models.padding_side import pads_left
from pipeline_ops.models.tokenizer import (
    check_sequences,
    check_tokenizer,
    load_tokenizer,
    resolve_max_length,
    tokenizer_hash,
)
from pipeline_ops.schema.errors import UserError
from pipeline_ops.storage.config import StorageConfig
from pipeline_ops.tokenizing.windows import resolve_windows

# sequence classifiers that read more than text: page layout, images, tables
MULTIMODAL_MODEL_TYPES = {
    "layoutlm",
    "layoutlmv2",
    "layoutlmv3",
    "lilt",
    "markuplm",
    "modernvbert",
    "perceiver",
    "tapas",
    "ultravbert",
}


def block_torch_import() -> None:
    """Make transformers skip importing torch in this process: configurations and tokenizers do not need it (2 s of CPU).

    No effect if torch is imported already. No model can be loaded in this process afterwards.
    """
    if "torch" in sys.modules:
        return
    sys.modules["torch"] = None  # pyright: ignore[reportArgumentType] so the import system spells "not to be found"
    try:
        from transformers.utils.import_utils import is_torch_available

        is_torch_available()  # caches its result
    finally:
        del sys.modules["torch"]


class ResolvedModel(NamedTuple):
    """What resolve_model finds out."""

    facts: ModelFacts
    tokenizer: Any  # transformers'
    token_flops: float | None  # per token, estimated; see flops.token_flops_of


def resolve_model(config: ModelConfig, storage: StorageConfig, *, pairs: bool = False) -> ResolvedModel:
    """Identify a model exactly, and load its tokenizer, without its weights.

    Args:
        pairs: documents are pairs of texts.

    Raises:
        UserError: no such model, not a text classifier, no trained head, pickled weights, a tokenizer that cannot be used, no
            padding token, no usable max_length, or a setting that does not fit its head.
    """
    from transformers import AutoConfig

    model: Any
    if is_hub_id(config.path):
        config = config.model_copy(update={"revision": hub_commit(config)})
    folder = local_copy(config, storage, weights=False)
    try:
        model = AutoConfig.from_pretrained(folder, revision=config.revision, trust_remote_code=config.trust_remote_code)
    except (OSError, ValueError) as error:
        what = str(error).strip().split("\n")[0]
        raise UserError(
            f"model.path: {config.path!r} is neither a folder with a model nor a model on the hub that can be reached"
            f" from here: {what}"
        ) from error
    _check_architecture(config, model)
    check_weights(config, storage)
    check_head(config, storage, model)
    tokenizer = load_tokenizer(config, folder)
    check_tokenizer(config, tokenizer)
    special = tokenizer.num_special_tokens_to_add(pair=pairs)
    max_length = resolve_max_length(config, model, tokenizer, special)
    windows = resolve_windows(config, max_length - special, pairs)
    check_sequences(config, tokenizer, max_length, pairs=pairs, windows=windows)
    labels = [str(model.id2label[index]) for index in range(int(model.num_labels))]
    follows = config.activation == config.problem_type == "auto"  # else the job file says what the logits are
    saved = saved_activation(config.path, folder, config.revision, model) if follows else None
    facts = ModelFacts(
        path=config.path,
        revision=config.revision,
        weights=f"hub:{config.revision}" if is_hub_id(config.path) else weights_identity(config.path, storage),
        tokenizer_hash=tokenizer_hash(tokenizer),
        max_length=max_length,
        head=resolve_head(config, labels, model.problem_type, saved),
        pad_id=tokenizer.pad_token_id,
        pad_type_id=tokenizer.pad_token_type_id,
        pad_left=pads_left(model, tokenizer.padding_side),
        has_type_ids="token_type_ids" in tokenizer.model_input_names,
        pairs=pairs,
        windows=windows,
        model_type=model.model_type,
    )
    return ResolvedModel(facts, tokenizer, token_flops_of(model))


def _check_architecture(config: ModelConfig, model: Any) -> None:
    """Raises UserError for an architecture that has no sequence classifier in transformers, or reads more than text."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

    kind = model.model_type
    if kind in MULTIMODAL_MODEL_TYPES:
        raise UserError(f"model.path: {config.path!r} is a {kind} model, which reads more than text; give one that reads text")
    has_code = "AutoModelForSequenceClassification" in (getattr(model, "auto_map", None) or {})
    if kind not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES and not has_code:
        raise UserError(
            f"model.path: {config.path!r} is a {kind} model, and transformers has no sequence classifier of that kind; give"
            f" another model"
        )
