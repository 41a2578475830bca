"""Models with layers in common: the answers of each alone, by less work."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

from pipeline_ops.classifying.classify import classify_isolating_failures
from pipeline_ops.classifying.forward_pass import ForwardPasses
from pipeline_ops.classifying.shared_passes import Shareable, share_trunk
from pipeline_ops.loading.load import load_classifier
from pipeline_ops.models.config import ModelConfig, ModelFacts
from pipeline_ops.models.flops import document_flops
from pipeline_ops.models.heads import HeadConfig, resolve_head
from pipeline_ops.models.padding_side import pads_left
from pipeline_ops.schema.output_columns import Embedding
from pipeline_ops.storage.config import StorageConfig
from pipeline_ops.tokenizing.batching import TokenBatches, make_batches
from pipeline_ops.tokenizing.encoding import Encodings, encode, truncating_backend
from tests.models.architectures import ARCHITECTURES, make_classifier
from tests.models.relatives import make_relative
from tests.support.corpora import real_documents

torch.set_num_threads(1)
MAX_LENGTH = 64
QUICK = ("BERT", "Llama, padded left")
NO_PLAIN_LIST = {"ALBERT", "BART", "PLBart", "BigBird-Pegasus"}  # repeated layers; two lists


def passes_of(model: Any, pad_left: bool = False, embedding: Embedding | None = None) -> ForwardPasses:
    return ForwardPasses(model, pad_left=pad_left, embedding=embedding)


def share(*passes: ForwardPasses) -> list[ForwardPasses]:
    """Has them share what they can; the passes in the order in which the first one's values stand."""
    models = [Shareable(f"model {number}", one, "alike", facts_of(one)) for number, one in enumerate(passes)]
    for number, model in enumerate(models):
        share_trunk(model, models[:number])
    return [passes[0], *passes[0].followers]


def facts_of(passes: ForwardPasses) -> ModelFacts:
    config = passes.model.config.get_text_config()
    pad_id = config.pad_token_id if config.pad_token_id is not None and config.pad_token_id >= 0 else 1
    return ModelFacts(
        path="",
        revision=None,
        weights="",
        tokenizer_hash="",
        max_length=MAX_LENGTH,
        head=resolve_head(HeadConfig(), ["a", "b", "c"], None),
        pad_id=pad_id,
        pad_type_id=0,
        pad_left=passes.pad_left,
        has_type_ids=passes.takes_types,
    )


def logits(passes: ForwardPasses, batches: TokenBatches, num_labels: int = 6) -> np.ndarray:
    values, failed = classify_isolating_failures(batches, passes, num_labels=num_labels)
    assert failed == {}
    return values


def random_batches(batch_tokens: int = 512, count: int = 20) -> TokenBatches:
    """Of documents of 3 to 40 tokens of the four-layer BERT."""
    random = np.random.default_rng(0)
    lengths = random.integers(3, 40, count).astype(np.int32)
    ids = random.integers(1, 90, int(lengths.sum())).astype(np.int32)
    return make_batches(Encodings(ids, None, lengths, np.zeros(count, bool)), batch_tokens=batch_tokens, pad_id=0)


def four_layers(seed: int, like: Any = None, lowest: int = 4, **settings: Any) -> Any:
    """A BERT of 4 layers with 3 labels; `lowest` of them, and the embeddings, are those of the model `like`."""
    torch.manual_seed(seed)
    shape: dict[str, Any] = {
        "vocab_size": 90,
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "intermediate_size": 64,
    }
    shape |= {"max_position_embeddings": 64, "num_labels": 3, "initializer_range": 0.2}
    config = BertConfig(**shape, **settings)
    model = BertForSequenceClassification(config).eval()
    if like is not None:
        model.bert.embeddings.load_state_dict(like.bert.embeddings.state_dict())
        for layer in range(lowest):
            model.bert.encoder.layer[layer].load_state_dict(like.bert.encoder.layer[layer].state_dict())
    return model


def flops_of(passes: ForwardPasses, batches: TokenBatches) -> int:
    with FlopCounterMode(display=False) as counter:
        classify_isolating_failures(batches, passes, num_labels=3 * (1 + len(passes.followers)))
    return counter.get_total_flops()


