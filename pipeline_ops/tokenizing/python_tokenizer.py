"""Tokenizers that transformers has in Python alone: BERTweet, PhoBERT, BERT-Japanese, FlauBERT, XLM, CANINE and others.

They tokenize some hundred documents per second of a core, a hundredth of what those in Rust do. The ids are those of the
tokenizer's own call, by the steps that it consists of: each text's tokens, truncation, special tokens around them. (Where the
beginning of a pair is truncated and its second text is empty, transformers omits the special tokens of the second text.)
"""

import pickle
import re
import time
from collections.abc import Sequence
from typing import Any, Self

from pipeline_ops.tokenizing.layout import Layout, TokenizedText, encode_sequences
from pipeline_ops.tokenizing.windows import Windows

MAX_REMEMBERED_WORDS = 2**17  # BPE in Python remembers the pieces of each word that it has met, without end
MAX_BPE_WORD = 20_000  # characters; the time for a word grows with its square, and is 10 s here
MAX_CHARACTERS = 2**16  # of a text to keep some of its tokens, where these may in principle depend on all of it
CHARACTERS_PER_TOKEN = 6  # in the first try of early truncation; each further try takes twice as many
# their pieces end at white space, and each piece is tokenized alone
WORD_TOKENIZERS = {"BertweetTokenizer", "ByT5Tokenizer", "CTRLTokenizer", "CanineTokenizer", "PhobertTokenizer"}
MEASURED_CHARACTERS, MEASURED_SECONDS = 1000, 0.1  # of CPU
SAMPLE = "The quick brown fox can't jump over a lazy dog. Le cœur a ses raisons, 今日は天気がいいですね 😀 #1 http://a.b/c @d"
CHARACTER_TOKENIZERS = {"CanineTokenizer"}  # each character is a token


class PythonTokenizer:
    """Tokenizes texts, and puts the special tokens around them.

    A long text is truncated before it is tokenized, which takes long: some tokenizers need 20 s for 65,536 letters without a
    space. That is exact for WORD_TOKENIZERS. Of other tokenizers' texts MAX_CHARACTERS are tokenized, or 32 for each token that
    is kept if these are more: their words are found in context, but not in one as wide as that. Without a limit of tokens (all
    windows) a text is tokenized as it is.

    Args:
        tokenizer: of transformers, without Rust.
        max_length: tokens of a sequence, special tokens included.
        pairs: documents are pairs of texts.
    """

    def __init__(self, tokenizer: Any, max_length: int, *, pairs: bool, windows: Windows | None):
        room = max_length - tokenizer.num_special_tokens_to_add(pair=pairs)
        self.tokenizer = tokenizer
        self.layout = Layout(room, tokenizer.truncation_side == "left", windows, odd_to_second=False)
        self.boundaries = None if self.layout.from_end else _boundaries(tokenizer)

    @classmethod
    def load(cls, definition: bytes, *, pairs: bool, windows: Windows | None) -> Self:
        """Loads what python_definition has made."""
        return cls(*pickle.loads(definition), pairs=pairs, windows=windows)

    def tokenize(self, texts: list[str]) -> list[TokenizedText]:
        words = getattr(self.tokenizer, "cache", None)
        if isinstance(words, dict) and len(words) > MAX_REMEMBERED_WORDS:
            words.clear()
        return [self._tokenize(text) for text in texts]

    def count(self, text: str) -> int:
        return len(self._ids(text))

    def assemble(self, parts: Sequence[list[int]]) -> tuple[list[int], bytes]:
        ids = self.tokenizer.build_inputs_with_special_tokens(*parts)
        return ids, bytes(self.tokenizer.create_token_type_ids_from_sequences(*parts))

    def _tokenize(self, text: str) -> TokenizedText:
        limit = self.layout.limit
        if limit is None:
            return TokenizedText(self._ids(text), False)
        characters = CHARACTERS_PER_TOKEN * limit
        while self.boundaries is not None and characters < len(text):
            boundary = self.boundaries.search(text, characters)
            ids = self._ids(text if boundary is None else text[: boundary.end()])
            if boundary is None or len(ids) > limit:
                return TokenizedText(ids[:limit], len(ids) > limit)
            characters *= 2
        from_end = self.layout.from_end
        ids = self._ids(text if self.boundaries is not None else _shorten(text, max(MAX_CHARACTERS, 32 * limit), from_end))
        return TokenizedText(ids[-limit:] if from_end else ids[:limit], len(ids) > limit)

    def _ids(self, text: str) -> list[int]:
        """The ids of all tokens.

        Raises:
            ValueError: a word of more than MAX_BPE_WORD characters.
        """
        if hasattr(self.tokenizer, "bpe") and len(text) > MAX_BPE_WORD and any(len(w) > MAX_BPE_WORD for w in text.split()):
            raise ValueError(f"a word of more than {MAX_BPE_WORD:,} characters, for which this tokenizer takes too long")
        return self.tokenizer.convert_tokens_to_ids(self.tokenizer.tokenize(text))


