"""What the nouns of garden say of themselves."""

from __future__ import annotations

import pytest

from cells.garden.spec import DiskUsage

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
