"""Files and objects at a path: local disk, S3 and what fsspec's plug-ins reach. No other package uses fsspec or s3fs.

In: a Store, which is a path and a StorageConfig. Out: bytes, and listings with the identity of each object. Guarantee: an
object is written whole or not at all, and an S3 read returns the listed object's bytes or raises.
"""
