"""Tokenizers of all kinds of files: which load, what those without a fast version need, and which are refused."""

import base64
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import BertConfig, DebertaV2Config, LlamaConfig, PreTrainedConfig, XLMRobertaConfig

from pipeline_ops.models.config import ModelConfig
from pipeline_ops.models.resolve import resolve_model
from pipeline_ops.models.tokenizer import load_tokenizer
from pipeline_ops.schema.errors import UserError
from pipeline_ops.storage.config import StorageConfig
from pipeline_ops.tokenizing.sequences import TextEncoder, definition_of
from tests.models.architectures import SHAPE
from tests.models.folders import change_json
from tests.models.python_tokenizers import make_classifier, save_tokenizer, texts
from tests.models.tiny import save_classifier

TEXT = "the quick brown fox"
PIECES_OF_BERT = {"pad_piece": "[PAD]", "bos_piece": "[CLS]", "eos_piece": "[SEP]", "unk_piece": "[UNK]"}


def write_sentence_pieces(path: Path, **settings: Any) -> Any:
    """Writes a file of sentencepiece; returns its processor."""
    from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

    path.parent.mkdir(parents=True)
    with path.open("wb") as file:
        SentencePieceTrainer.train(
            sentence_iterator=iter([line for text in texts() for line in text.splitlines()]),
            model_writer=file,
            vocab_size=500,
            hard_vocab_limit=False,
            character_coverage=0.98,
            minloglevel=2,
            **settings,
        )
    return SentencePieceProcessor(str(path))


def ids_of(folder: Path, config: PreTrainedConfig) -> list[int]:
    """The ids of TEXT as a job with a classifier of that configuration gets them; the folder has no tokenizer files but one."""
    config.save_pretrained(folder)
    tokenizer = load_tokenizer(ModelConfig(path=str(folder)), str(folder))
    return TextEncoder(definition_of(tokenizer, 32), with_type_ids=False).encode([[TEXT]]).ids.tolist()


def test_folder_with_the_sentencepiece_file_of_xlm_roberta_alone(tmp_path: Path) -> None:
    pieces = write_sentence_pieces(tmp_path / "model" / "sentencepiece.bpe.model")
    # fairseq's ids: <s>, <pad>, </s> and <unk> before the pieces, which begin behind the file's own three
    assert ids_of(tmp_path / "model", XLMRobertaConfig()) == [0, *(piece + 1 for piece in pieces.encode(TEXT)), 2]


def test_folder_with_the_sentencepiece_file_of_deberta_alone(tmp_path: Path) -> None:
    ids = {"pad_id": 0, "bos_id": 1, "eos_id": 2, "unk_id": 3, "user_defined_symbols": ["[MASK]"]}
    pieces = write_sentence_pieces(tmp_path / "model" / "spm.model", **ids, **PIECES_OF_BERT)
    assert ids_of(tmp_path / "model", DebertaV2Config()) == [1, *pieces.encode(TEXT), 2]


def test_folder_with_a_tiktoken_file_alone(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    ranks = [*(bytes([number]) for number in range(256)), b"th", b"the", b" f", b"ox"]
    lines = [f"{base64.b64encode(token).decode()} {rank}\n" for rank, token in enumerate(ranks)]
    (folder / "tokenizer.model").write_text("".join(lines))
    added = {"260": {"content": "<|end_of_text|>", "special": True}}
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": "<|end_of_text|>", "added_tokens_decoder": added}))
    assert ids_of(folder, LlamaConfig()) == [257, *b" quick", *b" brown", 258, 259]


@pytest.fixture(scope="module")
def classifier_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    return lambda family: make_classifier(tmp_path_factory.mktemp("model") / "model", family, ("A", "B"), 64)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "package", "extra"),
    [
        ("XLM", "sacremoses", "moses"),
        ("FlauBERT", "sacremoses", "moses"),
        ("BERT-Japanese", "fugashi", "japanese"),
        ("BERT-Japanese", "ipadic", "japanese"),
        ("BERT-Japanese, characters", "unidic_lite", "japanese"),
        ("BERTweet", "emoji", "bertweet"),
    ],
)
def test_package_that_is_not_installed_is_named_with_the_command_for_it(
    classifier_of: Callable[[str], Path], family: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = classifier_of(family)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"needs a package.*{package}.*: pip install 'label-corpus\[{extra}\]'$"):
        resolve_model(ModelConfig(path=str(folder)), StorageConfig())


@pytest.mark.slow
def test_speed_of_a_tokenizer_without_a_fast_version_is_measured_and_said(classifier_of: Callable[[str], Path]) -> None:
    (remark,) = resolve_model(ModelConfig(path=str(classifier_of("PhoBERT"))), StorageConfig()).remarks
    assert "(PhobertTokenizer) has no fast version: a core tokenizes about" in remark


@pytest.mark.slow
def test_tokenizer_that_gives_more_than_token_ids_is_refused(tmp_path: Path) -> None:
    """RoCBERT's: shapes and sounds of characters, without which a model's answers are others."""
    folder = tmp_path / "model"
    tokenizer = save_tokenizer(folder, "BERT-Japanese", 64)
    save_classifier(folder, BertConfig(**SHAPE, vocab_size=len(tokenizer)), tokenizer, ("A", "B"), seed=0, texts=texts())
    for name in ("word_shape.json", "word_pronunciation.json"):
        (folder / name).write_text(json.dumps(dict.fromkeys(tokenizer.get_vocab(), 0)))
    change_json(folder / "tokenizer_config.json", tokenizer_class="RoCBertTokenizer")
    with pytest.raises(UserError, match=r"RoCBertTokenizer.*input_pronunciation_ids, input_shape_ids besides token ids"):
        resolve_model(ModelConfig(path=str(folder)), StorageConfig())
