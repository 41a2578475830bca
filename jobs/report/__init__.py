"""`label-corpus report`: an output's commits, run records and a sample of its rows as one self-contained HTML page.

The page has no script and makes no request; credentials in quoted text are masked.
"""
