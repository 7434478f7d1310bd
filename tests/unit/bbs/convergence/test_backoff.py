"""The numbers of Diego's restart calculator, and the pace of placements."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bbs.convergence.backoff import JITTER, after_crash_s, after_failure_s
from diego_py.errors import Fault

DIEGO = {0: 0, 1: 0, 2: 0, 3: 30, 4: 60, 5: 120, 6: 240, 7: 480, 8: 960, 9: 960, 100: 960, 199: 960}


@pytest.mark.parametrize(("crash_count", "seconds"), DIEGO.items())
def test_crashes_wait_as_long_as_in_diego(crash_count: int, seconds: float) -> None:
    assert after_crash_s(crash_count) == seconds


@pytest.mark.parametrize("crash_count", [200, 201, 10_000])
def test_the_200th_crash_is_the_last(crash_count: int) -> None:
    assert after_crash_s(crash_count) is None


def test_from_the_first_crash_to_the_last_it_takes_two_days() -> None:
    waits = [after_crash_s(count) or 0.0 for count in range(1, 200)]
    assert 51 * 3600 < sum(waits) < 52 * 3600
    assert waits == sorted(waits)


@pytest.mark.parametrize("fault", [Fault.CAPACITY, Fault.PLATFORM, Fault.DEPENDENCY, "platform"])
def test_placements_are_tried_again_soon(fault: Fault | str) -> None:
    assert [after_failure_s(n, fault, 0.0) for n in range(1, 8)] == [2, 4, 8, 16, 32, 60, 60]


@pytest.mark.parametrize("fault", [Fault.APP, Fault.CALLER, "app", "caller"])
def test_what_fails_by_its_own_definition_is_tried_at_the_pace_of_crashes(fault: Fault | str) -> None:
    assert [after_failure_s(n, fault, 0.0) for n in range(1, 8)] == [30, 60, 120, 240, 480, 960, 960]


@given(st.integers(-5, 10**9), st.sampled_from(Fault), st.floats(-1, 1))
def test_jitter_spreads_by_a_fifth(attempts: int, fault: Fault, jitter: float) -> None:
    middle = after_failure_s(attempts, fault, 0.0)
    wait = after_failure_s(attempts, fault, jitter)
    assert middle * (1 - JITTER) - 1e-9 <= wait <= middle * (1 + JITTER) + 1e-9
    assert 1.6 - 1e-9 <= wait <= 960 * 1.2 + 1e-9
