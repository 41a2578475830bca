"""What the layers between the bytes of a file and its records read from, and how one of them ends too early."""

from typing import Protocol


class BrokenStream(OSError):
    """The stream cannot be read on for what its bytes are, at each attempt in the same place: all before it may be used."""


class Readable(Protocol):
    """A stream that is read from front to back."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; b"" at the end."""
        ...
