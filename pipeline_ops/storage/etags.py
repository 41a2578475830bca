"""What identifies the content of a listed object; S3 etags as MD5 checksums of an object's bytes.

Source: Amazon S3 API reference, Object, ETag; of a multipart upload it is the MD5 of the parts' MD5s and their number.
"""

import hashlib
import re
from typing import Any

MD5_ETAG = re.compile(r"[0-9a-f]{32}")
PART_BYTES = 50 * 2**20  # of a multipart upload, for objects of over two parts


def identity_of(info: dict[str, Any]) -> str:
    """What changes whenever a file's content does, of its entry in a listing of fsspec's: a checksum, or size and time."""
    if info.get("lfs"):  # of the hub: without it the hash of a pointer, which is no checksum of the content
        return info["lfs"].sha256
    for key in ("ETag", "etag", "md5Hash", "crc32c", "blob_id"):
        if info.get(key):
            return str(info[key]).strip('"')
    for key in ("mtime", "LastModified", "last_modified", "updated", "created"):
        if info.get(key) is not None:
            return f"{info['size']}@{info[key]}"
    return str(info["size"])


def has_right_bytes(data: bytes, size: int, etag: str) -> bool:
    """Whether `data` has the size and MD5 of the listed object; True for other than MD5 etags, which cannot be checked."""
    return len(data) == size and (not MD5_ETAG.fullmatch(etag) or _md5(data) == etag)


def sent_etag(data: bytes) -> str:
    """The etag that S3 gives an object of these bytes without SSE-C or SSE-KMS."""
    if len(data) < 2 * PART_BYTES:
        return _md5(data)
    sums = [hashlib.md5(data[start : start + PART_BYTES], usedforsecurity=False) for start in range(0, len(data), PART_BYTES)]
    return f"{_md5(b''.join(part.digest() for part in sums))}-{len(sums)}"


def _md5(data: Any) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
