"""Bisection finds the items at fault, keeps the results of the others in order, and blames the work if all items fail."""

import pytest

from pipeline_ops.schema.bisection import ALL_FAILED_MIN, MAX_CONSECUTIVE_FAILURES, bisect_failures


class BadItem(Exception):
    """What a bad thing makes the work raise."""


class Stopped(BaseException):
    """What is no thing's fault."""


def work_with(bad: set[int]):
    def work(start: int, stop: int) -> list[int]:
        found = sorted(bad & set(range(start, stop)))
        if found:
            raise BadItem(found[0])
        return list(range(start, stop))

    return work


def is_item_fault(error: BaseException) -> bool:
    return isinstance(error, BadItem)


@pytest.mark.parametrize("count", [1, 2, 7, 100])
def test_bisection_without_a_fault_works_once_on_everything(count: int) -> None:
    parts, failed = bisect_failures(work_with(set()), count, is_item_fault)
    assert (parts, failed) == ([(0, count, list(range(count)))], {})


def test_bisection_of_nothing_does_no_work() -> None:
    assert bisect_failures(work_with({0}), 0, is_item_fault) == ([], {})


@pytest.mark.parametrize("count", [2, 7, 64, 100])
@pytest.mark.parametrize("bad", [{0}, {1}, {0, 1}, {-1}, {0, -1}, {3, 4, 5, 40}])
def test_bisection_finds_each_thing_at_fault_and_gives_the_rest_in_order(count: int, bad: set[int]) -> None:
    bad = {index % count for index in bad}
    parts, failed = bisect_failures(work_with(bad), count, is_item_fault)
    assert failed.keys() == bad
    assert all(str(error) == str(index) for index, error in failed.items())
    assert all(result == list(range(start, stop)) for start, stop, result in parts)
    assert [index for _, _, result in parts for index in result] == sorted({*range(count)} - bad)


@pytest.mark.parametrize("error", [Stopped(), MemoryError()])
def test_bisection_raises_at_once_what_is_no_things_fault(error: BaseException) -> None:
    tried = []

    def work(start: int, stop: int) -> None:
        tried.append((start, stop))
        raise BadItem if stop - start > 4 else error

    with pytest.raises(type(error)):
        bisect_failures(work, 16, is_item_fault)
    assert tried == [(0, 16), (0, 8), (0, 4)]


def test_bisection_with_everything_at_fault_gives_few_things_up_and_suspects_many() -> None:
    few = ALL_FAILED_MIN - 1
    parts, failed = bisect_failures(work_with({*range(few)}), few, is_item_fault)
    assert (parts, list(failed)) == ([], list(range(few)))
    with pytest.raises(BadItem, match="0"):
        bisect_failures(work_with({*range(ALL_FAILED_MIN)}), ALL_FAILED_MIN, is_item_fault)


def test_bisection_with_one_good_thing_among_many_bad_ones_suspects_nothing() -> None:
    parts, failed = bisect_failures(work_with({*range(ALL_FAILED_MIN)}), ALL_FAILED_MIN + 1, is_item_fault)
    assert [result for _, _, result in parts] == [[ALL_FAILED_MIN]]
    assert len(failed) == ALL_FAILED_MIN


@pytest.mark.parametrize("good", [0, MAX_CONSECUTIVE_FAILURES])
def test_bisection_stops_when_the_first_hopeless_many_all_fail(good: int) -> None:
    """What may come behind them is not tried; once something has worked, any number may fail."""
    count = 4 * MAX_CONSECUTIVE_FAILURES
    tried: set[int] = set()

    def work(start: int, stop: int) -> None:
        tried.update([start] if stop - start == 1 else [])
        if any(index != good for index in range(start, stop)):
            raise BadItem

    if good == 0:
        assert len(bisect_failures(work, count, is_item_fault)[1]) == count - 1
        return
    with pytest.raises(BadItem):
        bisect_failures(work, count, is_item_fault)
    assert tried == {*range(MAX_CONSECUTIVE_FAILURES)}


def test_bisection_of_what_may_all_fail_gives_every_failure() -> None:
    parts, failed = bisect_failures(
        work_with({*range(2 * MAX_CONSECUTIVE_FAILURES)}), 2 * MAX_CONSECUTIVE_FAILURES, is_item_fault, may_all_fail=True
    )
    assert (parts, len(failed)) == ([], 2 * MAX_CONSECUTIVE_FAILURES)


def test_bisection_keeps_no_exception_of_larger_parts() -> None:
    """Their frames hold what the work was at, such as a batch on a GPU."""
    _, failed = bisect_failures(work_with({5}), 64, is_item_fault)
    assert failed[5].__context__ is None
