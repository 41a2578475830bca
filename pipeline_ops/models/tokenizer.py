"""A model's tokenizer: loaded and checked, its identity, and how many tokens it may give. No torch."""

import hashlib
import json
from typing import Any

from pipeline_ops.models.config import ModelConfig
from pipeline_ops.schema.errors import UserError

# models whose learned positions begin behind the padding id, so that two rows of the position table are never used
OFFSET_POSITIONS = {
    *("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "longformer"),
    *("mpnet", "roberta-prelayernorm", "data2vec-text", "ibert", "xmod"),
}
UNLIMITED = 10**6  # from here on a tokenizer's limit is none; transformers has 10**30


def load_tokenizer(config: ModelConfig, folder: str) -> Any:
    """The tokenizer of transformers.

    Args:
        folder: what from_pretrained takes: a local folder or a hub id.
    """
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, revision=config.revision, trust_remote_code=config.trust_remote_code)


def check_tokenizer(config: ModelConfig, tokenizer: Any) -> None:
    """Raises UserError for a tokenizer that is not fast, or has no vocabulary or no padding token."""
    if not getattr(tokenizer, "is_fast", False):
        raise UserError(f"model.path: {config.path!r} has no fast tokenizer (tokenizer.json); convert it with transformers")
    if tokenizer.vocab_size <= len(tokenizer.all_special_ids):  # transformers makes one up when the files are missing
        raise UserError(f"model.path: {config.path!r} has no tokenizer vocabulary; save the tokenizer into the same folder")
    if tokenizer.pad_token_id is None:
        raise UserError(f"model.path: the tokenizer of {config.path!r} has no padding token; save it with one")


def tokenizer_hash(tokenizer: Any) -> str:
    """SHA-256 of the definition of a fast tokenizer that neither truncates nor pads, and of its settings."""
    settings = [tokenizer.truncation_side, tokenizer.padding_side, tokenizer.pad_token_id]
    definition = tokenizer.backend_tokenizer.to_str()
    return "sha256:" + hashlib.sha256((definition + json.dumps(settings)).encode()).hexdigest()


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