def python_definition(tokenizer: Any, max_length: int) -> bytes:
    """A tokenizer of transformers, to be loaded where documents are tokenized: pickled, as some consist of more than files."""
    return pickle.dumps((tokenizer, max_length))


def python_speed(tokenizer: Any, max_length: int) -> tuple[float, float]:
    """(documents of MEASURED_CHARACTERS, their tokens) that a core tokenizes in a second of CPU, measured in a tenth of one.

    The tokens are those that the model gets, special ones included.
    """
    texts = [(SAMPLE * MEASURED_CHARACTERS)[:MEASURED_CHARACTERS]]
    python = PythonTokenizer(tokenizer, max_length, pairs=False, windows=None)
    tokens = len(encode_sequences([texts], python, with_type_ids=False).ids)  # computes what is computed once
    began, documents = time.process_time(), 0
    while (seconds := time.process_time() - began) < MEASURED_SECONDS:
        encode_sequences([texts], python, with_type_ids=False)
        documents += 1
    return documents / seconds, documents * tokens / seconds


def difference_from_own_call(tokenizer: Any, *, pairs: bool) -> str | None:
    """How a tokenizer's own call differs from what PythonTokenizer does, on a sample; None: it does not.

    Some classes make more than token ids, or prepare them in a way of their own.
    """
    special = tokenizer.num_special_tokens_to_add(pair=pairs)
    for text in ("a", SAMPLE):
        texts = (text, SAMPLE) if pairs else (text,)
        for max_length in (special + 10, special + 11):
            own = tokenizer(*texts, truncation=True, max_length=max_length)
            if further := sorted(own.keys() - {"input_ids", "token_type_ids", "attention_mask"}):
                return f"it gives the model {', '.join(further)} besides token ids"
            python = PythonTokenizer(tokenizer, max_length, pairs=pairs, windows=None)
            found = encode_sequences([[text] for text in texts], python, with_type_ids="token_type_ids" in own)
            types = None if found.type_ids is None else found.type_ids.tolist()
            if (found.ids.tolist(), types) != (own["input_ids"], own.get("token_type_ids")):
                return "it prepares token ids in a way of its own"
    return None


def _boundaries(tokenizer: Any) -> re.Pattern[str] | None:
    """Matches up to a place at which a text's tokens are those of the two parts, one behind the other; None: none is known.

    Added tokens are found before anything else; none reaches across a boundary, or depends on what is behind one.
    """
    kind, added = type(tokenizer).__name__, tokenizer.added_tokens_decoder.values()
    if kind in CHARACTER_TOKENIZERS and all(len(token.content) == 1 and not token.single_word for token in added):
        return re.compile(r"\S")
    is_local = kind in WORD_TOKENIZERS and not getattr(tokenizer, "normalization", False)
    return re.compile(r"\S(?= )") if is_local and not any(re.search(r"\s", token.content) for token in added) else None


def _shorten(text: str, characters: int, from_end: bool) -> str:
    """At most so many characters of a text, from a space on or up to one if there is some."""
    if len(text) <= characters:
        return text
    if from_end:
        return text[text.find(" ", len(text) - characters) + 1 or len(text) - characters :]
    space = text.rfind(" ", 0, characters)
    return text[: space if space > 0 else characters]
