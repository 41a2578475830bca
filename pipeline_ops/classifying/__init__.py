"""Batches of token ids to float32 logits, on a GPU or a CPU core.

In: TokenBatches and a loaded model. Out: logits [documents, labels] in the documents' order. A document that makes the model
raise is isolated by bisection and reported; the others' logits do not depend on it.
"""
