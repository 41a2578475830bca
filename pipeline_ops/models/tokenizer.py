"""A model's tokenizer: loaded and checked, its identity, and how many tokens it may give. No torch."""

import hashlib
import json
import os
import tempfile
from importlib.metadata import version
from typing import Any

from pipeline_ops.model_files.tokenizer_faults import tokenizer_fault
from pipeline_ops.models.config import ModelConfig
from pipeline_ops.schema.errors import UserError, one_line
from pipeline_ops.tokenizing.encoding import truncating_backend
from pipeline_ops.tokenizing.python_tokenizer import (
    MEASURED_CHARACTERS,
    difference_from_own_call,
    python_speed,
)
from pipeline_ops.tokenizing.rust_tokenizer import RustTokenizer
from pipeline_ops.tokenizing.windows import Windows

# models whose learned positions begin behind the padding id, so that two rows of the position table are never used
OFFSET_POSITIONS = {
    *("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "longformer"),
    *("mpnet", "roberta-prelayernorm", "data2vec-text", "ibert", "xmod", "esm", "luke"),
}
UNLIMITED = 10**6  # from here on a tokenizer's limit is none; transformers has 10**30
# settings of tokenizers that are hashed apart, or do not change ids
NOT_HASHED = {"is_local", "local_files_only", "model_max_length", "padding_side", "truncation_side"}
# packages that some tokenizers compute with: the extra of this project that brings them
EXTRAS = {"emoji": "bertweet", "fugashi": "japanese", "ipadic": "japanese", "unidic_lite": "japanese", "sacremoses": "moses"}


def load_tokenizer(config: ModelConfig, folder: str) -> Any:
    """The tokenizer of transformers.

    Args:
        folder: what from_pretrained takes: a local folder or a hub id.

    Raises:
        UserError: its files are missing, damaged, or written by newer versions of the libraries; or it needs a package that is
            not installed.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, revision=config.revision, trust_remote_code=config.trust_remote_code)
    except ImportError as error:
        what = one_line(error).partition(". See ")[0]
        package = next((name for name in EXTRAS if name in what), None)
        raise _missing_package(config, package, what) from error
    except Exception as error:  # of any kind: tokenizers raises nothing more special
        raise UserError(f"model.path: the tokenizer of {config.path!r} {tokenizer_fault(folder, error)}") from error


def check_tokenizer(config: ModelConfig, tokenizer: Any) -> None:
    """Raises UserError for a tokenizer without a vocabulary, or that cannot be sent to the workers."""
    if tokenizer.vocab_size <= len(tokenizer.all_special_ids):  # transformers makes one up when the files are missing
        raise UserError(f"model.path: {config.path!r} has no tokenizer vocabulary; save the tokenizer into the same folder")
    if tokenizer.is_fast:
        return
    if not type(tokenizer).__module__.startswith("transformers."):
        raise UserError(
            f"model.path: the tokenizer of {config.path!r} is Python code that comes with the model, which the workers do not"
            f" have; save it as a fast one (tokenizer.json)"
        )
    if "emoji" in _packages(tokenizer) and tokenizer.demojizer is None:  # it would go on without, with other ids
        raise _missing_package(config, "emoji", "emoji, to put emojis into words")


def _missing_package(config: ModelConfig, package: str | None, what: str) -> UserError:
    remedy = "install it" if package is None else f"pip install 'label-corpus[{EXTRAS[package]}]'"
    return UserError(f"model.path: the tokenizer of {config.path!r} needs a package that is not installed ({what}): {remedy}")


def check_sequences(config: ModelConfig, tokenizer: Any, max_length: int, *, pairs: bool, windows: Windows | None) -> None:
    """Raises UserError for a tokenizer whose sequences are not made of texts, in order, and of fixed special tokens alone."""
    if tokenizer.is_fast:
        if pairs or windows is not None:
            RustTokenizer(truncating_backend(tokenizer, max_length), pairs=pairs, windows=windows)
        return
    difference = difference_from_own_call(tokenizer, pairs=pairs)
    if difference is not None:
        raise UserError(
            f"model.path: the tokenizer of {config.path!r} ({type(tokenizer).__name__}) cannot be used: {difference}; give"
            f" a model with another tokenizer"
        )


def unembedded_remarks(model: Any, tokenizer: Any) -> list[str]:
    """A sentence about tokens that the model has no embedding for: documents with them are rejected.

    Args:
        model: its transformers config.
    """
    rows = getattr(model.get_text_config(), "vocab_size", None)
    if not rows or len(tokenizer) <= rows:
        return []
    tokens = [token for token, number in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]) if number >= rows]
    if not tokens:
        return []
    shown = ", ".join(map(repr, tokens[:4])) + (f" and {len(tokens) - 4:,} more" if len(tokens) > 4 else "")
    return [
        f"the tokenizer has {len(tokenizer):,} tokens, the model embeddings for {rows:,}: documents with {shown} are"
        " rejected; the tokenizer may be another model's"
    ]


def measured_speed(tokenizer: Any, max_length: int) -> tuple[float | None, list[str]]:
    """(tokens per second of a core, a sentence about it) of a tokenizer without a fast version; (None, []) of a fast one."""
    if tokenizer.is_fast:
        return None, []
    documents, tokens = python_speed(tokenizer, max_length)
    return tokens, [
        f"the tokenizer ({type(tokenizer).__name__}) has no fast version: a core tokenizes about"
        f" {float(f'{documents:.2g}'):,g} documents of {MEASURED_CHARACTERS:,} characters per second; compute.tokenizers sets"
        " how many cores do"
    ]


def tokenizer_hash(tokenizer: Any) -> str:
    """SHA-256 of all that token ids depend on.

    Of a fast tokenizer: its definition without truncation and padding, and settings. Of one in Python: its class, the files
    that it is saved as, settings, and the versions of the packages that it computes with.
    """
    settings: list[Any] = [tokenizer.truncation_side, tokenizer.padding_side, tokenizer.pad_token_id]
    if tokenizer.is_fast:
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()
        definition = tokenizer.backend_tokenizer.to_str()
    else:
        definition = json.dumps(_saved_files(tokenizer), sort_keys=True)
        settings += [type(tokenizer).__name__, {package: version(package) for package in _packages(tokenizer)}]
    return "sha256:" + hashlib.sha256((definition + json.dumps(settings)).encode()).hexdigest()


def _saved_files(tokenizer: Any) -> dict[str, Any]:
    """{name: SHA-256 of the content} of the files that a tokenizer is saved as; of its settings those that ids depend on."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        for file in os.scandir(folder):
            with open(file.path, "rb") as content:
                found[file.name] = hashlib.file_digest(content, "sha256").hexdigest()
        with open(os.path.join(folder, "tokenizer_config.json"), encoding="utf-8") as content:
            settings = json.load(content)
    return found | {"tokenizer_config.json": {key: settings[key] for key in settings.keys() - NOT_HASHED}}


def _packages(tokenizer: Any) -> list[str]:
    """The packages that a tokenizer in Python computes with, besides transformers."""
    packages = [
        "emoji" if getattr(tokenizer, "tweetPreprocessor", None) and tokenizer.normalization else None,  # BERTweet
        "sacremoses" if hasattr(tokenizer, "sm") else None,  # XLM, FlauBERT, BioGPT
    ]
    if getattr(tokenizer, "word_tokenizer_type", None) == "mecab":  # BERT-Japanese
        packages += ["fugashi", (tokenizer.mecab_kwargs or {}).get("mecab_dic", "unidic_lite")]
    return [package for package in packages if package is not None]


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
