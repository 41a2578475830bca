"""Halving finds what is at fault, keeps the rest in order, and tells things that are broken from work that is."""

import pytest

from pipeline_ops.schema.bisection import ALL_FAILED_MIN, MAX_CONSECUTIVE_FAILURES, bisect_failures


class Poison(Exception):
    """What a bad thing makes the work raise."""


class Stopped(BaseException):
    """What is no thing's fault."""


def work_with(bad: set[int]):
    def work(start: int, stop: int) -> list[int]:
        found = sorted(bad & set(range(start, stop)))
        if found:
            raise Poison(found[0])
        return list(range(start, stop))

    return work


def is_poison(error: BaseException) -> bool:
    return isinstance(error, Poison)


@pytest.mark.parametrize("count", [1, 2, 7, 100])
def test_halve_without_a_fault_works_once_on_everything(count: int) -> None:
    parts, failed = bisect_failures(work_with(set()), count, is_poison)
    assert (parts, failed) == ([(0, count, list(range(count)))], {})


def test_halve_of_nothing_does_no_work() -> None:
    assert bisect_failures(work_with({0}), 0, is_poison) == ([], {})


@pytest.mark.parametrize("count", [2, 7, 64, 100])
@pytest.mark.parametrize("bad", [{0}, {1}, {0, 1}, {-1}, {0, -1}, {3, 4, 5, 40}])
def test_halve_finds_each_thing_at_fault_and_gives_the_rest_in_order(count: int, bad: set[int]) -> None:
    bad = {index % count for index in bad}
    parts, failed = bisect_failures(work_with(bad), count, is_poison)
    assert failed.keys() == bad
    assert all(str(error) == str(index) for index, error in failed.items())
    assert all(result == list(range(start, stop)) for start, stop, result in parts)
    assert [index for _, _, result in parts for index in result] == sorted({*range(count)} - bad)


@pytest.mark.parametrize("error", [Stopped(), MemoryError()])
def test_halve_raises_at_once_what_is_no_things_fault(error: BaseException) -> None:
    tried = []

    def work(start: int, stop: int) -> None:
        tried.append((start, stop))
        raise Poison if stop - start > 4 else error

    with pytest.raises(type(error)):
        bisect_failures(work, 16, is_poison)
    assert tried == [(0, 16), (0, 8), (0, 4)]


def test_halve_with_everything_at_fault_gives_few_things_up_and_suspects_many() -> None:
    few = ALL_FAILED_MIN - 1
    parts, failed = bisect_failures(work_with({*range(few)}), few, is_poison)
    assert (parts, list(failed)) == ([], list(range(few)))
    with pytest.raises(Poison, match="0"):
        bisect_failures(work_with({*range(ALL_FAILED_MIN)}), ALL_FAILED_MIN, is_poison)


def test_halve_with_one_good_thing_among_many_bad_ones_suspects_nothing() -> None:
    parts, failed = bisect_failures(work_with({*range(ALL_FAILED_MIN)}), ALL_FAILED_MIN + 1, is_poison)
    assert [result for _, _, result in parts] == [[ALL_FAILED_MIN]]
    assert len(failed) == ALL_FAILED_MIN


@pytest.mark.parametrize("good", [0, MAX_CONSECUTIVE_FAILURES])
def test_halve_stops_when_the_first_hopeless_many_all_fail(good: int) -> None:
    """What may come behind them is not tried; once something has worked, any number may fail."""
    count = 4 * MAX_CONSECUTIVE_FAILURES
    tried: set[int] = set()

    def work(start: int, stop: int) -> None:
        tried.update([start] if stop - start == 1 else [])
        if any(index != good for index in range(start, stop)):
            raise Poison

    if good == 0:
        assert len(bisect_failures(work, count, is_poison)[1]) == count - 1
        return
    with pytest.raises(Poison):
        bisect_failures(work, count, is_poison)
    assert tried == {*range(MAX_CONSECUTIVE_FAILURES)}


def test_halve_of_what_may_all_fail_gives_every_failure() -> None:
    parts, failed = bisect_failures(
        work_with({*range(2 * MAX_CONSECUTIVE_FAILURES)}), 2 * MAX_CONSECUTIVE_FAILURES, is_poison, may_all_fail=True
    )
    assert (parts, len(failed)) == ([], 2 * MAX_CONSECUTIVE_FAILURES)


def test_halve_keeps_no_exception_of_larger_parts() -> None:
    """Their frames hold what the work was at, such as a batch on a GPU."""
    _, failed = bisect_failures(work_with({5}), 64, is_poison)
    assert failed[5].__context__ is None
