"""The records in an output folder: commits, the lease, quarantined units, run and schedule records.

In: a Store of the output folder. Guarantee: the commits alone decide which files are part of the output; a file that no commit
names is garbage. One run writes at a time; what a run commits after it has lost its lease is void.
"""
