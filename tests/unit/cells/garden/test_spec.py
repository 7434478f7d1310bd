"""What the nouns of garden say of themselves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from cells.garden.spec import Container, DiskUsage, Limits, Network

GIBIBYTE = 1 << 30


@pytest.mark.parametrize(
    ("usage", "full"),
    [
        (DiskUsage(0), False),
        (DiskUsage(GIBIBYTE), False),
        (DiskUsage(GIBIBYTE, GIBIBYTE), True),
        (DiskUsage(GIBIBYTE - GIBIBYTE // 100, GIBIBYTE), True),
        (DiskUsage(GIBIBYTE - GIBIBYTE // 50, GIBIBYTE), False),
        (DiskUsage(2 * GIBIBYTE, GIBIBYTE), True),
        (DiskUsage((1 << 20) - (128 << 10), 1 << 20), True),
        (DiskUsage(0, None, 10, 10), True),
        (DiskUsage(0, None, 9, 10), False),
        (DiskUsage(0, GIBIBYTE, 10, None), False),
    ],
)
def test_full(usage: DiskUsage, full: bool) -> None:
    assert usage.full is full


def test_how_long_it_ran_whatever_became_of_the_clock() -> None:
    now = datetime(2026, 11, 21, tzinfo=UTC)
    made = ("a", {}, Network("10.0.0.2", "192.0.2.1"), "running", Limits(), now)
    assert Container(*made).ran_s(now) == 0
    assert Container(*made, started_at=now).ran_s(now + timedelta(minutes=1)) == 60
    assert Container(*made, started_at=now).ran_s(now - timedelta(minutes=1)) == 0
