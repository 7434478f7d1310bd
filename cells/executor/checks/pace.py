"""When the next check is due. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from diego_py.models.checks import AnyCheck

FIRST_INTERVAL_S = 0.05
GROWTH = 1.25
"""Readiness is seen at most a quarter of the start-up time late, and a slow app is asked seldom."""


def startup_intervals_s(longest_s: float) -> Iterator[float]:
    """Pauses between the rounds of checks before the first healthy one: growing, never longer than `longest_s`."""
    interval_s = min(FIRST_INTERVAL_S, longest_s)
    while True:
        yield interval_s
        interval_s = min(interval_s * GROWTH, longest_s)


def liveness_interval_s(check: AnyCheck, default_s: float) -> float:
    """The pause between two checks of a healthy instance: the check's own, or the cell's."""
    return check.interval_ms / 1000 if check.interval_ms else default_s
