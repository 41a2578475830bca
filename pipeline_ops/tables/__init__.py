"""Tables in open formats (Delta Lake, Iceberg): whether a folder is one, and which files its newest version consists of.

In: a Store and its listing. Out: TableFiles, with the values of their partitions. No data file is opened.
"""
