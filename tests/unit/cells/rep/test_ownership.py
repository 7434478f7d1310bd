"""A state directory has one owner: the next one waits for its end, however that comes, and not for ever."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import pytest
from attrs import define, field

from cells.rep.ownership import LOOK_S, PATIENCE_S, Ownership
from diego_py.errors import StateDirectoryInUse
from diego_py.service.clock import SystemClock
from tests.unit.diego_py.service.hand_clock import HandClock

PROCESS = """
import asyncio, sys
from pathlib import Path
from cells.rep.ownership import Ownership
from diego_py.service.clock import SystemClock
asyncio.run(Ownership(Path(sys.argv[1]), SystemClock()).start())
print("mine", flush=True)
sys.stdin.read()
"""


@define
class ToldClock(SystemClock):
    """Tells that somebody waits."""

    waited: asyncio.Event = field(factory=asyncio.Event)

    async def sleep(self, seconds: float) -> None:
        self.waited.set()
        await super().sleep(seconds)


async def test_the_next_one_waits_for_the_end_of_the_first(tmp_path: Path) -> None:
    clock = ToldClock()
    first, second, third = Ownership(tmp_path, clock), Ownership(tmp_path, clock), Ownership(tmp_path, HandClock())
    await first.start()
    assert not clock.waited.is_set()
    async with asyncio.TaskGroup() as group:
        group.create_task(second.start())
        await clock.waited.wait()
        await first.stop()
    with pytest.raises(StateDirectoryInUse):
        await third.start()
    await third.stop()
    await second.stop()


async def test_one_that_does_not_end_is_named(tmp_path: Path) -> None:
    owner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROCESS, str(tmp_path), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert owner.stdout is not None
    assert await owner.stdout.readline() == b"mine\n"
    clock = HandClock()
    begun_s = clock.monotonic()
    refused = Ownership(tmp_path, clock)
    with pytest.raises(StateDirectoryInUse) as failed:
        await refused.start()
    await refused.stop()
    assert failed.value.evidence["pid"] == str(owner.pid)
    assert PATIENCE_S <= clock.monotonic() - begun_s < PATIENCE_S + 2 * LOOK_S
    owner.send_signal(signal.SIGKILL)
    await owner.wait()
    told = ToldClock()
    after = Ownership(tmp_path, told)
    await after.start()
    assert not told.waited.is_set()
    await after.stop()
