"""What one container uses is its own loss: processes, memory of what enters it, disk."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from cells.garden.garden import Garden
from cells.garden.spec import PIDS_DEFAULT, Limits
from diego_py.errors import DiegoError
from tests.kernel.containers import SOON_S, call, output, start, until_printed
from tests.kernel.security.probing import inside, process

pytestmark = pytest.mark.kernel

PIDS = 30
BOMB = "(while :; do sleep 600 & done); echo full; exec sleep 600"


async def test_there_is_always_a_process_limit(garden: Garden, probed: Path) -> None:
    await start(garden, inside("a", "exec sleep 600"))
    assert garden._host.cgroups.usage("a")["pids_limit"] == PIDS_DEFAULT


async def test_fork_bomb_is_its_containers_loss(garden: Garden, probed: Path) -> None:
    """Its processes end at its limit; who enters it counts there too; a neighbour forks on."""
    await start(garden, inside("bomb", BOMB, user="vcap", limits=Limits(pids=PIDS)))
    await until_printed(garden, "bomb", "full")
    seen = garden._host.cgroups.usage("bomb")
    assert seen["pids_refused"] > 0
    assert PIDS - 2 <= seen["pids"] <= PIDS
    with contextlib.suppress(DiegoError):  # The runtime itself may be the one that finds no room.
        more = await garden.exec(call(), "bomb", process("sleep 600 & sleep 600 & sleep 600 & echo forked"), SOON_S)
        assert "can't fork" in more.output
        assert "forked" not in more.output
    peer = inside("peer", "(sleep 0 & wait); echo forks", user="vcap", limits=Limits(pids=PIDS))
    assert await output(garden, peer) == ["forks"]


async def test_who_enters_counts_in_the_container(garden: Garden, probed: Path) -> None:
    await start(garden, inside("a", "exec sleep 600", limits=Limits(memory_bytes=32 << 20)))
    result = await garden.exec(call(), "a", process("tail -c 100m /dev/zero >/tmp/x; echo $?"), SOON_S)
    assert "137" in result.output.split()
    assert garden._host.cgroups.usage("a")["oom_kill"] >= 1
