"""Memory, processes, processor and output: held, named when met, and nobody else's trouble."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cells.executor import failures
from cells.garden.garden import Garden
from cells.garden.spec import Limits
from diego_py.errors import OutOfMemory, PidsExceeded, ProcessExited
from tests.kernel.containers import SOON_S, call, cgroups_of, output, shell, start, until_printed

pytestmark = pytest.mark.kernel

MEBIBYTE = 1 << 20
LOOKED_AT_S = 0.7
MEMORY = Limits(memory_bytes=32 * MEBIBYTE)
COUNTS = "trap 'echo last $i; exit 0' TERM; i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done"


async def neighbours(garden: Garden, *handles: str) -> None:
    for handle in handles:
        await start(garden, shell(handle, COUNTS, limits=MEMORY))
        await until_printed(garden, handle, "1")


async def all_well(garden: Garden, *handles: str) -> None:
    """They go on counting, and end as they want to."""
    for handle in handles:
        counted = len([line async for line in garden.logs(handle)])
        await until_printed(garden, handle, str(counted + 2))
        ended = await garden.stop(call(), handle, grace_s=SOON_S)
        assert (ended.status, ended.oom_killed, ended.cgroup.get("pids_refused")) == (0, False, 0)


async def test_a_hog_is_named_and_its_neighbours_are_unharmed(garden: Garden) -> None:
    await neighbours(garden, "one", "two")
    await start(garden, shell("hog", "exec tail -c 200m /dev/zero", limits=MEMORY))
    error = failures.exited(await garden.wait("hog"))
    assert isinstance(error, OutOfMemory)
    assert error.evidence["cgroup"]["memory_limit_bytes"] == MEMORY.memory_bytes
    await all_well(garden, "one", "two")


@pytest.mark.parametrize("at", ["/dev/shm/x", "/dev/x"])
async def test_files_in_memory_count_as_memory(garden: Garden, at: str) -> None:
    script = f"dd if=/dev/zero of={at} bs=1M count=60 2>/dev/null; echo survived"
    await start(garden, shell("a", script, limits=MEMORY))
    ended = await garden.wait("a")
    assert ended.oom_killed
    assert ended.cgroup["memory_peak_bytes"] > 0.9 * 32 * MEBIBYTE


async def test_the_page_cache_counts_and_gives_way(garden: Garden) -> None:
    """A file bigger than the memory limit is no reason to die."""
    script = "dd if=/dev/zero of=/big bs=1M count=100 2>/dev/null && cat /big >/dev/null && echo done; exec sleep 600"
    await start(garden, shell("a", script, limits=MEMORY))
    await until_printed(garden, "a", "done")
    used = garden.usage("a")
    assert used.memory_limit_bytes == MEMORY.memory_bytes
    assert used.memory_bytes is not None
    assert used.memory_bytes <= 32 * MEBIBYTE
    ended = await garden.stop(call(), "a", grace_s=0)
    assert not ended.oom_killed
    assert 0.8 * 32 * MEBIBYTE < ended.cgroup["memory_peak_bytes"] <= 32 * MEBIBYTE


async def test_a_fork_bomb_is_named_and_its_neighbours_are_unharmed(garden: Garden) -> None:
    await neighbours(garden, "one", "two")
    bomb = "bomb() { bomb | bomb & }; bomb; for i in 1 2 3 4 5 6 7 8; do sleep 5 & done; wait; exit 3"
    await start(garden, shell("bomb", bomb, limits=Limits(pids=40, memory_bytes=256 * MEBIBYTE)))
    ended = await garden.wait("bomb")
    error = failures.exited(ended)
    assert isinstance(error, PidsExceeded)
    assert ended.cgroup["pids_limit"] == 40
    assert ended.cgroup.get("pids_peak", 40) <= 40
    assert (await garden.create(call(), shell("next", "exit 0"))).state == "created"
    await all_well(garden, "one", "two")


async def test_an_exit_below_all_limits_names_none(garden: Garden) -> None:
    await start(garden, shell("a", "exit 9", limits=Limits(memory_bytes=32 * MEBIBYTE, pids=20)))
    assert type(failures.exited(await garden.wait("a"))) is ProcessExited


@pytest.mark.parametrize(
    ("cell", "limits", "millis"),
    [(0, Limits(cpu_millis=200), 200), (800, Limits(cpu_weight=25), 200), (800, Limits(cpu_millis=100), 100)],
    ids=["asked", "the cell's, by weight", "asked for less"],
)
async def test_a_hard_limit_of_the_processor(
    new_garden: Callable[..., Any], cell: int, limits: Limits, millis: int
) -> None:
    garden: Garden = await new_garden(cpu_hard_limit_millis=cell)
    await start(garden, shell("a", "echo busy; while :; do :; done", limits=limits))
    await until_printed(garden, "a", "busy")
    began_s, used_s = time.monotonic(), garden.usage("a").cpu_s
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LOOKED_AT_S):
            await garden.wait("a")
    share = (garden.usage("a").cpu_s - used_s) / (time.monotonic() - began_s)
    # A period (0.1 s) more than its share may fall into the time that was looked at.
    assert share < millis / 1000 + 0.2
    assert garden._boxes["a"].record.limits.cpu_millis == millis
    places = cgroups_of(garden, "a")
    files = [Path(place, name) for place in places for name in ("cpu.cfs_quota_us", "cpu.max")]
    (told,) = [file.read_text().split() for file in files if file.exists()]
    assert told in ([str(millis * 100)], [str(millis * 100), "100000"])  # v1; v2, with the period.


async def test_without_a_hard_limit_an_idle_processor_is_free(garden: Garden) -> None:
    container = await garden.create(call(), shell("a", "exit 0", limits=Limits(cpu_weight=25)))
    assert container.limits.cpu_millis is None


FLOOD = "i=0; while [ $i -lt 2000 ]; do echo 0123456789012345678901234567890123456789; i=$((i+1)); done; exit 4"


async def test_a_log_rate_limit_drops_lines_and_holds_nobody_up(garden: Garden) -> None:
    limits = Limits(log_bytes_per_second=1000)
    await start(garden, shell("a", FLOOD, limits=limits))
    assert (await garden.wait("a")).status == 4
    lines = [line async for line in garden.logs("a")]
    spent_s = (lines[-1].at - lines[0].at).total_seconds()
    notices = [line for line in lines if line.text == "app instance exceeded log rate limit (1000 bytes/sec)"]
    kept = [line for line in lines if line not in notices]
    assert 1 <= len(notices) <= 2 + spent_s
    assert 25 <= len(kept) <= 25 * (2 + spent_s)
    await garden.destroy(call(), "a")
    assert [line async for line in garden.logs("a")] == lines
    # The next one of the same name is not limited.
    assert len(await output(garden, shell("a", FLOOD))) == 2000


async def test_a_log_rate_limit_holds_for_whoever_follows(garden: Garden) -> None:
    await start(garden, shell("a", FLOOD, limits=Limits(log_bytes_per_second=1000)))
    followed = [line async for line in garden.logs("a", follow=True)]
    assert followed == [line async for line in garden.logs("a")]
    assert len(followed) < 200


async def test_no_output_is_kept(garden: Garden) -> None:
    """More than a pipe takes, so somebody has to read it."""
    await start(garden, shell("a", FLOOD, limits=Limits(log_bytes_per_second=0)))
    assert [line async for line in garden.logs("a", follow=True)] == []
    ended = await garden.wait("a")
    assert (ended.status, ended.log_tail) == (4, ())
    await garden.destroy(call(), "a")
    assert [line async for line in garden.logs("a")] == []
    assert Path(garden.config.state_dir, "logs/a.log").stat().st_size == 0
