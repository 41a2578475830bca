"""Sequence classifiers in memory: weights as a torch module on its device, in the dtype it computes in.

In: ModelConfig. Out: a transformers model in eval mode, checked to be one whose labels can be trusted.
"""
