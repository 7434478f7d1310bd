"""The numbers of Diego's restart calculator, and the pace of placements."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bbs.convergence.backoff import JITTER, CrashPolicy, after_failure_s
from diego_py.errors import Fault

POLICY = CrashPolicy()
DIEGO = {0: 0, 1: 0, 2: 0, 3: 30, 4: 60, 5: 120, 6: 240, 7: 480, 8: 960, 9: 960, 100: 960, 199: 960}


@pytest.mark.parametrize(("crash_count", "seconds"), DIEGO.items())
def test_crashes_wait_as_long_as_in_diego(crash_count: int, seconds: float) -> None:
    assert POLICY.wait_s(crash_count) == seconds


@pytest.mark.parametrize("crash_count", [200, 201, 10_000])
def test_the_200th_crash_is_the_last(crash_count: int) -> None:
    assert POLICY.wait_s(crash_count) is None


def test_from_the_first_crash_to_the_last_it_takes_two_days() -> None:
    waits = [POLICY.wait_s(count) or 0.0 for count in range(1, 200)]
    assert 51 * 3600 < sum(waits) < 52 * 3600
    assert waits == sorted(waits)


@pytest.mark.parametrize(("ran_s", "after"), [(None, 8), (0.0, 8), (300.0, 8), (300.1, 1)])
def test_five_minutes_of_running_are_forgiven(ran_s: float | None, after: int) -> None:
    assert POLICY.count(7, ran_s) == after


policies = st.builds(
    CrashPolicy,
    immediate_restarts=st.integers(0, 20),
    backoff_min_s=st.floats(0, 100),
    backoff_max_s=st.floats(100, 10_000),
    crashes_max=st.integers(1, 300),
    reset_after_s=st.floats(1, 1e6),
)


@given(policies, st.integers(1, 1_000_000))
def test_whatever_is_set_waits_grow_until_it_is_given_up(policy: CrashPolicy, crash_count: int) -> None:
    wait_s, longer_s = policy.wait_s(crash_count), policy.wait_s(crash_count + 1)
    assert (wait_s is None) == (crash_count >= policy.crashes_max)
    if wait_s is not None:
        assert 0 <= wait_s <= policy.backoff_max_s
        assert longer_s is None or wait_s <= longer_s
        assert wait_s == 0 or crash_count >= policy.immediate_restarts


@pytest.mark.parametrize(
    "wrong", [{"backoff_min_s": 2_000}, {"backoff_min_s": -1}, {"crashes_max": 0}, {"immediate_restarts": -1}]
)
def test_a_policy_that_contradicts_itself_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must"):
        CrashPolicy(**wrong)  # type: ignore[arg-type]


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
