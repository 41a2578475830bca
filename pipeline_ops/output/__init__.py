"""What an output folder holds besides labeled files: commits, the lease, quarantined units, run and schedule records.

The commits are the truth: a file that no commit names is garbage. One run writes at a time; a commit of a run that has lost its
lease is void.
"""
