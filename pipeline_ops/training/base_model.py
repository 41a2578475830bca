"""What training starts from: a checkpoint that gets a new head, or an architecture with new weights and a new vocabulary."""

import difflib
import shutil
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from pipeline_ops.models.config import ModelConfig
from pipeline_ops.models.tokenizer import check_tokenizer, limit_of, load_tokenizer
from pipeline_ops.schema.errors import UserError

USUAL_MAX_LENGTH = 256  # of a training that names none: the memory for attention grows with its square
MAX_ALPHABET = 1000  # characters with entries of their own; rarer ones become [UNK]
WIDEST_FAST = 256  # hidden size up to which new weights learn well at 1e-3
SPECIAL_TOKENS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}


class ArchitectureConfig(BaseModel):
    """A model to train from scratch."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model_type: str = Field(description="a transformers model type with a sequence classifier, such as distilbert")
    vocab_size: int = Field(
        default=8000, ge=100, description="WordPiece entries; more are useful only with more text to learn them from"
    )
    lowercase: bool = Field(
        default=False, description="true maps texts to lower case: a smaller vocabulary, but capitals are lost as a feature"
    )
    options: dict[str, Any] = Field(
        default={}, description="settings of that model type's transformers config, such as n_layers"
    )


def train_wordpiece(texts: Sequence[str], vocab_size: int, lowercase: bool) -> Any:
    """A BERT-like WordPiece tokenizer (PreTrainedTokenizerFast) of at most `vocab_size` entries, learned from `texts`.

    Special tokens have ids 0 to 4 (pad, unk, cls, sep, mask); one text becomes [CLS] text [SEP].
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    texts = [normalizer.normalize_str(text) for text in texts]
    counts = Counter(chain.from_iterable(texts))
    characters = {character: count for character, count in counts.items() if not character.isspace()}
    frequent = sorted(characters, key=lambda character: (-characters[character], character))[:MAX_ALPHABET]
    rare = dict.fromkeys(map(ord, characters.keys() - set(frequent)), " ")
    # WordPieceTrainer numbers "##x" pieces in hash map order and breaks ties by number, so the vocabulary would differ from
    # run to run. Special tokens are numbered in the given order: pass the pieces as special tokens to the trainer, then move
    # the vocabulary to a tokenizer in which they are ordinary entries.
    learner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    learner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        special_tokens=[*SPECIAL_TOKENS.values(), *(f"##{character}" for character in sorted(frequent))],
        show_progress=False,
    )
    learner.train_from_iterator((text.translate(rare) for text in texts), trainer)
    backend = Tokenizer(models.WordPiece(learner.get_vocab(), unk_token="[UNK]"))
    backend.normalizer = normalizer
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, backend.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, model_input_names=["input_ids", "attention_mask"], **SPECIAL_TOKENS
    )


def _label_settings(names: list[str]) -> dict[str, Any]:
    return {
        "num_labels": len(names),
        "id2label": dict(enumerate(names)),
        "label2id": {name: number for number, name in enumerate(names)},
    }


