"""Formats whose files hold rows of typed columns: Parquet.

In: an InputFile. Out: Arrow tables of consecutive rows, in bounded memory.
"""
