"""Formats whose documents are lines or records of a stream: plain text, JSON Lines and CSV.

In: an InputFile. Out: blocks of whole records, and from these Arrow tables and bad records. Each record that is a document is
exactly once in one of them. Offsets are into the decoded stream (decoding.py): decompressed, and UTF-8.
"""
