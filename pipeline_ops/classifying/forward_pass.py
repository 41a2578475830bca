"""Padded rows -> logits on the model's device (ForwardPasses); batches that are too large for the memory are halved."""

import inspect
import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline_ops.classifying.compiled import CompiledLayers, eager_line, is_compilers
from pipeline_ops.classifying.pinned_copy import PinnedCopier
from pipeline_ops.loading.device_errors import is_out_of_memory
from pipeline_ops.loading.padded_attention import SEGMENTED, RecurringShapes
from pipeline_ops.loading.shared_trunk import SharedTrunk
from pipeline_ops.models.padding_side import is_decoder
from pipeline_ops.schema.output_columns import Embedding
from pipeline_ops.tokenizing.batching import TokenBatches, without_padding


class ForwardPasses:
    """A model in eval mode on its device, called with padded rows; measures its compute time.

    On a GPU only take_seconds waits for the device, and what some architectures read on the host by themselves
    (tests/unit/classifying/test_padded_attention.py has them all).

    A batch that exhausts the memory is halved until it fits, and later batches are limited to that size: a failed allocation
    empties the allocator's cache and costs more than the passes it saves.

    Attributes:
        followers: passes of other models over the same rows, each right behind this one: models that take from this one's pass,
            or from each other's, what they share (shared_passes.py). Their values stand behind this model's.
        against_sharing: a sentence, if the model has layers in common with another one and still does not share them.
        compiled: the model's layers, compiled; None: eager.
        against_compiling: a sentence, if model.compile asks for compiling and the compiler does not work.

    Args:
        pad_left: the rows are padded in front.
        against_padding: why the model's batches have to be without padding, see padding_check.py; None: they may have it.
        embedding: return each row's pooled last hidden state, float32 (rows, hidden size), behind its logits. cls: of the token
            that the head reads: the first, a decoder's last, an encoder-decoder's last end of text; mean: of all but padding.
    """

    against_sharing: str | None = None
    compiled: CompiledLayers | None = None
    against_compiling: str | None = None

    def __init__(
        self,
        model: Any,
        *,
        pad_left: bool,
        against_padding: str | None = None,
        embedding: Embedding | None = None,
    ):
        self.model, self.pad_left, self.against_padding = model, pad_left, against_padding
        parameters = inspect.signature(model.forward).parameters
        self.takes_types = "token_type_ids" in parameters
        self.num_types = num_type_embeddings(model) if self.takes_types else None
        # without these, positions would count padding on the left, and results depend on the batch
        self.takes_positions = pad_left and "position_ids" in parameters
        self.needs_mask = _needs_mask(model, parameters)
        self.takes_cache = "use_cache" in parameters  # of keys and values, useless for a single pass
        self.followers: list[ForwardPasses] = []
        self.trunk: SharedTrunk | None = None  # of a follower
        self.embedding = embedding
        self.embedding_size = 0
        if embedding is not None:
            self.embedding_size = model.config.get_text_config().hidden_size
            self.reads_last = is_decoder(model.config)
            self.eos_id = model.config.eos_token_id if model.config.is_encoder_decoder else None
            self._hidden: Any = None
            model.base_model.register_forward_hook(self._capture_hidden)
        self.on_gpu = model.device.type == "cuda"
        self.to_device = PinnedCopier(model.device) if self.on_gpu else _to_tensor
        self.shapes = RecurringShapes()
        self.max_tokens = sys.maxsize
        self._seconds = 0.0
        self._events: list[tuple[Any, Any]] = []

    def arrange(self, batches: TokenBatches) -> TokenBatches:
        """The batches as the model may read them: without padding, if there is a reason against it."""
        return batches if self.against_padding is None else without_padding(batches, self.pad_left)

    def __call__(self, ids: np.ndarray, type_ids: np.ndarray | None, lengths: np.ndarray, width: int) -> Any:
        """Logits and embeddings, float32 (rows, labels + embedding_size), on the model's device; on a GPU not waited for.

        With followers (rows, the same of each model).

        Args:
            ids: int32 (rows * width,), padded.
            type_ids: int8 (rows * width,), or None where the model takes none.
            lengths: int32 (rows,), without padding.

        Raises:
            IndexError: the model has no embedding for a token id or a token type.
            MemoryError: a single row exhausts the memory.
            Exception: what the model raises.
        """
        import torch

        self._check_ids(ids, type_ids)
        waiting, parts, retrying_one = [(0, len(lengths))], [], False
        while waiting:
            start, stop = waiting.pop()
            if stop - start > 1 and (stop - start) * width > self.max_tokens:
                middle = (start + stop) // 2
                waiting += [(middle, stop), (start, middle)]
                continue
            cells = slice(start * width, stop * width)
            try:
                parts.append(self._run(ids[cells], None if type_ids is None else type_ids[cells], lengths[start:stop], width))
                retrying_one = False
                continue
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if retrying_one:
                    what = str(error).strip().split("\n")[0]
                    raise MemoryError(
                        f"one document of {width} tokens alone is too much for a classifier's memory: lower model.max_length,"
                        f" or have fewer classifiers on a machine or GPU ({what})"
                    ) from error
            # outside the handler, so that what the exception's frames hold is freed first
            self._shrink_batch(stop - start, width)
            retrying_one = stop - start == 1
            waiting.append((start, stop))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _shrink_batch(self, rows: int, width: int) -> None:
        import torch

        if rows > 1:
            self.max_tokens = (rows + 1) // 2 * width
            print(
                f"out of memory: {rows} documents of {width} tokens in a pass; {self.max_tokens} tokens from now on",
                file=sys.stderr,
            )
        if self.on_gpu:
            torch.cuda.empty_cache()

    def _run(self, ids: np.ndarray, type_ids: np.ndarray | None, lengths: np.ndarray, width: int) -> Any:
        import torch

        # one copy of int32 for all inputs; type ids are mostly all 0 and then not copied
        types = [type_ids] if type_ids is not None and self.takes_types and type_ids.any() else []
        flat = self.to_device([lengths, ids, *types])
        rows = len(lengths)
        of_tokens = list(flat[rows:].view(-1, rows, width).long())
        if self.compiled is not None:
            of_tokens, width = self.compiled.widened(of_tokens, self.pad_left)
        inputs = {"input_ids": of_tokens[0], "attention_mask": None}
        if type_ids is not None and self.takes_types:
            inputs["token_type_ids"] = of_tokens[1] if types else torch.zeros_like(of_tokens[0])
        padded = lengths.min() < width
        if padded or self.needs_mask:
            columns, used = torch.arange(width, device=flat.device), flat[:rows, None]
            mask = columns >= width - used if self.pad_left else columns < used  # by lengths, as in batching.attention_mask
            inputs["attention_mask"] = mask.long()
        if self.takes_positions and padded:  # else they are the model's default
            inputs["position_ids"] = (inputs["attention_mask"].cumsum(dim=1) - 1).clamp_(min=0)
        if self.takes_cache:
            inputs["use_cache"] = False
        if self.on_gpu and self.compiled is None:  # what is compiled has the kernel of its first pass
            self.shapes.choose(rows, width, padded=padded)
        if self.compiled is not None and self.compiled.is_new(rows, width, masked=inputs["attention_mask"] is not None):
            self._run_first(inputs)
        try:
            values = [passes._run_timed(inputs) for passes in (self, *self.followers)]
        finally:
            for passes in self.followers:
                if passes.trunk is not None:
                    passes.trunk.clear()
        return values[0] if len(values) == 1 else torch.cat(values, dim=1)

    def _run_first(self, inputs: dict[str, Any]) -> None:
        """The first pass of a shape, which compiles it: the compiler's time is not the device's."""
        try:
            self.model(**inputs)
        except Exception as error:
            if self.compiled is None or not self.compiled.by_auto or not is_compilers(error) or is_out_of_memory(error):
                raise
            self.compiled.undo()
            self.compiled, self.against_compiling = None, eager_line(self.model.config.model_type, error)

    def _run_timed(self, inputs: dict[str, Any]) -> Any:
        import torch

        if self.on_gpu:
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            values = self._logits_and_embeddings(inputs)
            end.record()
            self._events.append((begin, end))
            return values
        begin = time.monotonic()
        values = self._logits_and_embeddings(inputs)
        self._seconds += time.monotonic() - begin
        return values

    def _logits_and_embeddings(self, inputs: dict[str, Any]) -> Any:
        import torch

        logits = self.model(**inputs).logits.float()
        if self.embedding is None:
            return logits
        hidden, self._hidden = self._hidden.float(), None
        mask = inputs["attention_mask"]
        if mask is None:
            mask = torch.ones_like(inputs["input_ids"])
        if self.embedding == "mean":
            weights = mask[..., None].float()
            pooled = (hidden * weights).sum(dim=1) / weights.sum(dim=1)
        else:
            positions = torch.arange(mask.shape[1], device=mask.device)
            if self.eos_id is not None:  # as transformers' heads of BART, PLBart, BigBird-Pegasus, mBART and T5
                head_position = ((inputs["input_ids"] == self.eos_id) * positions).argmax(dim=1)
            else:  # the first or the last token that is no padding
                head_position = (mask * positions).argmax(dim=1) if self.reads_last else mask.argmax(dim=1)
            pooled = hidden[torch.arange(len(mask), device=mask.device), head_position]
        return torch.cat([logits, pooled], dim=1)

    def _capture_hidden(self, module: Any, inputs: Any, output: Any) -> None:
        self._hidden = output[0]

    def take_seconds(self) -> float:
        """Seconds that the device has computed this model's passes since the last call; waits for it.

        What models share counts for the one that computes it. On a GPU from the first to the last kernel of each pass: where
        the passes are so small that the GPU waits for the next kernel to be launched, that counts as well.
        """
        seconds, events = self._seconds, self._events
        self.discard_seconds()
        if events:
            events[-1][1].synchronize()
        return seconds + sum(begin.elapsed_time(end) for begin, end in events) / 1000

    def discard_seconds(self) -> None:
        """Begins to count anew: what has been computed so far, in a unit that has failed or a trial, is nobody's."""
        self._seconds, self._events = 0.0, []

    def _check_ids(self, ids: np.ndarray, type_ids: np.ndarray | None) -> None:
        """Raises IndexError for an id without an embedding; on a GPU it would make the device unusable for the process."""
        known = num_embeddings(self.model)
        if known is not None and ids.size and ids.max() >= known:
            raise IndexError(
                f"token id {ids.max()}, the model has embeddings for {known}; its tokenizer belongs to another model"
            )
        if self.num_types is not None and type_ids is not None and type_ids.size and type_ids.max() >= self.num_types:
            raise IndexError(
                f"token type {type_ids.max()}, the model has embeddings for {self.num_types}; its tokenizer belongs to another"
                " model"
            )


def _needs_mask(model: Any, parameters: Mapping[str, inspect.Parameter]) -> bool:
    """Whether a model gets a mask that masks nothing.

    Without one, fused attention has its fastest kernel. The others gain nothing, and transformers looks on the host for padding
    among the ids, or in decoders for texts that are packed into one row, if there is no mask.
    """
    mask = parameters.get("attention_mask")
    if mask is None or mask.default is not None:
        return True
    attention = getattr(model.config, "_attn_implementation", "eager")
    return attention == "eager" or (attention == SEGMENTED and is_decoder(model.config))


def num_embeddings(model: Any) -> int | None:
    """The number of token ids that a transformers model knows; None: any id, as CANINE, which hashes characters."""
    try:
        return getattr(model.get_input_embeddings(), "num_embeddings", None)
    except NotImplementedError:
        return None


def num_type_embeddings(model: Any) -> int | None:
    """The number of token types that a transformers model has embeddings for; None: it has no table of them."""
    tables = [module.weight for name, module in model.named_modules() if name.endswith("token_type_embeddings")]
    return min(map(len, tables), default=None)


def _to_tensor(arrays: list[np.ndarray]) -> Any:
    import torch

    return torch.from_numpy(np.concatenate(arrays, dtype=np.int32))
