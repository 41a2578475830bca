"""Rates, medians and ratios of a benchmark."""

import pytest

from jobs.benchmark.report import medians_and_ratios, of_run, rounded, steady_rate


def ends(workers: int, steps_each: int, seconds: float, phase: float) -> list[float]:
    """When the steps of workers end that take `seconds` per step and begin `phase` seconds one after the other."""
    return sorted(worker * phase + seconds * (step + 1) for worker in range(workers) for step in range(steps_each))


def test_one_worker_with_a_slow_start_is_counted_from_when_it_runs() -> None:
    stamps = [50.0, *[50.0 + 2.0 * step for step in range(1, 16)]]
    assert steady_rate(160, stamps, 1) == pytest.approx(10 / 2.0)


@pytest.mark.parametrize("workers", [1, 2, 3, 8])
@pytest.mark.parametrize("phase", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_rate_is_never_too_high_and_nearly_right(workers: int, phase: float) -> None:
    """Each worker does 10 documents in 4 s, however the workers' steps fall between each other."""
    steps = 64
    rate = steady_rate(10 * workers * steps, ends(workers, steps, 4.0, phase * 4.0 / workers), workers)
    assert rate is not None
    true_rate = workers * 10 / 4.0
    assert rate <= true_rate * 1.0001
    assert rate >= true_rate * (1 - 2 / steps - 1 / steps)


def test_late_worker_and_a_long_last_step_make_the_rate_lower() -> None:
    even = ends(2, 16, 1.0, 0.0)
    late = sorted([*even[:-1], even[-1] + 5.0])
    rates = [steady_rate(320, stamps, 2) for stamps in (even, late)]
    assert rates[0] is not None
    assert rates[1] is not None
    assert rates[1] < rates[0] <= 20


@pytest.mark.parametrize(("stamps", "workers"), [([1.0], 1), ([1.0, 2.0, 3.0], 3), ([1.0, 2.0, 3.0, 4.0], 3), ([], 1)])
def test_too_few_steps_have_no_steady_state(stamps: list[float], workers: int) -> None:
    assert steady_rate(100, stamps, workers) is None


def test_whole_process_is_all_documents_over_all_seconds() -> None:
    run = of_run(100, [float(second) for second in range(10, 30)], 1, 40.0, 100)
    assert run["whole"] == pytest.approx(100 / 40)
    assert run["steady"] == pytest.approx(5.0)


def test_contender_that_labels_a_part_is_taken_to_go_on_at_its_steady_rate() -> None:
    run = of_run(100, [float(second) for second in range(10, 30)], 1, 40.0, 1100)
    assert run["documents"] == 100
    assert run["whole"] == pytest.approx(1100 / (40 + 1000 / 5.0))


def test_ratios_are_those_of_the_medians() -> None:
    runs = {
        "limit": [{"documents": 10, "steady": rate} for rate in (90.0, 100.0, 140.0)],
        "job": [{"documents": 10, "steady": rate, "whole": rate / 2} for rate in (95.0, 80.0, 90.0)],
        "peer": [{"documents": 10, "steady": None, "whole": 15.0}],
    }
    compared = medians_and_ratios(runs, "limit")
    assert (compared["limit"]["steady"], compared["limit"]["whole"]) == (100.0, None)
    assert (compared["job"]["of_limit"], compared["job"]["job_steady"], compared["job"]["job_whole"]) == (0.9, 1.0, 1.0)
    assert (compared["peer"]["of_limit"], compared["peer"]["job_steady"], compared["peer"]["job_whole"]) == (None, None, 3.0)
    assert compared["job"]["runs"] == runs["job"]


def test_numbers_are_rounded_and_counts_are_not() -> None:
    assert rounded({"a": [1.23456789, {"b": 123456789}], "c": None, "d": "x"}) == {
        "a": [1.235, {"b": 123456789}],
        "c": None,
        "d": "x",
    }
