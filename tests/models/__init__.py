"""Tiny seeded classifiers and tokenizers of real architectures, made on the spot."""
