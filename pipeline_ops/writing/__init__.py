"""Logits to labeled Parquet files.

In: a unit's documents and logits. Out: one Parquet file per partition value, one file of rejects, and the Commit that names
them. Files have names that no other attempt uses; nothing counts before the commit is put.
"""
