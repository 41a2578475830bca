"""The random classifiers that `benchmark --gpu` measures: labels that vary, and what is said of two models' logits."""

import numpy as np
import pytest
import torch

from pipeline_ops.synthetic import random_models

LENGTH = 24


@pytest.mark.parametrize("kind", ["bert_base", "small_bert", "deberta_base"])
def test_random_classifier_gives_every_label_and_the_same_in_float32_each_time(kind: str) -> None:
    logits = []
    for _ in range(2):
        config = getattr(random_models, kind)(tiny=True)
        model = random_models.make_classifier(config, "cpu", LENGTH)
        ids = np.stack([*random_models.document_ids(np.full(120, LENGTH), config.vocab_size, seed=1)])
        with torch.inference_mode():
            logits.append(model(**random_models.inputs_of(ids, "cpu")).logits.numpy())
    counts = np.bincount(logits[0].argmax(axis=1), minlength=random_models.NUM_LABELS)
    assert counts.min() > 5
    assert counts.max() < 80
    np.testing.assert_array_equal(logits[0], logits[1])


def test_copy_in_bfloat16_leaves_the_original_and_agrees_with_it() -> None:
    config = random_models.bert_base(tiny=True)
    model = random_models.make_classifier(config, "cpu", LENGTH)
    copied = random_models.as_classifier(model, "bfloat16")
    assert (model.dtype, copied.dtype) == (torch.float32, torch.bfloat16)
    batches = random_models.batches_of(random_models.mixed_lengths(40, LENGTH), config, 256)
    found = []
    with torch.inference_mode():
        for one in (model, copied):
            inputs = [random_models.inputs_of(ids, "cpu", lengths) for ids, lengths in random_models.split_batches(batches)]
            found.append(torch.cat([one(**batch).logits.float() for batch in inputs]).numpy())
    facts = random_models.label_facts(found[1], found[0])
    assert facts["label_agreement"] > 0.9
    assert 0 < facts["mean_difference"] < facts["largest_difference"] < 0.2


def test_facts_of_labels_are_shares_of_the_references_spread() -> None:
    reference = np.array([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0], [0.0, 4.0]])
    found = reference.copy()
    found[0] = [0.0, 1.0]
    facts = random_models.label_facts(found, reference)
    spread = reference.std(axis=0).mean()
    assert facts["label_agreement"] == 0.75
    assert facts["commonest_label"] == 0.5
    assert facts["largest_difference"] == pytest.approx(1 / spread)
    assert facts["mean_difference"] == pytest.approx(0.25 / spread)
