"""Models whose answers depend on padding get batches of rows of one length; those that are not repeatable are refused."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    ConvBertConfig,
    FNetConfig,
    GPT2Config,
    NystromformerConfig,
    PreTrainedConfig,
    XLMRobertaConfig,
)

from pipeline_ops.classifying.classify import classify, classify_isolating_failures
from pipeline_ops.classifying.forward_pass import ForwardPasses
from pipeline_ops.classifying.padding_check import reason_against_padding
from pipeline_ops.loading.float32_head import keep_head_in_float32
from pipeline_ops.models import padding_side
from pipeline_ops.models.config import ModelFacts
from pipeline_ops.models.heads import Head
from pipeline_ops.models.padding_side import DEPENDS_ON_PADDING
from pipeline_ops.schema.errors import UserError
from pipeline_ops.tokenizing.batching import make_batches
from pipeline_ops.tokenizing.encoding import Encodings

torch.set_num_threads(1)
SHAPE: dict[str, Any] = {
    **{"vocab_size": 90, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2},
    **{"initializer_range": 0.2, "num_labels": 3},
}
KNOWN: dict[str, PreTrainedConfig] = {
    "convbert": ConvBertConfig(**SHAPE),
    "fnet": FNetConfig(**SHAPE),
    "nystromformer": NystromformerConfig(**SHAPE),
}
OF_GPT2: dict[str, Any] = {"n_embd": 32, "n_layer": 2, "n_head": 2, "pad_token_id": 0, "num_labels": 3}
GPT2 = GPT2Config(vocab_size=90, initializer_range=0.2, **OF_GPT2)


def built(config: PreTrainedConfig, kind: Callable[[Any], Any] = AutoModelForSequenceClassification.from_config) -> Any:
    torch.manual_seed(0)
    return kind(config).eval()


def facts_of(model: Any, pad_left: bool = False) -> ModelFacts:
    head = Head(("a", "b", "c"), "softmax")
    kind = model.config.model_type
    return ModelFacts("a model", None, "", "", 64, head, 0, 0, pad_left, has_type_ids=False, model_type=kind)


def checked(model: Any, pad_left: bool = False) -> ForwardPasses:
    return ForwardPasses(model, pad_left=pad_left, against_padding=reason_against_padding(model, facts_of(model, pad_left)))


def documents() -> Encodings:
    rng = np.random.default_rng(1)
    lengths = rng.integers(3, 30, 24).astype(np.int32)
    return Encodings(rng.integers(5, 80, lengths.sum()).astype(np.int32), None, lengths, np.zeros(24, bool))


def answers(passes: ForwardPasses) -> np.ndarray:
    """Of the documents, in padded batches if the model may have them."""
    batches = passes.arrange(make_batches(documents(), batch_tokens=300, pad_id=0, pad_left=passes.pad_left))
    assert len(batches.rows) < 24, "rows share batches"
    return classify_isolating_failures(batches, passes, num_labels=3)[0]


def answers_alone(model: Any) -> np.ndarray:
    """One document at a time, without padding: as the pipeline."""
    alone = make_batches(documents(), batch_tokens=1, pad_id=0, pad_multiple=1)
    return classify(alone, model, num_labels=3, pad_left=False)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("kind", KNOWN)
def test_answers_of_a_kind_that_depends_on_padding_are_those_of_documents_alone(
    kind: str, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found by its name or, were it a new kind, by trying."""
    assert kind in DEPENDS_ON_PADDING
    if not known:
        monkeypatch.setattr(padding_side, "DEPENDS_ON_PADDING", set())
    model = built(KNOWN[kind])
    expected = answers_alone(model)
    np.testing.assert_allclose(answers(checked(model)), expected, rtol=0, atol=1e-5)
    assert np.abs(answers(ForwardPasses(model, pad_left=False)) - expected).max() > 1e-3, "padded they differ"


class WithPaddingInIt(BertForSequenceClassification):
    """Adds the mean of all embeddings, those of the padding included."""

    def forward(self, input_ids: Any = None, attention_mask: Any = None, token_type_ids: Any = None) -> Any:
        output: Any = super().forward(input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
        output.logits = output.logits + self.get_input_embeddings()(input_ids).mean(dim=1)[:, :3]
        return output


class AtRandom(BertForSequenceClassification):
    def forward(self, input_ids: Any = None, attention_mask: Any = None, token_type_ids: Any = None) -> Any:
        output: Any = super().forward(input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
        output.logits = output.logits + torch.randn_like(output.logits)
        return output


class WithNeighbors(BertForSequenceClassification):
    """Normalizes over the batch."""

    def forward(self, input_ids: Any = None, attention_mask: Any = None, token_type_ids: Any = None) -> Any:
        output: Any = super().forward(input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
        output.logits = output.logits - output.logits.mean(dim=0)
        return output


def test_unlisted_model_is_found_out_in_lower_precision_and_keeps_its_weights() -> None:
    """Even where its answers are so alike that rounding hides the dependence."""
    model = built(BertConfig(**{**SHAPE, "initializer_range": 0.02}), WithPaddingInIt).to(torch.bfloat16)
    addresses = [one.data_ptr() for one in model.parameters()]
    assert checked(model).against_padding == "answers depend on padding"
    assert {one.dtype for one in model.parameters()} == {torch.bfloat16}
    assert [one.data_ptr() for one in model.parameters()] == addresses


@pytest.mark.parametrize("spread", [0.02, 0.2])
def test_unlisted_model_whose_answers_depend_on_padding_gets_none(spread: float) -> None:
    model = built(BertConfig(**{**SHAPE, "initializer_range": spread}), WithPaddingInIt)
    passes = checked(model)
    assert passes.against_padding == "answers depend on padding"
    np.testing.assert_allclose(answers(passes), answers_alone(model), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", [AtRandom, WithNeighbors])
def test_model_that_answers_a_text_in_several_ways_is_refused_in_one_line(kind: type) -> None:
    with pytest.raises(UserError, match=r"'a model' cannot label: .* another model") as caught:
        checked(built(BertConfig(**SHAPE), kind))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("config", "pad_left"), [(BertConfig(**SHAPE), False), (GPT2, True)])
def test_models_to_which_padding_is_harmless_keep_it_in_every_dtype(
    config: PreTrainedConfig, pad_left: bool, dtype: torch.dtype
) -> None:
    assert checked(built(config).to(dtype), pad_left).against_padding is None


def test_model_in_bfloat16_that_is_too_large_to_be_tried_in_float32_is_tried_in_bfloat16(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where its head, which is in float32, is its first module."""
    monkeypatch.setattr("pipeline_ops.classifying.padding_check.FLOAT32_BYTES", 0)
    model = built(XLMRobertaConfig(**SHAPE, max_position_embeddings=66, pad_token_id=0)).to(torch.bfloat16)
    keep_head_in_float32(model)
    assert checked(model).against_padding is None
