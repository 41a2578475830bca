"""Names, dtypes and shapes of a model's tensors, from the headers of its safetensors files.

Source: https://github.com/huggingface/safetensors#format: the header's size, a little-endian uint64; the header, a JSON object
{name: {dtype, shape, data_offsets}}; the numbers. The end of the last tensor is the end of the file.
"""

import json
import struct
from typing import NamedTuple

from pipeline_ops.storage.store import Store, StoredFile

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
FIRST_BYTES = 64 * 2**10
MAX_HEADER_BYTES = 100_000_000  # safetensors' own limit
POINTER = b"version https://git-lfs"
AGAIN = "copy or download it again"


class Tensor(NamedTuple):
    """A tensor as its file describes it."""

    dtype: str  # F32, BF16, I8, ...
    shape: tuple[int, ...]
    path: str  # of the file
    begin: int  # of its bytes in the file
    end: int


class DamagedFile(ValueError):
    """What is wrong with a file of a model: a sentence with its name, value and remedy, without the folder."""


def read_tensors(store: Store) -> dict[str, Tensor] | None:
    """The tensors of a folder, from the files that from_pretrained would choose; None: it has no safetensors of that name.

    Raises:
        DamagedFile: a file is missing, cut or something else.
    """
    try:
        return read_header(store, store.stat(WEIGHTS))
    except FileNotFoundError:
        pass
    try:
        index = store.read(INDEX)
    except FileNotFoundError:
        return None
    tensors: dict[str, Tensor] = {}
    shards = _shards(index)
    for shard in shards:
        try:
            file = store.stat(shard)
        except FileNotFoundError:
            raise DamagedFile(
                f"{shard} is missing, of the {len(shards)} files of weights that {INDEX} names; {AGAIN}"
            ) from None
        tensors |= read_header(store, file)
    return tensors


def _shards(index: bytes) -> list[str]:
    try:
        return sorted(set(json.loads(index)["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DamagedFile(f"{INDEX} {_other_content(index) or 'names no weights'}; {AGAIN}") from None


def read_header(store: Store, file: StoredFile) -> dict[str, Tensor]:
    """The tensors of one safetensors file; raises DamagedFile."""
    name = store.relative(file.path)
    with store.open(file, sequential=False) as source:
        start = source.read(FIRST_BYTES)  # of most models the whole header, by one request
        size = struct.unpack("<Q", start[:8])[0] if len(start) >= 8 else 0
        header = start[8 : 8 + size] if size <= MAX_HEADER_BYTES else b""
        if len(header) < size <= MAX_HEADER_BYTES:
            header += source.read(size - len(header))
    if not 0 < size <= MAX_HEADER_BYTES:
        raise DamagedFile(f"{name} {_other_content(start) or 'is not a safetensors file'}; {AGAIN}")
    if len(header) < size:
        raise DamagedFile(f"{name} is cut: {file.size:,} bytes, and its header alone has {size:,}; {AGAIN}")
    try:
        described = {key: value for key, value in json.loads(header).items() if key != "__metadata__"}
        tensors = {
            key: Tensor(
                value["dtype"], tuple(value["shape"]), file.path, *(8 + size + offset for offset in value["data_offsets"])
            )
            for key, value in described.items()
        }
        end = max((tensor.end for tensor in tensors.values()), default=8 + size)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DamagedFile(f"{name} is not a safetensors file; {AGAIN}") from None
    if file.size != end:
        kind = "is cut" if file.size < end else "has more bytes than its tensors"
        raise DamagedFile(f"{name} {kind}: {file.size:,} bytes of {end:,}; {AGAIN}")
    return tensors


def _other_content(start: bytes) -> str | None:
    """What a file is that begins so, in place of weights; None: not known."""
    if not start:
        return "is empty"
    if start.startswith(POINTER):
        return "is a Git LFS pointer"
    if start.lstrip()[:1] == b"<":
        return "is a web page"
    if start.startswith((b"PK\x03\x04", b"\x80")):
        return "is a file of torch.save"
    return None
