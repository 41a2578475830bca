"""Models that some texts do harm to, made from ones that nothing harms; without code of their own."""

import shutil
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertTokenizer, PreTrainedTokenizerFast

KNOWN_WORDS = ("one", "two", "three", "four", "five")
UNKNOWN_WORD = "unheard"  # of the word tokenizer, which raises at it
UNEMBEDDED_WORD = "unembeddedword"  # has a token id that the model has no embedding for


def save_word_tokenizer(folder: Path) -> Path:
    """A tokenizer of KNOWN_WORDS and no token for others: a text with any other word makes it raise."""
    vocabulary = {word: index for index, word in enumerate(["[PAD]", *KNOWN_WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", model_max_length=128).save_pretrained(folder)
    return folder


def with_word_tokenizer(model: Path, folder: Path) -> Path:
    """A copy of a model, with the word tokenizer in place of its own."""
    shutil.copytree(model, folder, ignore=shutil.ignore_patterns("token*", "vocab*", "special*"))
    return save_word_tokenizer(folder)


def with_unembedded_word(model: Path, folder: Path) -> Path:
    """A copy of a BERT model, whose tokenizer knows UNEMBEDDED_WORD."""
    shutil.copytree(model, folder)
    tokenizer = BertTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([UNEMBEDDED_WORD])
    tokenizer.save_pretrained(folder)
    return folder