@pytest.mark.parametrize(
    "architecture", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in ARCHITECTURES]
)
@pytest.mark.parametrize("lowest", [None, 1])
def test_models_with_a_common_trunk_give_what_they_give_alone(architecture: str, lowest: int | None, tmp_path: Path) -> None:
    first = make_classifier(tmp_path / "first", architecture, ("art", "law", "maths"), MAX_LENGTH)
    second = make_relative(first, tmp_path / "second", ("bad", "fair", "good"), lowest=lowest)

    def load(folder: Path) -> Any:
        return load_classifier(ModelConfig(path=str(folder)), StorageConfig(), revision=None, dtype="float32", device="cpu")

    tokenizer = AutoTokenizer.from_pretrained(first)
    one, two = load(first), load(second)
    pad_left = pads_left(one.config, tokenizer.padding_side)
    texts = [text[:400] for text in real_documents(24, seed=8)]
    with_types = "token_type_ids" in tokenizer.model_input_names
    encodings = encode(texts, truncating_backend(tokenizer, MAX_LENGTH), with_type_ids=with_types)
    pad_id = tokenizer.pad_token_id
    batches = make_batches(encodings, batch_tokens=512, pad_id=pad_id, pad_left=pad_left, max_width=MAX_LENGTH)
    expected = np.hstack([logits(passes_of(model, pad_left), batches, 3) for model in (one, two)])
    assert np.ptp(expected[:, 3:], axis=0).min() > 1e-3, "answers that do not differ show nothing"

    together = share(passes_of(one, pad_left), passes_of(two, pad_left))
    if lowest is not None and architecture in NO_PLAIN_LIST:
        assert len(together) == 1
        return
    assert len(together) == 2
    np.testing.assert_allclose(logits(together[0], batches), expected, rtol=0, atol=1e-5)
    weights = {tensor.data_ptr(): tensor.numel() for model in (one, two) for tensor in model.parameters()}
    alone = sum(tensor.numel() for tensor in one.parameters())
    assert sum(weights.values()) < (1.2 if lowest is None else 1.8) * alone


@pytest.mark.parametrize(
    ("depths", "passes"),
    [
        pytest.param((4,), 1.0, marks=pytest.mark.slow),
        pytest.param((2,), 1.5, marks=pytest.mark.slow),
        ((4, 2), 1.5),  # the second shares less
        pytest.param((2, 0), 2.5, marks=pytest.mark.slow),  # the second shares nothing
    ],
)
def test_shared_layers_are_computed_once(depths: tuple[int, ...], passes: float) -> None:
    first = four_layers(0)
    models = [first, *(four_layers(seed + 1, first, lowest) for seed, lowest in enumerate(depths))]
    batches = random_batches()
    alone = [logits(passes_of(model), batches, 3) for model in models]
    whole = flops_of(passes_of(first), batches)
    every = list(map(passes_of, models))
    together = share(*every)
    values = logits(together[0], batches, 3 * len(together))
    np.testing.assert_allclose(values, np.hstack([alone[every.index(one)] for one in together]), rtol=0, atol=1e-5)
    own = [one for one in every if one not in together]
    counted = sum(flops_of(one, batches) for one in (together[0], *own))
    assert counted / whole == pytest.approx(passes, rel=0.01)  # but for the heads


@pytest.mark.slow
def test_flops_of_a_model_are_those_of_its_own_layers() -> None:
    first = four_layers(0)
    every = [passes_of(model) for model in (first, four_layers(1, first, 4), four_layers(2, first, 2))]
    share(*every)
    parts = [document_flops(one.model, 64, one.trunk.names if one.trunk else ()) for one in every]
    reported = [part.total(np.full(20, 32)) for part in parts if part is not None]
    assert [count / reported[0] for count in reported] == pytest.approx([1, 0, 0.5], abs=0.01)  # but for the heads


def test_model_takes_the_layers_from_the_one_that_it_has_most_in_common_with() -> None:
    first = four_layers(0)
    second = four_layers(1, first, 1)
    third = four_layers(2, second, 3)
    batches = random_batches()
    alone = np.hstack([logits(passes_of(model), batches, 3) for model in (first, second, third)])
    together = share(*map(passes_of, (first, second, third)))
    assert [len(one.trunk.names) for one in together if one.trunk] == [1, 3]
    np.testing.assert_allclose(logits(together[0], batches, 9), alone, rtol=0, atol=1e-5)


