"""From reviewed documents to the accuracy of a corpus: one estimate per sample, by its strata. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pipeline_ops.reviewing.corrections import Correction, Source
from pipeline_ops.reviewing.stratified import Estimate, StratumCount, estimate_accuracy
from pipeline_ops.schema.errors import UserError


@dataclass(frozen=True)
class SampleEstimate:
    """What a sample says about the documents that it was drawn from."""

    sample: str
    strata: list[StratumCount]
    not_reviewed: dict[str, int]  # by stratum: documents of the sample that were skipped, or are no longer labeled
    estimate: Estimate  # of the documents of `strata`
    documents: int  # of these strata
    of_documents: int | None  # labeled documents of the output that the sample was drawn from

    @property
    def is_of_corpus(self) -> bool:
        """Whether the strata have all documents: none was left out of the sample, and each has a reviewed one."""
        return self.documents == self.of_documents

    @property
    def reviewed(self) -> int:
        return sum(stratum.reviewed for stratum in self.strata)

    @property
    def corpus_bounds(self) -> tuple[float, float]:
        """The interval for all documents: where strata are missing, from all of theirs wrong to all of theirs right."""
        share = 1.0 if self.of_documents is None else min(self.documents / self.of_documents, 1.0)
        return share * self.estimate.low, share * self.estimate.high + 1 - share


def estimates_of(corrections: Iterable[Correction], is_right: Mapping[Source, bool], key: str) -> list[SampleEstimate]:
    """The estimates, those of a whole corpus first, then those with most reviewed documents.

    Samples overlap, so that they are not pooled. The strata are those of the output that was reviewed, by its labels and
    scores. For another output over the same input the sample is still drawn at random from the same documents, and its strata
    are still a partition of them: its estimate is as valid, if its model was not trained on the sample. Documents that are no
    longer labeled count as documents that were not reviewed.

    Args:
        corrections: all of them; a document may be in several samples.
        is_right: {source: whether its label is right}, of the reviewed documents that are labeled.
        key: the option that names the corrections, for messages.

    Raises:
        UserError: the sizes of a stratum contradict each other.
    """
    sources: dict[tuple[str, str], set[Source]] = defaultdict(set)
    facts: dict[tuple[str, str], Correction] = {}
    for one in corrections:
        if one.stratum is None or one.source is None or one.source not in is_right:
            continue
        place = one.stratum.sample, one.stratum.name
        first = facts.setdefault(place, one)
        if first.stratum != one.stratum:
            raise UserError(
                f"{key}: {one.place}: stratum {place[1]!r} has {one.stratum.documents:,} documents here, and other sizes in"
                f" {first.place}; leave these columns as they were exported"
            )
        sources[place].add(one.source)
    by_sample: dict[str, list[tuple[Correction, StratumCount]]] = defaultdict(list)
    for (sample, name), reviewed in sources.items():
        first = facts[sample, name]
        assert first.stratum is not None
        if len(reviewed) > first.stratum.documents:
            raise UserError(
                f"{key}: {first.place}: stratum {name!r} has {first.stratum.documents:,} documents, but {len(reviewed):,} of"
                " them are reviewed; leave these columns as they were exported"
            )
        counts = StratumCount(name, first.stratum.documents, len(reviewed), sum(is_right[source] for source in reviewed))
        by_sample[sample].append((first, counts))
    found = [_estimate(sample, strata) for sample, strata in by_sample.items()]
    return sorted(found, key=lambda one: (not one.is_of_corpus, -one.reviewed, one.sample))


def _estimate(sample: str, strata: list[tuple[Correction, StratumCount]]) -> SampleEstimate:
    counts = [count for _, count in strata]
    of_documents = [one.stratum.of_documents for one, _ in strata if one.stratum is not None and one.stratum.of_documents]
    sampled = {count.name: one.stratum.sampled for one, count in strata if one.stratum is not None}
    return SampleEstimate(
        sample=sample,
        strata=counts,
        not_reviewed={count.name: max(sampled[count.name] - count.reviewed, 0) for count in counts},
        estimate=estimate_accuracy(counts),
        documents=sum(count.documents for count in counts),
        of_documents=max(of_documents, default=None),
    )
