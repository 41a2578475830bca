"""How large the units of a run are: of one size, and smaller ones at the end, so that the classifiers end together.

Guided self-scheduling (C. Polychronopoulos and D. Kuck, "Guided Self-Scheduling", IEEE Transactions on Computers C-36, 1987):
a unit is one of so many equal parts of what is left to read. Its size depends on the input and the settings alone, as a file
that is read again has to give the same units.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class UnitSizes:
    """Sizes in bytes of the input, decompressed.

    Attributes:
        largest: of any unit, about.
        smallest: below it, handing a unit over costs more than the wait at the end that it saves.
        parts: a unit is at most 1/parts of what is left to read. With as many parts as all classifiers hold units, in work and
            queued, no classifier ends up with more than its share. 0: all units are the largest.
    """

    largest: int
    smallest: int = 0
    parts: int = 0

    def at(self, left: float) -> int:
        """Bytes of the next unit, where so many are left."""
        if not self.parts:
            return self.largest
        return max(int(min(max(left / self.parts, self.smallest), self.largest)), 1)

    def shares(self, total: int, units: int) -> list[float]:
        """The share of the input that is read with each unit and those before it, about, from 0 to 1.

        Args:
            total: bytes of the input.
            units: how many it would be if all were the largest.
        """
        # one stream of bytes ends with a small rest; of several files each has its own, so their units are smaller
        largest = self.largest if -(-total // self.largest) == units else -(-total // max(units, 1))
        sizes, left, shares = replace(self, largest=largest), total, []
        while left > 0:
            left -= sizes.at(left)
            shares.append(1 - max(left, 0) / total)
        return shares

    def cut_rows(self, start: int, stop: int, row_bytes: float, behind: float) -> Iterator[tuple[int, int, int]]:
        """(start, stop, bytes of a unit) of the units that rows [start, stop), which fit into one of the largest, are cut into.

        Args:
            row_bytes: of a row, about.
            behind: bytes that are read after these rows.
        """
        while True:
            size = self.at((stop - start) * row_bytes + behind)
            rows = max(round(size / max(row_bytes, 1e-9)), 1)
            if size >= self.largest or 2 * (stop - start) <= 3 * rows:  # what would be left is too small for a unit
                yield start, stop, size
                return
            yield start, start + rows, size
            start += rows
