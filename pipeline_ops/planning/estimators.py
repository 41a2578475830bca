"""A sample of the input -> how many documents, characters and tokens all of it holds, and how sure that is.

Totals are ratio estimates: what was found per byte, times the bytes that are left. Their errors come from how the draws differ
(Cochran, Sampling Techniques, chapters 6 and 9A). What has been read whole is counted. drawing.py makes samples.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np
import pyarrow as pa

from pipeline_ops.tokenizing.batching import make_batches
from pipeline_ops.tokenizing.encoding import Encodings
from pipeline_ops.writing.unit_files import parquet_bytes

CONFIDENCE = 0.95

Measures = dict[str, float]


@dataclass(frozen=True)
class Estimate:
    """A number of the whole input, and how sure it is."""

    value: float
    error: float = 0.0  # standard error; 0: counted, not estimated
    degrees: int = 0  # of freedom

    @property
    def interval(self) -> tuple[float, float]:
        """That holds the true number in CONFIDENCE of all samples."""
        reach = t_quantile((1 + CONFIDENCE) / 2, self.degrees) * self.error if self.error else 0.0
        return max(self.value - reach, 0.0), self.value + reach


@dataclass
class Stratum:
    """Files of one kind, and what was drawn of them."""

    size: float  # stored bytes of all of them
    draws: list[tuple[Measures, float, float]] = field(default_factory=list)  # found, in so many stored bytes, of so many meant
    counted: Measures | None = None  # all of it has been read

    def residuals(self, name: str) -> tuple[float, np.ndarray]:
        """(the total, of each draw what it would change of it: their variance over their number is the total's)."""
        found = np.array([measures.get(name, 0.0) / meant for measures, _, meant in self.draws])
        read = np.array([stored / meant for _, stored, meant in self.draws])
        ratio = float(found.sum() / max(read.sum(), 1e-12))
        return self.size * ratio, self.size * (found - ratio * read) / max(read.mean(), 1e-12)


@dataclass(frozen=True)
class Sample:
    """What was read, and what follows of the rest."""

    strata: tuple[Stratum, ...]
    documents: int  # that were read
    files: int
    tables: tuple[pa.Table, ...]  # of the columns that the output keeps
    lengths: tuple[np.ndarray, ...]  # of the sequences (documents, or windows), by reading (models.tokenization_ids)
    unreadable: tuple[str, ...]  # what could not be read of it
    row_groups_per_byte: float  # of the Parquet files
    seconds: float

    @property
    def exact(self) -> bool:
        return not self.unreadable and all(stratum.counted is not None for stratum in self.strata)

    def total(self, name: str) -> Estimate:
        """Of the whole input that is left.

        Args:
            name: documents, rejected, characters, text_bytes; truncated: documents, by one of the models; tokens: of all
                models together, special ones included; tokens_0, tokens_1, …: by reading (models.tokenization_ids).
        """
        return self._estimate(name, None, 0.0)

    def share(self, name: str, of: str) -> Estimate:
        """Of `of`, both as in total()."""
        whole = self.total(of).value
        if not whole:
            return Estimate(0.0)
        share = self.total(name).value / whole
        found = self._estimate(name, of, share)
        return Estimate(share, found.error / whole, found.degrees)

    def _estimate(self, name: str, other: str | None, factor: float) -> Estimate:
        value = variance = 0.0
        degrees = 0
        for stratum in self.strata:
            if stratum.counted is not None:
                value += stratum.counted.get(name, 0.0)
                continue
            if not stratum.draws:
                continue
            total, residuals = stratum.residuals(name)
            if other is not None:
                residuals = residuals - factor * stratum.residuals(other)[1]
            count = len(residuals)
            value += total
            variance += float(residuals @ residuals) / (count - 1) / count if count > 1 else total**2
            degrees += count - 1
        return Estimate(value, variance**0.5, max(degrees, 1))


def t_quantile(probability: float, degrees: int) -> float:
    """Student's t; to 1 % from 4 degrees of freedom on (Cornish and Fisher's expansion), below that too small."""
    z = NormalDist().inv_cdf(probability)
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    return z + first / max(degrees, 1) + second / max(degrees, 1) ** 2


def padding_share(lengths: np.ndarray, unit_documents: int, batch_tokens: int, max_width: int) -> float:
    """Of the tokens of batches that units of so many documents of these lengths would be cut into."""
    real = padded = 0
    for start in range(0, len(lengths), max(unit_documents, 1)):
        unit = lengths[start : start + max(unit_documents, 1)]
        none = np.zeros(0, bool)
        batches = make_batches(
            Encodings(np.zeros(int(unit.sum()), np.int32), None, unit, none),
            batch_tokens=batch_tokens,
            pad_id=0,
            max_width=max_width,
        )
        real, padded = real + int(unit.sum()), padded + len(batches.ids)
    return 1 - real / padded if padded else 0.0


def compressed_bytes(tables: Sequence[pa.Table]) -> int:
    """What the tables are as files of the output; tables of one schema as one."""
    alike: dict[str, list[pa.Table]] = defaultdict(list)
    for table in tables:
        alike[table.schema.to_string()].append(table)
    return sum(parquet_bytes(pa.concat_tables(several)).size for several in alike.values())
