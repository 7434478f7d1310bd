"""When an instance is tried again. Diego: models/restart_calculator.go. Pure; randomness is an argument."""

from __future__ import annotations

from attrs import frozen

from diego_py.errors import Fault

PLACEMENT_BACKOFF_MIN_S = 2.0
PLACEMENT_BACKOFF_MAX_S = 60.0
JITTER = 0.2
DOUBLINGS_MAX = 30
"""Beyond so many doublings every back-off is at its longest."""


@frozen(kw_only=True)
class CrashPolicy:
    """When an app that ended is started again. The defaults are Diego's."""

    immediate_restarts: int = 3
    """Crashes below this count are restarted at once: by default the first and the second."""
    backoff_min_s: float = 30.0
    """Seconds to wait after the first crash that is not restarted at once; each further crash doubles them."""
    backoff_max_s: float = 960.0
    crashes_max: int = 200
    """From this many crashes on nobody restarts the instance but a user."""
    reset_after_s: float = 300.0
    """Who was RUNNING for longer than this before it crashed begins to count its crashes anew."""

    def __attrs_post_init__(self) -> None:
        if not (0 <= self.backoff_min_s <= self.backoff_max_s and self.reset_after_s > 0):
            raise ValueError("0 <= backoff_min_s <= backoff_max_s and reset_after_s > 0 must hold")
        if self.immediate_restarts < 0 or self.crashes_max < 1:
            raise ValueError("immediate_restarts must be 0 or more, crashes_max 1 or more")

    def count(self, before: int, ran_s: float | None) -> int:
        """The crash count after one more crash of an instance that was RUNNING for `ran_s`; None: never."""
        return 1 if ran_s is not None and ran_s > self.reset_after_s else before + 1

    def wait_s(self, crash_count: int) -> float | None:
        """Seconds to wait after the crash that made it `crash_count`; None to give up."""
        if crash_count >= self.crashes_max:
            return None
        if crash_count < self.immediate_restarts:
            return 0.0
        doublings = min(crash_count - self.immediate_restarts, DOUBLINGS_MAX)
        return min(self.backoff_min_s * 2.0**doublings, self.backoff_max_s)


DIEGO = CrashPolicy()


def after_failure_s(attempts: int, fault: Fault | str, jitter: float) -> float:
    """Seconds to wait after `attempts` failed placements; `jitter` in [-1, 1] spreads them by a fifth.

    What the app's own definition makes fail will fail again, so it is tried at the pace of crashes.
    """
    if fault in (Fault.APP, Fault.CALLER):
        low_s, high_s = DIEGO.backoff_min_s, DIEGO.backoff_max_s
    else:
        low_s, high_s = PLACEMENT_BACKOFF_MIN_S, PLACEMENT_BACKOFF_MAX_S
    wait_s = min(low_s * 2.0 ** min(max(0, attempts - 1), 10), high_s)
    return wait_s * (1 + JITTER * jitter)
