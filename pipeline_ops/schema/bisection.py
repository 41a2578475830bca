"""Isolating the items that make work on many items fail, by bisection."""

from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

# With so many failures and no success, the work is taken to be at fault, not the items.
MAX_CONSECUTIVE_FAILURES = 256  # from the first item on
ALL_FAILED_MIN = 16  # where these are all items there are


def bisect_failures(
    work: Callable[[int, int], Result],
    count: int,
    is_fault: Callable[[BaseException], bool],
    *,
    may_all_fail: bool = False,
) -> tuple[list[tuple[int, int, Result]], dict[int, BaseException]]:
    """Run `work` over range(count); on an exception bisect until the failing items are isolated.

    Without failures `work` is called once, with (0, count).

    Args:
        work: takes start and stop (exclusive), and raises when one of these items makes it fail.
        is_fault: True for an exception that an item may have caused; any other one is raised at once.
        may_all_fail: accept that every item fails.

    Returns:
        ((start, stop, result) of each range that succeeded, in order; {index: exception} of the items that failed).

    Raises:
        BaseException: what `work` raised, if `is_fault` is False for it; or, unless `may_all_fail`, if the first
            MAX_CONSECUTIVE_FAILURES items fail, or all of at least ALL_FAILED_MIN: then `work` is at fault.
    """
    done: list[tuple[int, int, Result]] = []
    failed: dict[int, BaseException] = {}

    def attempt(start: int, stop: int) -> None:
        try:
            done.append((start, stop, work(start, stop)))
            return
        except BaseException as error:
            if not is_fault(error):
                raise
            if stop - start == 1:
                failed[start] = error
                if not done and len(failed) >= MAX_CONSECUTIVE_FAILURES and not may_all_fail:
                    raise
                return
        # outside the handler, so that what the exception's frames hold, such as a batch on a GPU, is freed first
        middle = (start + stop) // 2
        attempt(start, middle)
        attempt(middle, stop)

    if count:
        attempt(0, count)
    if not done and len(failed) >= ALL_FAILED_MIN and not may_all_fail:
        raise failed[0]
    return done, failed
