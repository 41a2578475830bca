"""A model's tokenizer where documents are tokenized: texts in, the sequences of ids that the model reads out."""

from collections.abc import Callable, Sequence
from typing import Any

from tokenizers import Tokenizer

from pipeline_ops.tokenizing.early_truncation import early_truncation_of
from pipeline_ops.tokenizing.encoding import Encodings, encode, truncating_backend
from pipeline_ops.tokenizing.layout import encode_sequences
from pipeline_ops.tokenizing.python_tokenizer import PythonTokenizer, python_definition
from pipeline_ops.tokenizing.rust_tokenizer import RustTokenizer
from pipeline_ops.tokenizing.windows import Windows

Definition = str | bytes  # JSON of a `tokenizers.Tokenizer` that truncates; or a pickled tokenizer of transformers


def definition_of(tokenizer: Any, max_length: int) -> Definition:
    """A tokenizer of transformers as it is sent to where documents are tokenized."""
    if tokenizer.is_fast:
        return truncating_backend(tokenizer, max_length).to_str()
    return python_definition(tokenizer, max_length)


class TextEncoder:
    """A loaded tokenizer.

    Args:
        definition: of definition_of.
        pairs: documents are pairs of texts.

    Raises:
        UserError: as RustTokenizer.
    """

    def __init__(self, definition: Definition, *, with_type_ids: bool, pairs: bool = False, windows: Windows | None = None):
        self._encode: Callable[[Sequence[list[str]]], Encodings]
        if isinstance(definition, bytes):
            tokenizer = PythonTokenizer.load(definition, pairs=pairs, windows=windows)
        else:
            backend = Tokenizer.from_str(definition)
            if not pairs and windows is None:  # left to the tokenizer itself, which is faster
                early = early_truncation_of(definition, backend)
                self._encode = lambda columns: encode(columns[0], backend, with_type_ids=with_type_ids, early_truncation=early)
                return
            tokenizer = RustTokenizer(backend, pairs=pairs, windows=windows)
        self._encode = lambda columns: encode_sequences(columns, tokenizer, with_type_ids=with_type_ids)

    def encode(self, columns: Sequence[list[str]]) -> Encodings:
        """Tokenize documents.

        Args:
            columns: one list of texts; for pairs two, the first and the second texts.
        """
        return self._encode(columns)
