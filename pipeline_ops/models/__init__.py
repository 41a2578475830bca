"""Sequence classifiers by their files: configuration, exact identity, heads and costs. Nothing here needs torch.

In: ModelConfig. Out: a JobModel (config, facts, tokenizer) for the stages; logits to scores and labels.
"""