def new_model(architecture: ArchitectureConfig, tokenizer: Any, names: list[str]) -> Any:
    from transformers import AutoConfig, AutoModelForSequenceClassification
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    classifiers = AutoModelForSequenceClassification._model_mapping
    if architecture.model_type not in CONFIG_MAPPING or CONFIG_MAPPING[architecture.model_type] not in classifiers:
        known = [name for name in CONFIG_MAPPING if CONFIG_MAPPING[name] in classifiers]  # 2 s: a module for each
        raise UserError(
            f"model.architecture.model_type: {architecture.model_type!r} is not a transformers model type with a"
            f" sequence classifier{_nearest(architecture.model_type, known)}"
        )
    config_class = CONFIG_MAPPING[architecture.model_type]
    allowed = {*config_class().to_dict(), *config_class.attribute_map}
    for option in architecture.options:
        if option not in allowed:  # transformers would store it and ignore it
            remedy = _nearest(option, allowed) or f"; see transformers' {config_class.__name__}"
            raise UserError(f"model.architecture.options.{option}: not a setting of {architecture.model_type}{remedy}")
    try:
        settings = AutoConfig.for_model(
            architecture.model_type,
            **_label_settings(names),
            **{"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, **architecture.options},
        )
        return AutoModelForSequenceClassification.from_config(settings)
    except (ValueError, TypeError) as error:
        raise UserError(f"model.architecture.options: {architecture.options}: {error}") from error


def load_checkpoint(start: str, revision: str | None, names: list[str]) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForSequenceClassification

    try:
        model, report = AutoModelForSequenceClassification.from_pretrained(
            start,
            revision=revision,
            ignore_mismatched_sizes=True,  # the head of another number of labels
            use_safetensors=True,
            dtype=torch.float32,  # bfloat16 weights would round small updates away
            output_loading_info=True,
            **_label_settings(names),
        )
    except (OSError, ValueError) as error:
        raise UserError(f"model.path: {start!r} is not a usable checkpoint: {str(error).splitlines()[0]}") from error
    config = ModelConfig(path=start, revision=revision)
    tokenizer = load_tokenizer(config, start)
    check_tokenizer(config, tokenizer)
    if tokenizer.pad_token_id is None:
        raise UserError(f"model.path: the tokenizer of {start!r} has no padding token; name one in its tokenizer_config.json")
    settings = model.config.get_text_config()
    if settings.pad_token_id is None:  # decoders' heads would refuse batches
        settings.pad_token_id = tokenizer.pad_token_id
    body = f"{model.base_model_prefix}."
    missing = sorted(key for key in report["missing_keys"] if key.startswith(body) and "pooler" not in key)
    if missing:
        raise UserError(f"model.path: {start!r} lacks {len(missing)} weights of the model's body, such as {missing[0]!r}")
    return model, tokenizer


def save_model(model: Any, tokenizer: Any, folder: str) -> None:
    """Write both into `folder`, which is created if need be, with the modes that the umask gives.

    safetensors gives its files mode 0600, which keeps a model from other users and from workers of a cluster. The vocabulary
    of a tokenizer without a fast version is copied: BERTweet's that transformers writes cannot be read again (its merges miss
    the counts behind them, in whose place their second halves are dropped).
    """
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if not tokenizer.is_fast:
        for attribute, name in tokenizer.vocab_files_names.items():
            source = getattr(tokenizer, attribute, None)
            if source is not None and Path(source).is_file():
                shutil.copyfile(source, Path(folder, name))
    mode = Path(folder, "config.json").stat().st_mode
    for weights in Path(folder).glob("*.safetensors"):
        weights.chmod(mode)


def usual_learning_rate(model: Any, *, is_new: bool, head_alone: bool) -> float:
    """The peak learning rate (AdamW, linear warm-up and decay) that suits what a training starts from.

    5e-5 fine-tunes a pretrained encoder (of 5e-5, 3e-5 and 2e-5 in Devlin et al. 2019, appendix A.3, the one that new heads
    learn fastest with). New weights learn nothing in few epochs at that rate: 1e-3 up to a width of 256, then in inverse
    proportion to the width (Yang et al. 2022, Tensor Programs V, table 3), which at 768 is near what BERT was pretrained with.
    A head on a frozen encoder, whose inputs do not change, learns best at 3e-3: all-MiniLM-L6 on banking77, 3 epochs, 87.6 %
    right with 1e-3, 91.1 % with 3e-3, 90.4 % with 1e-2.
    Banking77, 3 epochs, DistilBERT of width 128: 1.8 % right with 5e-5, 58.7 % with 1e-3.
    """
    if head_alone:
        return 3e-3
    if not is_new:
        return 5e-5
    width = getattr(model.config, "hidden_size", None) or WIDEST_FAST
    return float(f"{1e-3 * min(1.0, WIDEST_FAST / width):.2g}")


def choose_max_length(wanted: int | None, model: Any, tokenizer: Any) -> int:
    """`training.max_length`, or else USUAL_MAX_LENGTH, or the model's own limit if that is less.

    Raises:
        UserError: `wanted` is more than the model's limit.
    """
    limit = limit_of(model.config, tokenizer)
    if wanted is None:
        return min(USUAL_MAX_LENGTH, limit or USUAL_MAX_LENGTH)
    if limit is not None and wanted > limit:
        raise UserError(
            f"training.max_length: {wanted} is more than the model's {limit} tokens; lower it to that, or leave it out"
        )
    return wanted


def _nearest(word: str, known: Any) -> str:
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
