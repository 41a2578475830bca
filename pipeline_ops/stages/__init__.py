"""The four stages, as Ray Data calls them: read_task, TokenizeActor, ClassifyActor, write_task. One row in, one row out.

A row is a unit; the read stage yields several per task. rows.py has the schema of what each stage returns. Guarantee: an
exception becomes the row's `failure`, and a document that the tokenizer or the model fails on is rejected alone. A unit passes
a stage again when a worker has died; only its commit counts.
"""
