"""Zip archives that hold one file."""

import zipfile
from typing import IO, BinaryIO

from pipeline_ops.schema.errors import UserError

MOST_NAMES = 3
ENCRYPTED = 1  # a bit of a member's flags


def member_names(source: BinaryIO) -> list[str]:
    """The names of the files in an archive, but for those that macOS adds; raises zipfile.BadZipFile for what is none."""
    return [member.filename for member in _members(zipfile.ZipFile(source))]


def member_of(archive: zipfile.ZipFile, path: str) -> zipfile.ZipInfo:
    """The only file in an archive, but for those that macOS adds.

    Raises:
        UserError: there are several, or none, or it is encrypted.
    """
    members = _members(archive)
    if len(members) != 1:
        names = ", ".join(member.filename for member in members[:MOST_NAMES])
        more = f" and {len(members) - MOST_NAMES:,} more" if len(members) > MOST_NAMES else ""
        holds = f"holds {len(members):,} files ({names}{more})" if members else "holds no file"
        raise UserError(f"input.path: {path} is a zip archive that {holds}, and one is read; unpack it")
    if members[0].flag_bits & ENCRYPTED:
        raise UserError(f"input.path: {path} is a zip archive with a password; unpack it")
    return members[0]


def open_member(source: BinaryIO, path: str) -> IO[bytes]:
    """The only file in an archive, as a stream that checks its length and CRC.

    Raises:
        UserError: as member_of.
        zipfile.BadZipFile, NotImplementedError: it is damaged, or compressed in a way that Python does not know.
    """
    archive = zipfile.ZipFile(source)
    return archive.open(member_of(archive, path))


def _members(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    return [member for member in archive.infolist() if not (member.is_dir() or _is_added(member.filename))]


def _is_added(name: str) -> bool:
    return name.startswith("__MACOSX/") or name.rsplit("/", 1)[-1] == ".DS_Store"
