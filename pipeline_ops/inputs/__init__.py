"""Which files are the input: the settings of `input`, the listing, and the format of each file by its name.

In: InputConfig and a Store. Out: InputFiles in the order of their paths. No file is opened.
"""
