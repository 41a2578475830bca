"""Committed rows to numbers: counts, accuracy, calibration, the comparison of two outputs, statistics for the report."""
