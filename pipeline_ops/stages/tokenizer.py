"""TokenizeActor."""

import time
from collections.abc import Collection, Sequence
from functools import partial

import numpy as np
import pyarrow as pa

from pipeline_ops.models.config import JobModel, distinct_tokenizations
from pipeline_ops.reading.reader import Attempts
from pipeline_ops.reading.text_columns import decode_texts
from pipeline_ops.schema.arrow_cells import binary_cell, list_cell, pack_table, unpack_table
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.schema.units import pack_rejects
from pipeline_ops.stages.rows import Columns, guarded, rejects_of, tokenized_schema
from pipeline_ops.tokenizing.batching import batches_to_columns, make_batches
from pipeline_ops.tokenizing.encoding import Encodings, encode_isolating_failures
from pipeline_ops.tokenizing.sequences import TextEncoder


class TokenizeActor:
    """Holds the tokenizers. One process uses one core: parallel tokenizing is more actors."""

    def __init__(
        self,
        models: Sequence[JobModel],
        text_columns: tuple[str, ...],
        output: OutputConfig,
        batch_tokens: int,
        attempts: Attempts,
    ):
        # each text is tokenized once for all models that read the same
        self.readers, self.schema = distinct_tokenizations(models), tokenized_schema(models)
        self.encoders = [
            TextEncoder(
                model.tokenizer_json,
                with_type_ids=model.facts.has_type_ids,
                pairs=model.facts.pairs,
                windows=model.facts.windows,
            )
            for model in self.readers
        ]
        self.text_columns, self.output, self.batch_tokens = text_columns, output, batch_tokens
        self.attempts = attempts

    def __call__(self, row: pa.Table) -> pa.Table:
        return guarded(self.tokenize, row, "tokenize", self.attempts, self.schema)

    def tokenize(self, row: pa.Table) -> Columns:
        began = time.monotonic()
        columns: Columns = {}
        documents = unpack_table(row["documents"][0])
        texts = [decode_texts(documents.column(name))[0].to_pylist() for name in self.text_columns]
        encodings, bad, empty = self.encode(texts)
        if bad or empty:
            rejects = row["rejects"][0].as_py()
            rejects += pack_rejects(rejects_of(documents, bad, "tokenizer_error", self.output))
            rejects += pack_rejects(rejects_of(documents, empty, "too_short", self.output))
            good = np.ones(documents.num_rows, bool)
            good[[*bad, *empty]] = False
            documents = documents.filter(pa.array(good))
            columns["rejects"] = binary_cell(pa.py_buffer(rejects))
            columns["documents"] = binary_cell(pack_table(documents))
        kept = self.output.input_columns()
        if kept is not None and (unwanted := [name for name in self.text_columns if name not in kept]):
            documents = documents.drop_columns(unwanted)
            columns["documents"] = binary_cell(pack_table(documents))
        for reading, (model, read) in enumerate(zip(self.readers, encodings, strict=True)):
            batches = make_batches(
                read,
                batch_tokens=self.batch_tokens,
                pad_id=model.facts.pad_id,
                pad_type_id=model.facts.pad_type_id,
                pad_left=model.facts.pad_left,
                max_width=model.facts.max_length,
            )
            columns |= batches_to_columns(batches, reading)
            columns[f"num_tokens_{reading}"] = list_cell(read.num_tokens)
            columns[f"truncated_{reading}"] = list_cell(read.truncated.astype(np.uint8))
            if read.windows is not None:
                columns[f"windows_{reading}"] = list_cell(read.windows)
        columns["tokenize_seconds"] = pa.array([time.monotonic() - began])
        return columns

    def encode(self, texts: list[list[str]]) -> tuple[list[Encodings], dict[int, BaseException], dict[int, BaseException]]:
        """(what each tokenizer makes of the good documents; by row, what those that make one raise do; the same of empty ones).

        Args:
            texts: a list per text column.
        """
        found, bad = list[Encodings](), dict[int, BaseException]()
        for encoder in self.encoders:
            read, failed = encode_isolating_failures(partial(_encode_rows, encoder, texts), len(texts[0]))
            found.append(read)
            bad = failed | bad
        if bad and len(found) > 1:  # each has left out its own only
            found = self.encode_excluding(bad, texts)
        if all(read.lengths.all() for read in found):
            return found, bad, {}
        rows = np.array([row for row in range(len(texts[0])) if row not in bad])
        without = {int(row) for read in found for row in rows[read.num_tokens == 0]}
        empty: dict[int, BaseException] = {row: ValueError("the tokenizer gives it no token") for row in without}
        return self.encode_excluding(bad | empty, texts), bad, empty

    def encode_excluding(self, left_out: Collection[int], texts: list[list[str]]) -> list[Encodings]:
        good = [[text for row, text in enumerate(column) if row not in left_out] for column in texts]
        return [encoder.encode(good) for encoder in self.encoders]


def _encode_rows(encoder: TextEncoder, texts: list[list[str]], rows: slice) -> Encodings:
    return encoder.encode([column[rows] for column in texts])
