"""Models whose passes may run in several threads of one process, and those that must not."""

import pytest
from transformers import BertConfig

from pipeline_ops.classifying.side_by_side import may_run_side_by_side
from pipeline_ops.synthetic.bag_of_tokens import BagOfTokensForSequenceClassification
from tests.models.architectures import untrained_classifier


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [("BERT", True), ("DeBERTa-v3", True), ("ModernBERT", True), ("BigBird", False), ("BigBird-Pegasus", False)],
)
def test_models_that_seed_the_generators_of_the_process_run_alone(architecture: str, expected: bool) -> None:
    assert may_run_side_by_side(untrained_classifier(architecture)) is expected


def test_model_with_code_of_its_own_runs_alone() -> None:
    assert not may_run_side_by_side(BagOfTokensForSequenceClassification(BertConfig(hidden_size=8, num_attention_heads=1)))
