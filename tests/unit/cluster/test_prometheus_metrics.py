"""Stages with their metrics are the stages, in this process and in those that they are sent to."""

from collections.abc import Iterator
from pickle import loads

import pytest
from ray.cloudpickle import dumps  # pyright: ignore[reportPrivateImportUsage]

from cluster.attempts import AttemptCounts
from cluster.prometheus_metrics import DECLARED, UNITS, Meter, metered, metered_actor

METER = Meter("run", "output")


def units_of(row: int, *, more: int) -> Iterator[int]:
    yield from range(row, row + more)


def double(row: int, *, factor: int) -> int:
    return row * factor


class Adder:
    """Stands for an actor of a stage."""

    def __init__(self, start: int):
        self.total = start

    def __call__(self, row: int) -> int:
        self.total += row
        return self.total


def is_odd(row: int) -> bool:
    return row % 2 == 1


def test_metered_functions_do_and_are_called_what_they_were() -> None:
    reading, doubling = metered("read", units_of, METER, is_odd), metered("write", double, METER, is_odd)
    assert (reading.__name__, doubling.__name__) == ("units_of", "double"), "Ray names processes after them"
    for read, written in ((reading, doubling), loads(dumps((reading, doubling)))):
        assert list(read(3, more=4)) == [3, 4, 5, 6]
        assert written(3, factor=2) == 6


def test_metered_reader_is_read_no_faster_than_its_rows_are_taken() -> None:
    taken = []

    def endless(row: int) -> Iterator[int]:
        while True:
            taken.append(row)
            yield row

    rows = metered("read", endless, METER, is_odd)(1)
    next(rows)
    next(rows)
    assert len(taken) == 2


def test_metered_actor_is_the_actor_under_its_name() -> None:
    actor = metered_actor("classify", Adder, METER, is_odd)
    assert (actor.__name__, issubclass(actor, Adder)) == ("Adder", True), "Ray names processes after it"
    for made in (actor, loads(dumps(actor))):
        adder = made(start=10)
        assert [adder(1), adder(2)] == [11, 13]


def test_exception_of_a_metered_stage_is_the_stages_own() -> None:
    def failing(row: int) -> int:
        raise LookupError("of the stage")

    with pytest.raises(LookupError, match="of the stage"):
        metered("write", failing, METER, is_odd)(1)


def test_counting_without_a_ray_does_nothing() -> None:
    METER.count(UNITS)
    METER.worked("read", 1.0)
    METER.waited("classify", 1.0)
    counts = AttemptCounts(METER)
    assert [counts.begin("classify a"), counts.begin("classify a")] == [0, 1]


def test_declared_metrics_have_names_of_their_own_and_prometheus_suffixes() -> None:
    names = [name for metric in DECLARED for name in metric.exported()]
    assert len(set(names)) == len(names)
    for metric in DECLARED:
        assert metric.name.startswith("label_corpus_")
        assert metric.name.endswith("_total") == (metric.boundaries is None)
        assert sorted(metric.boundaries or ()) == list(metric.boundaries or ())
