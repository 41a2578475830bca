"""Cases of a parametrization of which the quick tests run only some."""

from collections.abc import Iterable
from typing import Any

import pytest


def mostly_slow(cases: Iterable[Any], quick: Iterable[Any]) -> list[Any]:
    """The cases in their order; those that are not `quick` have the marker `slow`."""
    chosen = list(quick)
    return [case if case in chosen else pytest.param(*_values(case), marks=pytest.mark.slow) for case in cases]


def _values(case: Any) -> tuple[Any, ...]:
    """Of the parameters, which are several where a case is a tuple."""
    return case if isinstance(case, tuple) else (case,)
