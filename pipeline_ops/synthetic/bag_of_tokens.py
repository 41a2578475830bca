"""The classifier of `label-corpus benchmark --host-ceiling`: the mean of a document's embeddings, and a head on it.

Any encoder computes about as long as its tokens took to make: one layer of 16 dimensions needs 3.5 us per token, the tokenizer
2.7. This file is saved beside the weights and loaded from there (model.trust_remote_code), so it imports nothing of ours.
"""

from typing import Any

import torch
from transformers import BertConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput


class BagOfTokensForSequenceClassification(PreTrainedModel):
    """Of a BERT's configuration it takes the sizes of embeddings and labels."""

    config_class = BertConfig

    def __init__(self, config: BertConfig):
        super().__init__(config)
        self.embeddings = torch.nn.Embedding(config.vocab_size, config.hidden_size)
        self.classifier = torch.nn.Linear(config.hidden_size, config.num_labels or 1)
        self.post_init()

    def get_input_embeddings(self) -> torch.nn.Module:
        return self.embeddings

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **others: Any
    ) -> SequenceClassifierOutput:
        """Logits (documents, labels) for ids (documents, tokens)."""
        vectors = self.embeddings(input_ids)
        if attention_mask is not None:
            vectors = vectors * attention_mask[..., None]
            mean = vectors.sum(dim=1) / attention_mask.sum(dim=1, keepdim=True)
        else:
            mean = vectors.mean(dim=1)
        return SequenceClassifierOutput(logits=self.classifier(mean))  # pyright: ignore[reportArgumentType]
