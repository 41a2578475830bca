"""Join outputs over the same input: their rows, by input file and row, become the rows of one further output.

In: the commits of two or more outputs, and those of the joined one. Out: what is left to join, in units; per unit a Commit.
"""
