"""What a file is by its first bytes, where its name says something else."""

import codecs
import re

from pipeline_ops.inputs.file_formats import FORMATS
from pipeline_ops.inputs.input_files import InputFile
from pipeline_ops.schema.errors import UserError
from pipeline_ops.storage.store import Store

LFS_POINTER = b"version https://git-lfs.github.com/spec/v1"
MAX_POINTER_BYTES = 512  # real ones have 130; the smallest Parquet files have more

# files that are no text: (first bytes, what they are, their suffix)
SIGNATURES = (
    (b"\x89PNG\r\n", "a PNG image", ".png"),
    (b"\xff\xd8\xff", "a JPEG image", ".jpg"),
    (b"II*\0", "a TIFF image", ".tif"),
    (b"MM\0*", "a TIFF image", ".tif"),
    (b"Obj\x01", "Avro", ".avro"),
    (b"ARROW1\0\0", "Arrow IPC (Feather)", ".arrow"),
    (b"SQLite format 3\0", "a SQLite database", ".sqlite"),
    (b"\x93NUMPY", "a NumPy array", ".npy"),
    (b"\x89HDF\r\n", "HDF5", ".h5"),
    (b"\x7fELF", "a program", ""),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Office document", ".doc"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", ".7z"),
    (b"Rar!\x1a\x07", "a RAR archive", ".rar"),
    (b"\x1f\x9d", "compressed by `compress`", ".Z"),
    (b"\x02\x21\x4c\x18", "compressed by an early lz4", ".lz4"),
    (b"\x1f\x8b\x08", "compressed twice", ".gz"),
    (b"\x28\xb5\x2f\xfd", "compressed twice", ".zst"),
    (b"\xfd7zXZ\0", "compressed twice", ".xz"),
    (b"PK\x03\x04", "a zip archive within a compressed file", ".zip"),
)
# the same, but a text may begin with these letters: bytes that are in no text have to follow
LETTERS = (
    (b"PAR1", "Parquet", ".parquet"),
    (b"ORC", "ORC", ".orc"),
    (b"GIF8", "a GIF image", ".gif"),
    (b"RIFF", "RIFF", ""),
    (b"%PDF-", "a PDF", ".pdf"),
)
# of a file of records; plain text may be a page, each line of which is a document
PAGES = ((b"<!doctype html", "HTML"), (b"<html", "HTML"), (b"<?xml", "XML"), (b"<!doctype", "XML"))
PDF_OBJECT = re.compile(rb"\A%PDF-\d\.\d\s(?s:.*)^\d+ \d+ obj\b", re.MULTILINE)  # a PDF may have no other bytes than text
TAR_PLACE, TARS = 257, (b"ustar\0", b"ustar  \0")
NOT_IN_TEXT = bytes(set(range(9)) | set(range(14, 27)) | {28, 29, 30, 31})  # control characters but white space and escape


def check_no_pointer(head: bytes, path: str) -> None:
    """Raises UserError for a pointer that Git LFS leaves in place of a file, of any format."""
    if len(head) <= MAX_POINTER_BYTES and head.startswith(LFS_POINTER):
        raise UserError(f"input.path: {path} is a Git LFS pointer, not the file itself; fetch the files by `git lfs pull`")


def check_no_pointer_file(file: InputFile, store: Store, content: bytes | None = None) -> None:
    """check_no_pointer() of a file whose format has a parser of its own, which could only say that it is none of that format.

    Args:
        content: of the file, where it has been fetched already.
    """
    if file.stored.size <= MAX_POINTER_BYTES:
        check_no_pointer(store.read_files([file.stored])[0] if content is None else content, file.path)


def check_no_other_format(head: bytes, file_format: str, path: str) -> None:
    """Raises UserError for a file of a line format that begins as one of another kind does.

    Args:
        head: the first decompressed bytes.
    """
    begins = head[:MAX_POINTER_BYTES].removeprefix(codecs.BOM_UTF8).lstrip().lower()
    page = next((what for mark, what in PAGES if begins.startswith(mark)), None)
    if page is not None and file_format in ("jsonl", "csv"):
        name = {"jsonl": "JSON Lines", "csv": "CSV"}[file_format]
        raise UserError(f"input.path: {path} is {page} by its first bytes, not {name}; leave it out, or fetch it again")
    found = next((found for found in (*SIGNATURES, *LETTERS) if head.startswith(found[0])), None)
    if found in LETTERS and not any(byte in NOT_IN_TEXT for byte in head) and not PDF_OBJECT.match(head):
        found = None
    if found is None and head.startswith(TARS, TAR_PLACE):
        found = (TARS[0], "a tar archive", ".tar")
    if found is None:
        return
    _, what, suffix = found
    remedy = "unpack it" if "archive" in what or "compressed" in what else "leave it out"
    remedy = f"rename it to end in {suffix}" if suffix in FORMATS else remedy
    raise UserError(f"input.path: {path} is {what} by its first bytes, not {file_format}; {remedy}")
