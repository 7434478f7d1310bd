"""Diego's words for what our documents say."""

from __future__ import annotations

from typing import Any

import pytest

from bbs.diego_api import words


def refused(short: dict[str, int] | None = None, **verdicts: int) -> dict[str, Any]:
    told = {name: {"cells": cells, "need": 2, "most": 1} for name, cells in (short or {}).items()}
    return {"code": "auction.no_cell_fits", "placement": {"verdicts": verdicts, "short": told}}


@pytest.mark.parametrize(
    ("failure", "tags", "told"),
    [
        ({"code": "auction.no_cells"}, (), "unable to communicate to compatible cells"),
        (refused(draining=2), (), "unable to communicate to compatible cells"),
        (refused(rootfs=2, draining=1), (), "found no compatible cell for required rootfs"),
        (refused(volume_drivers=1, rootfs=1), ("a",), "found no compatible cell with required volume drivers"),
        (refused(placement_tags=1, volume_drivers=1), (), "found no compatible cell with no placement tags"),
        (refused(placement_tags=1, rootfs=1), (), "found no compatible cell with no placement tags"),
        (refused(placement_tags=1), ("a",), 'found no compatible cell with placement tag "a"'),
        (
            refused(placement_tags=1),
            ("a", "b", "c"),
            'found no compatible cell with placement tags "a", "b" and "c"',
        ),
        (refused({"memory_mb": 3}, no_fit=3, rootfs=1), ("a",), "insufficient resources: memory"),
        (
            refused({"memory_mb": 2, "containers": 2, "disk_mb": 2}, no_fit=2),
            (),
            "insufficient resources: containers, disk, memory",
        ),
        (refused({"memory_mb": 1, "disk_mb": 1}, no_fit=2), (), "insufficient resources"),
        (refused(privileged=1, rootfs=3), (), "ours"),
        ({"code": "garden.failed"}, (), "ours"),
        (None, (), "ours"),
    ],
)
def test_placement_errors(failure: dict[str, Any] | None, tags: tuple[str, ...], told: str) -> None:
    assert words.placement_error("ours", failure, tags) == told


@pytest.mark.parametrize(
    ("reason", "failure", "told"),
    [
        ("exited with status 7", {"code": "app.exited", "evidence": {"exit_status": 7}}, "Exited with status 7"),
        ("APP: x", {"code": "app.exited", "evidence": {"exit_status": 7}}, "APP: Exited with status 7"),
        (
            "killed by signal 9 (out of memory)",
            {"code": "app.out_of_memory", "evidence": {"exit_status": None, "signal": 9}},
            "Exited with status 137 (out of memory)",
        ),
        ("ended unseen", {"code": "app.exited", "evidence": {}}, "ended unseen"),
        (
            "x",
            {"code": "app.never_healthy", "evidence": {"check": {"answer": "refused", "elapsed_ms": 60_000}}},
            "Instance never healthy after 1m0s: refused",
        ),
        (
            "x",
            {"code": "app.became_unhealthy", "evidence": {"check": {"answer": "refused"}}},
            "Instance became unhealthy: refused",
        ),
        ("y" * 2000, None, "y" * 1013 + "(truncated)"),
        (None, {"code": "app.exited"}, ""),
    ],
)
def test_crash_reasons(reason: str | None, failure: dict[str, Any] | None, told: str) -> None:
    assert words.crash_reason(reason, failure) == told


def test_failures_of_tasks() -> None:
    told = {
        "bbs.task_cancelled": "task was cancelled",
        "bbs.task_expired": "not started within time limit",
        "bbs.task_lost": "cell disappeared before completion",
        "garden.failed": "ours",
        "auction.no_cells": "unable to communicate to compatible cells",
    }
    assert {code: words.failure_reason("ours", {"code": code}) for code in told} == told
    told_tags = words.failure_reason("ours", refused(placement_tags=1), ("a",))
    assert told_tags == 'found no compatible cell with placement tag "a"'
    assert words.failure_reason(None, {"code": "bbs.task_lost"}) == ""


@pytest.mark.parametrize(
    ("milliseconds", "told"), [(400, "0s"), (59_600, "1m0s"), (61_000, "1m1s"), (3_600_000, "1h0m0s"), (1_000, "1s")]
)
def test_durations(milliseconds: int, told: str) -> None:
    assert words.duration(milliseconds) == told
