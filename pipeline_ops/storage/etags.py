"""What an etag of S3 says of an object's bytes."""

import hashlib
import re
from typing import Any

MD5_ETAG = re.compile(r"[0-9a-f]{32}")
PART_BYTES = 50 * 2**20  # of a multipart upload, for objects of over two parts


def has_right_bytes(data: bytes, size: int, etag: str) -> bool:
    """Whether `data` is the object that was listed with this size and etag; etags of multipart uploads say nothing."""
    return len(data) == size and (not MD5_ETAG.fullmatch(etag) or _md5(data) == etag)


def sent_etag(data: bytes) -> str:
    """The etag that S3 gives `data` when it arrives whole, without SSE-C or SSE-KMS."""
    if len(data) < 2 * PART_BYTES:
        return _md5(data)
    sums = [hashlib.md5(data[start : start + PART_BYTES], usedforsecurity=False) for start in range(0, len(data), PART_BYTES)]
    return f"{_md5(b''.join(part.digest() for part in sums))}-{len(sums)}"


def _md5(data: Any) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
