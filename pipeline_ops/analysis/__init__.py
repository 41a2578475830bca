"""Statistics of committed rows: metrics against true labels, comparison of two outputs, report statistics, redaction.

In: committed rows and commits. Out: plain numbers and small records; memory does not grow with the number of documents.
"""
