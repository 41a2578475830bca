"""Attention weights for `inspect`: of which models there are none."""

from pathlib import Path

import pytest
from transformers import AutoModelForSequenceClassification

from pipeline_ops.classifying.attention import attention_weights
from pipeline_ops.schema.errors import UserError
from tests.models.architectures import make_classifier


def test_attention_of_an_encoder_decoder_is_refused_by_its_type(tmp_path: Path) -> None:
    folder = make_classifier(tmp_path / "model", "PLBart", ["NEGATIVE", "POSITIVE"])
    model = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager").eval()
    with pytest.raises(UserError, match="--attention: models of type plbart"):
        attention_weights(model, [5, 6, 7, model.config.eos_token_id], [1, 1, 1, 1], None)
