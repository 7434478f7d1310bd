"""Namespaces made ahead of need: who is PID 1 of a container, what it suffers from inside, and what is left of it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cells.garden.cgroups import SANDBOXES
from cells.garden.garden import Garden
from cells.garden.monitor import gone
from cells.garden.processes import Process, identify, is_alive
from cells.garden.sandboxes import pool
from cells.garden.sandboxes.pool import SCARCE
from cells.garden.spec import ProcessSpec
from diego_py.embedded import host_sweep
from diego_py.embedded.host_sweep import CellNames
from diego_py.errors import ContainerNotFound, DiegoError
from tests.kernel.containers import SOON_S, call, every_runtime, output, shell, spec, start, until_printed
from tests.kernel.images import until
from tests.kernel.test_restart import orphans, owner

pytestmark = pytest.mark.kernel
__all__ = ["orphans"]

KINDS = ("pid", "net", "ipc", "uts", "user", "mnt", "cgroup")
CLOSED = ("root/", "cwd/", "exe", "fd/", "fdinfo/", "maps", "smaps", "mem", "environ", "auxv", "syscall", "io")
PRIVATE_KIB_MAX = 64


def holder(garden: Garden, handle: str) -> Process:
    found: Process = garden._box(handle).holder
    return found


async def idle(garden: Garden) -> list[Process]:
    """All sandboxes that are kept ready, once they are."""
    sandboxes = garden._host.sandboxes
    await until(lambda: len(sandboxes._ready) == sandboxes.size)
    return list(sandboxes._holders.values())


@every_runtime
async def test_an_orphan_is_the_child_of_pid_1_and_leaves_no_zombie(garden: Garden) -> None:
    script = """
        sh -c 'sleep 0.1 & echo $! > /tmp/pid'
        orphan=$(cat /tmp/pid)
        echo parent $(cut -d' ' -f4 /proc/$orphan/stat)
        while [ -e /proc/$orphan ]; do sleep 0.02; done
        echo reaped
    """
    assert await output(garden, shell("a", script)) == ["parent 1", "reaped"]


async def test_what_the_user_process_left_behind_ends_with_it(garden: Garden) -> None:
    await start(garden, shell("a", "trap '' TERM; sleep 77 & exit 3"))
    assert (await garden.wait("a")).status == 3
    for pid in garden._host.cgroups.processes("a"):
        await gone(identify(pid))
    assert garden._host.cgroups.processes("a") == []
    assert is_alive(holder(garden, "a"))  # Who copies files out of what has ended needs its ids.


@every_runtime
async def test_pid_1_can_neither_be_looked_into_nor_ended(garden: Garden) -> None:
    looks = "\n".join(f"head -c 1 /proc/1/{name} >/dev/null 2>&1 && echo read {name}" for name in CLOSED)
    script = f"""
        {looks}
        for name in root cwd exe ns/mnt ns/pid; do readlink /proc/1/$name && echo followed $name; done
        for name in fd root/ cwd/ map_files; do ls /proc/1/$name >/dev/null 2>&1 && echo listed $name; done
        echo 1000 2>/dev/null > /proc/1/oom_score_adj && echo wrote
        nsenter -t 1 -n true 2>/dev/null && echo entered
        for number in 1 2 3 9 11 15 17 19; do kill -$number 1; done
        cut -d' ' -f3 /proc/1/stat
    """
    assert await output(garden, shell("a", script)) == ["S"]


async def test_a_holder_is_nearly_nothing(garden: Garden) -> None:
    await start(garden, spec("a", "/bin/sleep", "600"))
    home = Path("/proc", str(holder(garden, "a").pid))
    told = {name: value.split() for name, _, value in (line.partition(":") for line in _lines(home / "smaps_rollup"))}
    assert int(told["Pss"][0]) <= PRIVATE_KIB_MAX
    status = dict(line.split(":\t", 1) for line in _lines(home / "status") if ":\t" in line)
    assert {status[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"
    assert os.listdir(home / "fd") == []
    (mount,) = _lines(home / "mountinfo")
    assert mount.split()[5].startswith("ro,nosuid,nodev,noexec")


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


@every_runtime
async def test_no_namespace_is_shared(garden: Garden) -> None:
    script = f"for kind in {' '.join(KINDS)}; do readlink /proc/self/ns/$kind; done; sleep 600"
    seen = [os.readlink(f"/proc/self/ns/{kind}") for kind in KINDS]
    for handle in ("a", "b"):
        await start(garden, shell(handle, script))
        await until_printed(garden, handle, "cgroup:")
        seen += [line.text async for line in garden.logs(handle)]
    assert len(set(seen)) == len(seen) == 3 * len(KINDS)


async def test_the_ready_ones_are_used_first(new_garden: Callable[..., Any]) -> None:
    garden = await new_garden(sandboxes_ready=2, id_slots=2)
    ready = await idle(garden)
    for handle in ("a", "b"):
        await garden.create(call(), shell(handle, "true"))
    assert {holder(garden, handle) for handle in ("a", "b")} == set(ready)
    with pytest.raises(DiegoError) as failed:
        await garden.create(call(), shell("c", "true"))
    assert failed.value.root.code == "garden.pool_exhausted"


async def test_more_than_a_few_are_made_only_when_it_is_quiet(
    new_garden: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "QUIET_S", 3600.0)
    garden = await new_garden(sandboxes_ready=SCARCE + 3)
    sandboxes = garden._host.sandboxes
    await until(lambda: len(sandboxes._ready) == SCARCE)
    await start(garden, spec("a", "/bin/sleep", "600"))
    assert len(sandboxes.idle) <= SCARCE
    await until(lambda: len(sandboxes._ready) == SCARCE)  # The one that was taken.
    await garden.destroy(call(), "a")
    monkeypatch.setattr(pool, "QUIET_S", 0.0)  # From here on somebody looks.
    sandboxes._refill_later()
    most = 0
    while len(sandboxes._ready) < sandboxes.size:
        most = max(most, len(sandboxes._making))
        await asyncio.sleep(0)
    assert most == 1


async def test_there_are_no_more_than_containers_can_be(new_garden: Callable[..., Any]) -> None:
    garden = await new_garden(sandboxes_ready=3, containers_max=3)
    sandboxes = garden._host.sandboxes
    await until(lambda: len(sandboxes._ready) == sandboxes.size)
    await garden.create(call(), shell("a", "true"))
    sandboxes._refill()
    assert len(sandboxes.idle) == sandboxes.size - 1


async def test_a_ready_one_that_was_killed_is_not_used(garden: Garden) -> None:
    for process in await idle(garden):
        os.kill(process.pid, signal.SIGKILL)
        await gone(process)
    await start(garden, shell("a", "exit 4"))
    assert (await garden.wait("a")).status == 4


async def test_a_killed_holder_is_the_end_of_its_container(garden: Garden) -> None:
    await start(garden, shell("a", "sleep 600 & sleep 600"))
    os.kill(holder(garden, "a").pid, signal.SIGKILL)
    ended = await garden.wait("a")
    assert (ended.status, ended.signal, ended.oom_killed) == (137, signal.SIGKILL, False)
    await garden.destroy(call(), "a")
    with pytest.raises(ContainerNotFound):
        await garden.wait("a")


async def test_a_killed_zygote_is_replaced_and_nobody_suffers(garden: Garden) -> None:
    await start(garden, spec("a", "/bin/sleep", "600"))
    ready = await idle(garden)
    zygote = garden._host.sandboxes.maker._zygote
    assert zygote is not None
    zygote.kill()
    await zygote.wait()
    # One more than is ready, so that another has to be made.
    handles = [f"b{number}" for number in range(len(ready) + 1)]
    await asyncio.gather(*(start(garden, spec(handle, "/bin/sleep", "600")) for handle in handles))
    # The holders are our children now. A runtime that fails has us look for what it left behind.
    with pytest.raises(DiegoError):
        await garden.exec(call(), "b0", ProcessSpec("/nope"), SOON_S)
    assert {container.state for container in garden.containers()} == {"running"}
    assert (await garden.exec(call(), "a", ProcessSpec("/bin/true"), SOON_S)).status == 0


IDLE = """
async def scenario(garden, hang):
    if BUSY:
        await start(garden, shell("a", "exec sleep 600"))
    while len(garden._host.sandboxes._ready) < garden.config.sandboxes_ready:
        await asyncio.sleep(0.01)
