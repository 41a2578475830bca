"""Input files to units: detect columns and their types, and read spans of files as tables of documents and rejects.

In: InputConfig and file spans. Out: (Unit, documents, rejects) or a Failure, in the file's order. Each record of a readable
file is exactly once among the documents or the rejects, and a unit is the same for the same input and settings.
"""
