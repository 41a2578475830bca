"""Commands that check or rewrite an output without labeling: verify, sweep, compact.

In: a JobConfig. Out: the report that becomes the JSON line. sweep and compact hold the output's lease; verify only reads.
"""
