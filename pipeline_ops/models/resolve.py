"""ModelConfig -> ModelFacts and the tokenizer: everything about a model that does not need its weights. No torch."""

import hashlib
import json
import sys
from typing import Any, NamedTuple

from pipeline_ops.models.config import ModelConfig, ModelFacts
from pipeline_ops.models.fetch import check_weights, hub_commit, is_hub_id, local_copy, weights_identity
from pipeline_ops.models.flops import token_flops_of
from pipeline_ops.models.head_weights import check_head
from pipeline_ops.models.heads import resolve_head
from pipeline_ops.models.padding_side import pads_left
from pipeline_ops.schema.errors import UserError
from pipeline_ops.storage.config import StorageConfig
from pipeline_ops.tokenizing.sequences import layout_of
from pipeline_ops.tokenizing.windows import resolve_windows

# models whose learned positions begin behind the padding id, so that two rows of the position table are never used
OFFSET_POSITIONS = {
    *("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "longformer"),
    *("mpnet", "roberta-prelayernorm", "data2vec-text", "ibert", "xmod"),
}
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
UNLIMITED = 10**6  # from here on a tokenizer's limit is none; transformers has 10**30


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
        UserError: no such model, not a text classifier, no trained head, pickled weights, no fast tokenizer, no padding token,
            no usable max_length, or a setting that does not fit its head.
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
    _check_architecture(config, model)
    check_weights(config, storage)
    check_head(config, storage, model)
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
    if pairs or windows is not None:  # raises for a tokenizer whose sequences cannot be laid out
        layout_of(backend, max_length=max_length, pairs=pairs, from_end=False, windows=windows)
    facts = ModelFacts(
        path=config.path,
        revision=config.revision,
        weights=f"hub:{config.revision}" if is_hub_id(config.path) else weights_identity(config.path, storage),
        tokenizer_hash="sha256:" + hashlib.sha256((backend.to_str() + json.dumps(settings)).encode()).hexdigest(),
        max_length=max_length,
        head=resolve_head(config, [str(model.id2label[index]) for index in range(int(model.num_labels))], model.problem_type),
        pad_id=tokenizer.pad_token_id,
        pad_type_id=tokenizer.pad_token_type_id,
        pad_left=pads_left(model, tokenizer.padding_side),
        has_type_ids="token_type_ids" in tokenizer.model_input_names,
        pairs=pairs,
        windows=windows,
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


def resolve_max_length(config: ModelConfig, model: Any, tokenizer: Any, special: int) -> int:
    """`model.max_length`, or else the smaller of the tokenizer's limit and the model's number of positions.

    Args:
        special: special tokens in a sequence.

    Raises:
        UserError: no limit is known, or max_length is more than the model's positions or at most `special`.
    """
    limit, positions = limit_of(model, tokenizer), positions_of(model)
    if config.max_length is None:
        if limit is None:
            raise UserError(
                f"model.max_length: neither the tokenizer nor the model of {config.path!r} has a limit; set it, e.g. 512"
            )
        return limit
    if positions is not None and config.max_length > positions:
        raise UserError(
            f"model.max_length: {config.max_length} is more than the {positions} positions of {config.path!r}; give at most"
            f" that; model.long_documents: windows reads longer documents whole"
        )
    if config.max_length <= special:
        raise UserError(f"model.max_length: {config.max_length} leaves no room beside {special} special tokens; give more")
    return config.max_length


def limit_of(model: Any, tokenizer: Any) -> int | None:
    """Tokens that a sequence may have: the smaller of the tokenizer's limit and the model's positions; None: no limit is known.

    Args:
        model: its transformers config.
    """
    of_tokenizer = int(tokenizer.model_max_length) if tokenizer.model_max_length < UNLIMITED else None
    return min((limit for limit in (of_tokenizer, positions_of(model)) if limit is not None), default=None)


def positions_of(model: Any) -> int | None:
    """Positions for tokens in a model of that transformers config; None: it has no table of positions."""
    positions = getattr(model, "max_position_embeddings", None)
    if not positions or positions < 0:
        return None
    return positions - (model.pad_token_id + 1 if model.model_type in OFFSET_POSITIONS else 0)
