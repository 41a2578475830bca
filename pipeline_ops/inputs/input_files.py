"""InputFile, a listed file and how to read it; reading a sample of files of which some are broken."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from pipeline_ops.schema.errors import UserError, is_store_fault, one_line
from pipeline_ops.schema.units import Range
from pipeline_ops.storage.store import StoredFile
from pipeline_ops.tables.input_table import InputTable

MAX_OPENED_FILES = 100  # per format, until one can be read: a corpus without read permission is reported within seconds
SHOWN_UNREADABLE = 3  # files that a remark names

Content = TypeVar("Content")


class UnreadableInput(UserError):
    """None of the files of a format can be read."""


@dataclass(frozen=True)
class InputFile:
    """A listed input file and how to read it."""

    stored: StoredFile
    format: str  # a value of input.format, auto excepted
    compression: str | None
    stop_row: int | None = None  # exclusive: of a trial's last file only the first rows are labeled; None: all
    stop_byte: int | None = None  # where that row begins in the decompressed stream of a line format
    # (name, value) of columns with one value in all of its rows that have none of their own, the same names in all files of an
    # input: of hive folders, or of a table's partitions as text
    columns: tuple[tuple[str, str | None], ...] = ()
    field_names: tuple[tuple[int, str], ...] = ()  # (field id, name) of the columns, where those in the file are outdated
    table: InputTable | None = field(default=None, compare=False)  # that it is part of; its readers do without

    @property
    def path(self) -> str:
        return self.stored.path

    @property
    def rows(self) -> Range:
        """The rows that are to be labeled."""
        return Range(0, self.stop_row, 0, self.stop_byte)

    def without_columns(self, kept: Sequence[str]) -> "InputFile":
        """As it is read for outputs that lack the columns of folders and partitions.

        Args:
            kept: names of columns that stay.
        """
        return replace(self, columns=tuple((name, value) for name, value in self.columns if name in kept))


def evenly_spread(files: Sequence[InputFile], count: int) -> list[InputFile]:
    """At most `count` of the files at even distances, beginning with the first."""
    step = max(len(files) / count, 1)
    return [files[int(index * step)] for index in range(min(count, len(files)))]


def readable_files(
    files: Sequence[InputFile], read: Callable[[InputFile], Content], unreadable: dict[str, str] | None = None
) -> Iterator[tuple[InputFile, Content]]:
    """(file, what `read` returns) of each file that can be read; the others are skipped here and fail when the run reads them.

    Args:
        unreadable: gets {path: the error's message} of the others.

    Raises:
        UnreadableInput: no file can be read; the message is that of the first.
        Exception: the object store is at fault, not the file.
    """
    broken: list[str] = []
    for file in files:
        try:
            content = read(file)
        except Exception as error:  # a broken file can make the parsers raise anything
            if is_store_fault(error):
                raise
            reason = f"{type(error).__name__}: {one_line(error)}"
            broken.append(str(error) if isinstance(error, UserError) else f"input.path: {file.path} cannot be read: {reason}")
            if unreadable is not None:
                unreadable[file.path] = broken[-1]
        else:
            yield file, content
    if broken and len(broken) == len(files):
        others = len(files) - 1
        raise UnreadableInput(
            broken[0] + (f"; nor can {others} other{'' if others == 1 else 's'} of this format be read" if others else "")
        )


def unreadable_notes(unreadable: Mapping[str, str]) -> list[str]:
    """A sentence about files that readable_files() skipped, with the reasons; [] without any."""
    if not unreadable:
        return []
    reasons = [message.removeprefix("input.path: ") for message in unreadable.values()]
    more = f"; and {len(reasons) - SHOWN_UNREADABLE} more" if len(reasons) > SHOWN_UNREADABLE else ""
    return [f"cannot be read, and will be quarantined: {'; '.join(reasons[:SHOWN_UNREADABLE])}{more}"]
