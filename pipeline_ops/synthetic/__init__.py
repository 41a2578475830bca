"""Synthetic corpora and classifiers, made offline, and the bare loops that bound the job's speed."""
