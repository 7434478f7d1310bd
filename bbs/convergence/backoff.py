"""When an instance is tried again. Diego: models/restart_calculator.go. Pure; randomness is an argument."""

from __future__ import annotations

from diego_py.errors import Fault

IMMEDIATE_RESTARTS = 3
"""Crashes below this count are restarted at once: the first and the second."""
CRASH_BACKOFF_MIN_S = 30.0
CRASH_BACKOFF_MAX_S = 960.0
CRASHES_MAX = 200
"""From this many crashes on nobody restarts the instance but a user."""

PLACEMENT_BACKOFF_MIN_S = 2.0
PLACEMENT_BACKOFF_MAX_S = 60.0
JITTER = 0.2


def after_crash_s(crash_count: int) -> float | None:
    """Seconds to wait after the crash that made it `crash_count`; None to give up."""
    if crash_count >= CRASHES_MAX:
        return None
    if crash_count < IMMEDIATE_RESTARTS:
        return 0.0
    return min(CRASH_BACKOFF_MIN_S * 2.0 ** min(crash_count - IMMEDIATE_RESTARTS, 5), CRASH_BACKOFF_MAX_S)


def after_failure_s(attempts: int, fault: Fault | str, jitter: float) -> float:
    """Seconds to wait after `attempts` failed placements; `jitter` in [-1, 1] spreads them by a fifth.

    What the app's own definition makes fail will fail again, so it is tried at the pace of crashes.
    """
    if fault in (Fault.APP, Fault.CALLER):
        low_s, high_s = CRASH_BACKOFF_MIN_S, CRASH_BACKOFF_MAX_S
    else:
        low_s, high_s = PLACEMENT_BACKOFF_MIN_S, PLACEMENT_BACKOFF_MAX_S
    wait_s = min(low_s * 2.0 ** min(max(0, attempts - 1), 10), high_s)
    return wait_s * (1 + JITTER * jitter)
