"""Commands that check or rewrite an output without labeling: verify, sweep, compact, join.

In: a JobConfig; of join, outputs. Out: the report that becomes the JSON line. verify only reads, the others hold the lease.
"""
