"""Labeled texts to a fine-tuned sequence classifier: what it starts from, its steps, its checkpoints.

In: texts and labels. Out: a model folder in transformers' layout.
"""
