"""A tokenizer of the tokenizers library as encode_sequences uses it: each text's own tokens, special tokens put around them."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from pipeline_ops.schema.errors import UserError
from pipeline_ops.tokenizing.early_truncation import EarlyTruncation, early_truncation_of
from pipeline_ops.tokenizing.encoding import encode_texts, is_truncated
from pipeline_ops.tokenizing.layout import Layout, TokenizedText
from pipeline_ops.tokenizing.windows import Windows


class RustTokenizer:
    """Tokenizes texts, and puts the special tokens around them that the tokenizer puts around a sample.

    Attributes:
        special: ids of the special tokens before, between and behind the texts (before and behind a single one).
        special_types, text_types: their type ids, and the texts'.

    Args:
        backend: a `tokenizers.Tokenizer` that truncates at max_length; from here on it truncates each text at layout.limit.

    Raises:
        UserError: the tokenizer does not put the second text behind the first.
    """

    def __init__(self, backend: Any, *, pairs: bool, windows: Windows | None):
        max_length, from_end = backend.truncation["max_length"], backend.truncation["direction"] == "left"
        backend.no_truncation()
        backend.no_padding()
        sample = backend.encode("a", "a") if pairs else backend.encode("a")
        order = [text for text in sample.sequence_ids if text is not None]
        if order != sorted(order) or set(order) != set(range(1 + pairs)):
            raise UserError(
                f"input.text_pair_column: this model's tokenizer cannot be used for {'pairs' if pairs else 'windows'}: it gives"
                f" the texts in the order {order}"
            )
        self.special: list[list[int]] = [[] for _ in range(2 + pairs)]
        self.special_types = [b""] * (2 + pairs)
        self.text_types = [0] * (1 + pairs)
        begun = 0
        for token, text, type_id in zip(sample.ids, sample.sequence_ids, sample.type_ids, strict=True):
            if text is None:
                self.special[begun].append(token)
                self.special_types[begun] += bytes([type_id])
            else:
                begun = text + 1
                self.text_types[text] = type_id
        self.layout = Layout(max_length - sum(map(len, self.special)), from_end, windows)
        if self.layout.limit is not None:
            backend.enable_truncation(self.layout.limit, direction="left" if from_end else "right")
        self.backend = backend

    @cached_property
    def early_truncation(self) -> EarlyTruncation | None:
        return early_truncation_of(self.backend.to_str(), self.backend)

    def tokenize(self, texts: list[str]) -> list[TokenizedText]:
        limit = self.layout.limit
        encodings = encode_texts(texts, self.backend, self.early_truncation, add_special_tokens=False)
        return [TokenizedText(encoding.ids, is_truncated(encoding, limit)) for encoding in encodings]

    def count(self, text: str) -> int:
        encoding = self.backend.encode(text, add_special_tokens=False)
        return len(encoding) + sum(map(len, encoding.overflowing))

    def assemble(self, parts: Sequence[list[int]]) -> tuple[list[int], bytes]:
        ids, types = list(self.special[0]), self.special_types[0]
        for tokens, text_type, special, special_types in zip(
            parts, self.text_types, self.special[1:], self.special_types[1:], strict=True
        ):
            ids += tokens + special
            types += bytes([text_type]) * len(tokens) + special_types
        return ids, types
