"""Finding what is at fault in work on many things at once: what fails is halved until the things at fault stand alone."""

from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

MAX_CONSECUTIVE_FAILURES = 256  # so many that fail one after the other, without one that does not, are not at fault themselves
ALL_FAILED_MIN = 16  # neither are so many, when they are all there are


def bisect_failures(
    work: Callable[[int, int], Result],
    count: int,
    is_fault: Callable[[BaseException], bool],
    *,
    may_all_fail: bool = False,
) -> tuple[list[tuple[int, int, Result]], dict[int, BaseException]]:
    """`work(start, stop)` over 0 to `count`, whole if it can be.

    Args:
        work: raises when one of the things from start to stop makes it.
        is_fault: whether an exception may be a thing's fault; any other one is raised at once.
        may_all_fail: that nothing but failures come says nothing.

    Returns:
        (start, stop and result of each part that worked, in order; the exception of each single thing that did not).

    Raises:
        BaseException: no item is at fault; or the first MAX_CONSECUTIVE_FAILURES items fail one by one, or all of at least
            ALL_FAILED_MIN, which is nobody's fault but that of `work`, unless `may_all_fail`.
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
        # outside the handler: what the frames of the exception hold, such as a batch on a GPU, is let go first
        middle = (start + stop) // 2
        attempt(start, middle)
        attempt(middle, stop)

    if count:
        attempt(0, count)
    if not done and len(failed) >= ALL_FAILED_MIN and not may_all_fail:
        raise failed[0]
    return done, failed
