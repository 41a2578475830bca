"""Texts to padded batches of token ids.

In: lists of texts. Out: int32 ids as the Hugging Face tokenizer gives them, truncated or in windows, sorted by length and
padded under a budget of tokens per batch. The ids of each document equal those of the tokenizer's own call.
"""
