"""BERT classifiers with code of their own, of a kind that no list knows: to be loaded with model.trust_remote_code."""

import json
import shutil
from pathlib import Path

CODE = """
import torch
from transformers import BertForSequenceClassification


class UnlistedForSequenceClassification(BertForSequenceClassification):
    def forward(self, input_ids=None, attention_mask=None, token_type_ids=None):
        output = super().forward(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
        output.logits = output.logits + {addition}
        return output
"""
MEAN_OF_EMBEDDINGS = "self.get_input_embeddings()(input_ids).mean(dim=1)[:, : self.num_labels]"  # of padding as well
AT_RANDOM = "torch.randn_like(output.logits)"


def with_addition(model: Path, folder: Path, addition: str) -> Path:
    """A copy of a BERT model that adds something to its logits."""
    shutil.copytree(model, folder)
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForSequenceClassification": "unlisted.UnlistedForSequenceClassification"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "unlisted.py").write_text(CODE.format(addition=addition))
    return folder
