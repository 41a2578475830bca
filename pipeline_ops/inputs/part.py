"""Parts of an input: disjoint shares of its files, by a hash of their paths, for jobs that run side by side."""

import hashlib
import re
from collections.abc import Sequence
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline_ops.inputs.input_files import InputFile
from pipeline_ops.storage.paths import base_folder, join

NAME = re.compile(r"part-(\d{5})-of-(\d{5})")


class InputPart(BaseModel):
    """The files of the input that a job labels: those of one of several parts, which together are all of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int = Field(ge=0, description="of the part, from 0")
    of: int = Field(ge=1, le=99_999, description="how many parts there are")

    @model_validator(mode="after")
    def _is_one_of_them(self) -> Self:
        if self.number >= self.of:
            raise ValueError(f"number {self.number} of {self.of}: parts are counted from 0, so the last is {self.of - 1}")
        return self

    @property
    def name(self) -> str:
        """part-00003-of-00016: of its job file, and of its folder in the output of all parts."""
        return f"part-{self.number:05}-of-{self.of:05}"

    def __str__(self) -> str:
        return f"part {self.number} of {self.of}"


def part_named(name: str) -> InputPart | None:
    """The part with that name; None for any other name."""
    match = NAME.fullmatch(name)
    return None if match is None or int(match[1]) >= int(match[2]) else InputPart(number=int(match[1]), of=int(match[2]))


def path_hash(path: str, input_path: str) -> int:
    """64 bits of the SHA-256 of a file's path below the input: modulo the number of parts it is the number of the file's part.

    Args:
        path: full path of the file.
        input_path: input.path as a full path; of a glob what is before the first name with a wildcard counts.
    """
    below = path.removeprefix(join(base_folder(input_path), ""))
    return int.from_bytes(hashlib.sha256(below.encode(errors="surrogateescape")).digest()[:8], "big")


def part_of_file(path: str, input_path: str, count: int) -> InputPart:
    """The part, of `count`, that a file is in, whatever other files there are; arguments as path_hash."""
    return InputPart(number=path_hash(path, input_path) % count, of=count)


def files_of_part(files: Sequence[InputFile], part: InputPart | None, input_path: str) -> list[InputFile]:
    """The files of one part, all of them without one; arguments as path_hash."""
    if part is None:
        return list(files)
    return [file for file in files if path_hash(file.path, input_path) % part.of == part.number]
