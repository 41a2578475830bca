"""Files and objects by path: local disk, S3 and what fsspec's plug-ins reach. No other package uses fsspec or s3fs.

In: a path, a StorageConfig. Out: bytes, listings with the identity of each object. An object is written whole or not at all,
and an S3 read returns the listed object's bytes or raises.
"""
