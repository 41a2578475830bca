"""The four stages as Ray Data calls them, without Ray: read, tokenize, classify, write. One row is one unit.

An exception becomes the row's `failure`, which later stages pass on; a document that makes the tokenizer or the model raise is
rejected alone. A unit may pass a stage more than once when a worker dies; only its commit counts.
"""
