"""Training with frozen layers: which parameters stay as they are, and the frozen encoder's answers in place of the encoder.

If all layers are frozen, each epoch would compute the same vectors. So the encoder runs once over the documents, what the head
reads of each is kept, one float32 vector per document, and the head is trained on these.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np

from pipeline_ops.models.padding_side import is_decoder
from pipeline_ops.schema.errors import UserError, one_line

MAX_DIFFERENCE = 1e-5  # of a logit from a kept vector and of the whole model; absolute, and per unit of the logit


class CannotKeepVectors(Exception):
    """The head reads something else than one vector per document; the message says what was found."""


def freeze(model: Any, wanted: Literal["encoder"] | int) -> bool:
    """Exclude layers from training and switch their dropout off: "encoder" all, a number as many of the lowest.

    Of the base model only the upper layers and the pooler are trained then. The pooler (BERT's and others') is the first layer
    of the head: RoBERTa and DistilBERT have the same layer outside of the base model, and so it was done for FineWeb-Edu's
    classifier.

    Returns:
        Whether all layers are frozen.

    Raises:
        UserError: there are fewer layers, or they are no list of which some could be frozen.
    """
    base = model.base_model
    upper = [] if wanted == "encoder" else list(_layers_of(model, wanted))[wanted:]
    trained = {
        module for part in (*upper, getattr(base, "pooler", None)) if part is not None for module in part.modules()
    }  # of the base model
    frozen = [module for module in base.modules() if module not in trained]
    for module in frozen:
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad = False

    def train(mode: bool = True) -> Any:  # the Trainer calls it before each step
        type(model).train(model, mode)
        for module in frozen:
            module.training = False
        return model

    model.train = train
    return not upper


def _layers_of(model: Any, wanted: int) -> Any:
    """The base model's list of layers, lowest first, of which there are at least `wanted`."""
    import torch

    count = model.config.get_text_config().num_hidden_layers
    lists: dict[str, Any] = {}
    for name, module in model.base_model.named_modules():
        inner = any(name.startswith(f"{outer}.") for outer in lists)
        if isinstance(module, torch.nn.ModuleList) and len(module) == count and not inner:
            lists[name] = module
    if len(lists) != 1 or model.config.is_encoder_decoder:
        raise UserError(
            f"training.freeze: {wanted}: the layers of a {type(model.base_model).__name__} are no single list; give encoder, or"
            " leave it out"
        )
    if wanted > count:
        raise UserError(f"training.freeze: {wanted}: the model has {count} layers; give encoder to freeze all of them")
    return lists.popitem()[1]


def keep_vectors(
    model: Any, documents: list[dict[str, Any]], batch_size: int, on_batch: Callable[[int, int], None] | None
) -> list[dict[str, Any]]:
    """Run a frozen encoder over documents, and return as many of one token, whose embedding is the vector that the head reads.

    Batches are of documents of one length, so that nothing is padded. Each vector is checked: from it alone, in kept_vectors(),
    the head gives the logits that the whole model gave.

    Args:
        model: with all layers frozen, on its device.
        documents: as the Trainer takes them: the tokenizer's outputs, integers (tokens,), and `labels`.
        batch_size: the most documents per batch.
        on_batch: called with the number of documents done and of all.

    Returns:
        In the same order: `inputs_embeds` float32 (1, hidden size), `input_ids` and `attention_mask` int64 (1,), `labels`.

    Raises:
        CannotKeepVectors: the head reads more than one vector, or another one.
    """
    import torch

    if "inputs_embeds" not in inspect.signature(model.forward).parameters:
        raise CannotKeepVectors(f"{type(model).__name__} takes no embeddings")
    kept: list[Any] = [None] * len(documents)
    captured, done = [], 0
    hook = model.base_model.register_forward_hook(lambda module, inputs, output: captured.append(output[0]))
    model.eval()
    try:
        with torch.inference_mode():
            for rows in _batches_of_one_length(documents, batch_size):
                batch = _stack([documents[row] for row in rows], model.device)
                logits = model(**batch).logits
                vectors = _read_by_head(model.config, captured.pop(), batch["input_ids"]).float().cpu().numpy()
                for row, vector in zip(rows, vectors, strict=True):
                    kept[row] = _of_one_token(model.config, vector) | {"labels": documents[row]["labels"]}
                found = _logits_of_head(model, _stack([kept[row] for row in rows], model.device))
                if not torch.allclose(found, logits, rtol=MAX_DIFFERENCE, atol=MAX_DIFFERENCE):
                    raise CannotKeepVectors("its head reads something else than one token's vector")
                done += len(rows)
                if on_batch is not None:
                    on_batch(done, len(documents))
    finally:
        hook.remove()
    return kept


