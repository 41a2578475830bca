"""Which test files share a process where there are several."""

import pytest

from tests.conftest import is_on_ray


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("fault/test_lease.py", True),  # the tests' Ray
        ("integration/results/test_readers.py", True),  # by a fixture
        ("fault/test_nodes.py", True),  # nodes of its own
        ("integration/remote/test_submit.py", True),
        ("fault/test_interruption.py", True),  # commands that start one
        ("integration/run/test_progress_on_a_terminal.py", True),
        ("integration/benchmark/test_benchmark.py", True),
        ("fault/test_one_process.py", False),  # as well, but computes most of the time
        ("integration/labels/test_architectures.py", False),
        ("fault/fuzz/test_fuzzed_inputs.py", False),
        ("unit/console/test_live_view.py", False),
    ],
)
def test_files_on_ray_are_known_by_what_they_ask_for(file: str, expected: bool) -> None:
    assert is_on_ray(f"tests/{file}") is expected