def without_padding(model: Any, embedding: Embedding | None = None) -> ForwardPasses:
    return ForwardPasses(model, pad_left=False, against_padding="of a test", embedding=embedding)


@pytest.mark.parametrize("of", [passes_of, without_padding])
@pytest.mark.parametrize("whole", [True, False])
def test_embeddings_of_each_model_stand_behind_its_logits(whole: bool, of: Callable[..., ForwardPasses]) -> None:
    first = four_layers(0)
    second = copy.deepcopy(first) if whole else four_layers(1, first, 2)
    second.classifier.weight.data.mul_(-1)
    alone = [of(first), of(second, embedding="mean")]
    batches = alone[0].arrange(random_batches())
    expected = np.hstack([logits(one, batches, 3) for one in alone])
    together = share(of(first), of(second, embedding="mean"))
    assert len(together) == 2
    np.testing.assert_allclose(logits(together[0], batches), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("of", ["the one that computes", "the one that takes"])
def test_batch_that_is_halved_and_document_that_fails_leave_the_others_as_they_are(of: str) -> None:
    first = four_layers(0)
    second = four_layers(1, first, 2)
    batches = random_batches()
    alone = np.hstack([logits(passes_of(model), batches, 3) for model in (first, second)])
    together = share(passes_of(first), passes_of(second))
    poison = 20 * [0.0]
    row = int(batches.order[7])
    poison[row] = 1.0
    place = alone[row, :3] if of == "the one that computes" else alone[row, 3:]

    def fail(module: Any, inputs: Any, output: torch.Tensor) -> None:
        if len(output) > 5:
            raise torch.OutOfMemoryError("out of memory")
        if (output - torch.from_numpy(place)).abs().sum(dim=1).min() < 1e-4:
            raise ValueError("poison")

    (first if of == "the one that computes" else second).classifier.register_forward_hook(fail)
    values, failed = classify_isolating_failures(batches, together[0], num_labels=6)
    assert {*failed} == {row}
    assert np.isnan(values[row]).all()
    others = [number for number in range(20) if number != row]
    np.testing.assert_allclose(values[others], alone[others], rtol=0, atol=1e-5)


def other_embeddings(model: Any) -> None:
    model.bert.embeddings.word_embeddings.weight.data.mul_(1.01)


@pytest.mark.parametrize(
    ("settings", "change", "dtype"),
    [
        ({"hidden_act": "relu"}, None, None),
        ({"layer_norm_eps": 1e-5}, None, None),
        ({}, other_embeddings, None),
        ({}, None, torch.bfloat16),
        ({"attn_implementation": "eager"}, None, None),
    ],
)
def test_models_that_compute_something_else_have_passes_of_their_own(
    settings: dict[str, Any], change: Callable[[Any], None] | None, dtype: Any
) -> None:
    first = four_layers(0)
    second = four_layers(1, first, 4, **settings).to(dtype or torch.float32)
    if change is not None:
        change(second)
    assert len(share(passes_of(first), passes_of(second))) == 1


class ReadsALowLayer(BertForSequenceClassification):
    """Its answer depends on the output of the lowest layer, which nothing but the next one usually reads."""

    def forward(self, *arguments: Any, **named: Any) -> Any:
        found: Any = super().forward(*arguments, **named, output_hidden_states=True)
        found.logits = found.logits + found.hidden_states[1][:, 0, :1]
        return found


def test_models_whose_answers_would_change_have_passes_of_their_own() -> None:
    models = [four_layers(seed) for seed in (0, 1)]
    models[1] = four_layers(1, models[0], 3)
    for model in models:
        model.__class__ = ReadsALowLayer
    batches = random_batches()
    alone = [logits(passes_of(model), batches, 3) for model in models]
    first, second = map(passes_of, models)
    assert share(first, second) == [first]
    said = "model 1 has a pass of its own, though it has layers in common with model 0: its answers would be others"
    assert (first.against_sharing, second.against_sharing) == (None, said)
    for passes, expected in zip((first, second), alone, strict=True):
        np.testing.assert_allclose(logits(passes, batches, 3), expected, rtol=0, atol=1e-5)
