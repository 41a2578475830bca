"""The tokenize stage: documents in, padded token batches out."""

import os
from collections.abc import Collection, Sequence
from functools import partial

import numpy as np
import pyarrow as pa

from pipeline_ops.models.config import distinct_tokenizations
from pipeline_ops.models.resolve import block_torch_import
from pipeline_ops.reading.documents import decode_texts
from pipeline_ops.schema.arrow_cells import binary_cell, list_cell, pack_table
from pipeline_ops.schema.failures import Attempts
from pipeline_ops.schema.time_spans import Stopwatch, start_of_process
from pipeline_ops.stages.context import StageContext
from pipeline_ops.stages.rows import Columns, UnitRow, detail_of, guarded, rejects_of, tokenized_schema
from pipeline_ops.tokenizing.batching import batches_to_columns, make_batches
from pipeline_ops.tokenizing.encoding import Encodings, encode_isolating_failures
from pipeline_ops.tokenizing.sequences import Definition, TextEncoder

Errors = dict[int, BaseException]  # by the document's row in the unit


class TokenizeActor:
    """Tokenizes each text once for all models that share a tokenization; a document that its tokenizer fails on is rejected.

    Tokenizing uses one core of the process; more actors use more cores.

    Args:
        tokenizers: definition of the tokenizer of each of distinct_tokenizations(context.models).
        niceness: added to the process's, so that others get a core first.
    """

    def __init__(self, context: StageContext, attempts: Attempts, tokenizers: Sequence[Definition], niceness: int = 0):
        start_of_process()
        stopwatch = Stopwatch()
        if niceness:
            os.nice(niceness)
        if any(isinstance(tokenizer, bytes) for tokenizer in tokenizers):  # of transformers, not of Rust alone
            block_torch_import()
        self.context, self.attempts = context, attempts
        self.schema = tokenized_schema(context.models)
        self.facts = [model.facts for model in distinct_tokenizations(context.models)]
        self.encoders = [
            TextEncoder(tokenizer, with_type_ids=facts.has_type_ids, pairs=facts.pairs, windows=facts.windows)
            for tokenizer, facts in zip(tokenizers, self.facts, strict=True)
        ]
        self.loading = stopwatch.span("loading")

    def __call__(self, row: pa.Table) -> pa.Table:
        return guarded(self.tokenize, row, "tokenize", self.schema, self.attempts, [self.loading])

    def tokenize(self, row: UnitRow) -> Columns:
        text_columns, output = self.context.input.text_columns, self.context.output
        documents = row.documents
        texts = [decode_texts(documents.column(name))[0].to_pylist() for name in text_columns]
        encodings, errors, empty = self.encode(texts)
        columns: Columns = {}
        if errors or empty:
            bad, short = ({number: detail_of(error) for number, error in found.items()} for found in (errors, empty))
            columns["rejects"] = row.rejects_and(
                rejects_of(documents, bad, "tokenizer_error", output) + rejects_of(documents, short, "too_short", output)
            )
            good = np.ones(documents.num_rows, bool)
            good[[*errors, *empty]] = False
            documents = documents.filter(pa.array(good))
        kept = output.input_columns()
        if kept is not None and (unwanted := [name for name in text_columns if name not in kept]):
            documents = documents.drop_columns(unwanted)
        if documents is not row.documents:
            columns["documents"] = binary_cell(pack_table(documents))
        for number, (facts, encoded) in enumerate(zip(self.facts, encodings, strict=True)):
            batches = make_batches(
                encoded,
                batch_tokens=self.context.batch_tokens,
                pad_id=facts.pad_id,
                pad_type_id=facts.pad_type_id,
                pad_left=facts.pad_left,
                max_width=facts.max_length,
            )
            columns |= batches_to_columns(batches, number)
            columns[f"num_tokens_{number}"] = list_cell(encoded.num_tokens)
            columns[f"truncated_{number}"] = list_cell(encoded.truncated.astype(np.uint8))
            if encoded.windows is not None:
                columns[f"windows_{number}"] = list_cell(encoded.windows)
        return columns

    def encode(self, texts: list[list[str]]) -> tuple[list[Encodings], Errors, Errors]:
        """(each tokenizer's encodings of the good documents, errors of those it failed on, errors of those without a token).

        Args:
            texts: a list per text column.
        """
        encodings, errors = list[Encodings](), Errors()
        for encoder in self.encoders:
            encoded, failed = encode_isolating_failures(partial(_encode_rows, encoder, texts), len(texts[0]))
            encodings.append(encoded)
            errors = failed | errors
        if errors and len(encodings) > 1:  # each tokenizer has excluded only the documents that it failed on itself
            encodings = self.encode_excluding(errors, texts)
        if all(encoded.lengths.all() for encoded in encodings):
            return encodings, errors, {}
        rows = np.array([row for row in range(len(texts[0])) if row not in errors])
        without_token = {int(row) for encoded in encodings for row in rows[encoded.num_tokens == 0]}
        empty: Errors = {row: ValueError("the tokenizer gives it no token") for row in without_token}
        return self.encode_excluding(errors | empty, texts), errors, empty

    def encode_excluding(self, excluded: Collection[int], texts: list[list[str]]) -> list[Encodings]:
        good = [[text for row, text in enumerate(column) if row not in excluded] for column in texts]
        return [encoder.encode(good) for encoder in self.encoders]


def _encode_rows(encoder: TextEncoder, texts: list[list[str]], rows: slice) -> Encodings:
    return encoder.encode([column[rows] for column in texts])
