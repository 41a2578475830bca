"""Sequence classifiers: their configuration, exact identity, files, weights, heads and costs; and how one is trained.

In: ModelConfig. Out: a JobModel (config, facts, tokenizer) for the stages; a loaded torch module; logits to scores and labels.
"""