"""


async def test_a_killed_cell_leaves_idle_sandboxes_only_until_the_next_start(
    new_garden: Callable[..., Any], new_config: Callable[..., Any]
) -> None:
    config = new_config()
    async with owner(config, "BUSY = True" + IDLE):
        pass
    garden: Garden = await new_garden(config)
    kept = holder(garden, "a")
    assert is_alive(kept)
    assert garden.containers()[0].state == "running"
    found = {identify(pid) for pid in garden._host.cgroups.processes(SANDBOXES)}
    zygote = garden._host.sandboxes.maker._zygote
    assert zygote is not None
    assert {process.pid for process in found} - {process.pid for process in await idle(garden)} <= {
        kept.pid,
        zygote.pid,
    }


async def test_what_sweeps_the_host_ends_them_too(
    new_garden: Callable[..., Any], new_config: Callable[..., Any]
) -> None:
    config = new_config()
    async with owner(config, "BUSY = False" + IDLE):
        pass
    names = CellNames(Path(config.state_dir), config.interface_prefix, config.nft_table, config.cgroup_parent)
    assert {thing.kind for thing in host_sweep.of_cell(names)} == {"memory", "parent", "sandbox", "table"}
    assert host_sweep.of_containers(names) == []
    assert await asyncio.to_thread(host_sweep.remove, names) == []


async def test_fifty_leave_the_host_as_it_was(garden: Garden) -> None:
    descriptors = len(os.listdir("/proc/self/fd"))
    for number in range(10):
        handles = [f"a{number}-{i}" for i in range(5)]
        await asyncio.gather(*(start(garden, shell(handle, "exit 0")) for handle in handles))
        await asyncio.gather(*(garden.destroy(call(), handle) for handle in handles))
    ready = await idle(garden)
    assert len(garden._host.cgroups.processes(SANDBOXES)) == len(ready) + 1
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 1