def _batches_of_one_length(documents: list[dict[str, Any]], batch_size: int) -> Iterator[np.ndarray]:
    lengths = np.array([len(document["input_ids"]) for document in documents])
    order = np.argsort(lengths, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(lengths[order])) + 1):
        yield from np.split(rows, range(batch_size, len(rows), batch_size))


def _read_by_head(config: Any, hidden: Any, ids: Any) -> Any:
    """(documents, hidden size) of the last hidden state (documents, tokens, hidden size); nothing is padded."""
    import torch

    if getattr(config, "classifier_pooling", None) == "mean":  # ModernBERT
        return hidden.mean(dim=1)
    if config.is_encoder_decoder:  # the last end of text, as in transformers' heads of BART, T5 and others
        positions = torch.arange(ids.shape[1], device=ids.device)
        return hidden[torch.arange(len(ids), device=ids.device), ((ids == config.eos_token_id) * positions).argmax(dim=1)]
    return hidden[:, -1 if is_decoder(config) else 0]


def _of_one_token(config: Any, vector: np.ndarray) -> dict[str, Any]:
    # heads look for this token by its id: encoder-decoders' for the end of text, decoders' for anything but padding
    token = config.eos_token_id if config.is_encoder_decoder else int(config.get_text_config().pad_token_id == 0)
    return {"input_ids": np.array([token]), "attention_mask": np.ones(1, np.int64), "inputs_embeds": vector[None]}


def _logits_of_head(model: Any, batch: dict[str, Any]) -> Any:
    try:
        with kept_vectors(model):
            return model(**batch).logits
    except (AttributeError, IndexError, TypeError, ValueError, RuntimeError) as error:  # of a head that needs other inputs
        raise CannotKeepVectors(f"its head cannot be run alone ({one_line(error)[:200]})") from error


def _stack(documents: list[dict[str, Any]], device: Any) -> dict[str, Any]:
    """What the model takes of documents of one shape, as tensors."""
    import torch

    names = documents[0].keys() - {"labels"}
    batch = {name: torch.from_numpy(np.stack([document[name] for document in documents])).to(device) for name in names}
    return {name: values if values.is_floating_point() else values.long() for name, values in batch.items()}


@contextmanager
def kept_vectors(model: Any) -> Iterator[None]:
    """A context in which `inputs_embeds` are the last hidden states: the base model is out of the model, but for its pooler.

    Checkpoints of it hold the head alone.
    """
    import torch

    base, prefix = model.base_model, model.base_model_prefix

    class NoEncoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pooler = getattr(base, "pooler", None)
            self.pooler_activation = getattr(base, "pooler_activation", None)  # ALBERT's pooler is a Linear

        def forward(self, *_: Any, inputs_embeds: Any, **__: Any) -> "_BaseOutput":
            pooled = None
            if isinstance(self.pooler, torch.nn.Linear):
                pooled = self.pooler(inputs_embeds[:, 0])
                pooled = pooled if self.pooler_activation is None else self.pooler_activation(pooled)
            elif self.pooler is not None:
                pooled = self.pooler(inputs_embeds)
            return _BaseOutput((inputs_embeds, pooled))

    setattr(model, prefix, NoEncoder().train(model.training))
    try:
        yield
    finally:
        setattr(model, prefix, base)


class _BaseOutput(tuple):
    """A base model's output of which a head reads the first two: last hidden state and pooler output; all others are None."""

    def __getattr__(self, name: str) -> Any:
        return {"last_hidden_state": self[0], "pooler_output": self[1]}.get(name)
