"""The process that owns a garden is killed; the next one goes on where it was."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from attrs import asdict, evolve

from cells.garden import kernel, processes
from cells.garden.config import GardenConfig
from cells.garden.spec import ProcessSpec
from tests.kernel.containers import (
    SOON_S,
    call,
    cgroup_trees,
    every_runtime,
    runtime_of_version,
    shell,
    spec,
    start,
    until_printed,
)
from tests.kernel.images import until
from tests.orphans import reap_dead
from tests.slowness import patient

pytestmark = pytest.mark.kernel

OWNER = """
import asyncio, json, sys
from cells.garden import demolition
from cells.garden import garden as module
from cells.garden.config import GardenConfig
from cells.garden.garden import Garden
from cells.garden.spec import Limits, ProcessSpec
from diego_py.service.clock import SystemClock
from tests.kernel.containers import call, shell, start

async def main() -> None:
    config = GardenConfig(**json.loads(sys.argv[1]))
    garden = Garden(config, SystemClock())
    await garden.start()
    async def hang(*_: object) -> None:
        print("ready", flush=True)
        await asyncio.Event().wait()

    await scenario(garden, hang)
    await hang()

SCENARIO
asyncio.run(main())
"""


@pytest.fixture(autouse=True)
def orphans(host_sweep: None) -> Iterator[None]:
    """Helpers of a killed owner end as children of this process, which is a subreaper. They are nobody's fault."""
    yield
    reap_dead()


@asynccontextmanager
async def owner(config: GardenConfig, scenario: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Another process that owns a garden; it is killed at the end of the block, without a warning."""
    source = OWNER.replace("SCENARIO", scenario)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        source,
        json.dumps(msgspec.to_builtins(asdict(config))),
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    try:
        assert await process.stdout.readline() == b"ready\n"
        yield process
    finally:
        process.kill()
        await process.wait()


THREE = """
async def scenario(garden, hang):
    traps = "trap 'echo got TERM; exit 7' TERM; echo begun; i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done"
    await start(garden, shell("goes-on", traps, ports=(8080,), properties={"owner": "me"}))
    await start(garden, shell("ends-meanwhile", "echo $$; trap 'exit 5' TERM; while :; do sleep 0.05; done"))
    await start(garden, shell("ended-before", "exit 6"))
    await garden.wait("ended-before")
    await garden.create(call(), shell("waits", "exit 8"))
"""


@every_runtime
async def test_adoption(new_garden: Callable[..., Any], new_config: Callable[..., Any]) -> None:
    config = new_config()
    async with owner(config, THREE):
        pass
    init = int(Path(config.state_dir, "containers/ends-meanwhile/init.pid").read_text())
    _end(init)
    garden = await new_garden(config)
    seen = {container.handle: container for container in garden.containers()}
    assert {handle: container.state for handle, container in seen.items()} == {
        "goes-on": "running",
        "ends-meanwhile": "exited",
        "ended-before": "exited",
        "waits": "created",
    }
    assert seen["goes-on"].properties == {"owner": "me"}
    assert seen["goes-on"].network.ports[0].host_port == config.port_first
    assert (await garden.wait("ends-meanwhile")).signal == signal.SIGKILL
    assert (await garden.wait("ended-before")).status == 6
    await garden.run(call(), "waits")
    assert (await garden.wait("waits")).status == 8
    result = await garden.exec(call(), "goes-on", ProcessSpec("/bin/echo", ("alive",)), SOON_S)
    assert result.output == "alive\n"
    # A new container gets nothing that an adopted one has.
    fresh = await garden.create(call(), spec("fresh", "/bin/true", ports=(80,)))
    assert fresh.network.address not in {container.network.address for container in seen.values()}
    assert fresh.network.ports[0].host_port == config.port_first + 1
    before = len([line async for line in garden.logs("goes-on")])
    await until_printed(garden, "goes-on", str(before + 3))
    ended = await garden.stop(call(), "goes-on", grace_s=SOON_S)
    assert ended.status == 7
    assert "got TERM" in ended.log_tail


PRIVILEGED = """
async def scenario(garden, hang):
    await start(garden, shell("goes-on", "mount -t tmpfs x /tmp; exec sleep 600", privileged=True))
    real = type(garden._host.runtime).create
    async def hang_after_it(*arguments):
        await real(*arguments)
        await hang()
    type(garden._host.runtime).create = hang_after_it
    limits = Limits(disk_bytes=4 << 20)
    await garden.create(call(), shell("half-built", "exec sleep 600", privileged=True, limits=limits))
"""


async def test_privileged_ones_are_adopted_or_removed(
    new_garden: Callable[..., Any], new_config: Callable[..., Any], tmp_path: Path
) -> None:
    """Also when the cell makes none any more."""
    config = new_config(allow_privileged=True, runtime_path=runtime_of_version(tmp_path, "runc version 1.4.0"))
    async with owner(config, PRIVILEGED):
        pass
    garden = await new_garden(evolve(config, allow_privileged=False))
    assert {container.handle: container.state for container in garden.containers()} == {"goes-on": "running"}
    result = await garden.exec(call(), "goes-on", ProcessSpec("/bin/grep", ("CapEff", "/proc/self/status")), SOON_S)
    own = Path("/proc/self/status").read_text()
    assert result.output.split()[1] == next(line.split()[1] for line in own.splitlines() if line.startswith("CapBnd"))


def _end(pid: int) -> None:
    """Kill, and return when it is gone."""
    pidfd = os.pidfd_open(pid)
    kernel.send_signal(pidfd, signal.SIGKILL)
    select.select([pidfd], [], [])
    os.close(pidfd)


LIVES = """
async def scenario(garden, hang):
    await start(garden, shell("a", "echo begun; echo x >/srv/x; exec sleep 600", ports=(8080,)))
    while [line.text async for line in garden.logs("a")] != ["begun"]:
        await asyncio.sleep(0.01)
"""


async def test_what_goes_with_the_machine_is_cleaned_up(
    new_garden: Callable[..., Any], new_config: Callable[..., Any]
) -> None:
    """Its volume and log are on the disk, all else was in memory."""
    config = new_config()
    async with owner(config, LIVES):
        pass
    state = Path(config.state_dir)
    (record,) = state.glob("containers/*/state.json")
    pids = [json.loads(record.read_text())[f"{who}_pid"] for who in ("holder", "monitor")]
    volume = Path(json.loads(record.read_text())["volume"])
    assert not {state.stat().st_dev} & {record.stat().st_dev, (state / "runtime").stat().st_dev}
    for pid in pids:
        _end(pid)
    for name in ("containers/a/rootfs", "containers", "runtime"):
        kernel.umount(str(state / name), kernel.MNT_DETACH)
    for tree in cgroup_trees():
        await until(lambda tree=tree: _removed(Path(f"{tree}{config.cgroup_parent}/a")))  # type: ignore[misc]
    assert volume.exists()
    garden = await new_garden(config)
    assert garden.containers() == []
    assert not volume.exists()
    assert [line.text async for line in garden.logs("a")] == ["begun"]
    await start(garden, shell("a", "exit 3", ports=(8080,)))
    assert (await garden.wait("a")).status == 3


def _removed(cgroup: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        cgroup.rmdir()
    return not cgroup.exists()


async def test_a_depot_in_use_on_the_disk_stays_there_until_it_is_empty(
    new_garden: Callable[..., Any], new_config: Callable[..., Any]
) -> None:
    config = new_config()
    state = Path(config.state_dir)
    (state / "containers" / "old").mkdir(parents=True)
    first = await new_garden(config)
    assert not (state / "containers").is_mount()
    assert (state / "runtime").is_mount()
    await first.close()
    assert not (state / "runtime").is_mount()
    assert not list((state / "containers").iterdir())
    second = await new_garden(config)
    assert (state / "containers").is_mount()
    await start(second, shell("a", "exec sleep 600"))
    await second.close()
    third = await new_garden(config)
    assert [container.state for container in third.containers()] == ["running"]
    second._boxes.clear()


HALF_BUILT = {
    "before the runtime": "type(garden._host.runtime).create = hang",
    "beside the runtime": "type(garden._host.firewall).add = hang",
    "after the runtime": "type(garden._host.runtime).create = after(type(garden._host.runtime).create, hang)",
    "while destroying": "demolition.remove = hang",
}

HALF = """
def after(real, hang):
    async def hang_after_it(*arguments):
        await real(*arguments)
        await hang()

    return hang_after_it

async def scenario(garden, hang):
    CHANGE
    await start(garden, shell("half", "sleep 600", ports=(8080,)))
    await garden.destroy(call(), "half")
"""


@every_runtime
@pytest.mark.parametrize("moment", HALF_BUILT)
async def test_half_built_is_removed(
    new_garden: Callable[..., Any], new_config: Callable[..., Any], moment: str
) -> None:
    config = new_config()
    async with owner(config, HALF.replace("CHANGE", HALF_BUILT[moment])):
        assert Path(config.state_dir, "containers/half").exists()
    garden = await new_garden(config)
    assert garden.containers() == []
    assert not list(Path(config.state_dir, "containers").iterdir())
    await start(garden, shell("half", "exit 0", ports=(8080,)))
    assert (await garden.wait("half")).status == 0


@every_runtime
async def test_killed_at_any_moment_of_create(new_garden: Callable[..., Any], new_config: Callable[..., Any]) -> None:
    scenario = """
async def scenario(garden, hang):
    print("ready", flush=True)
    await start(garden, shell("any", "exec sleep 600", ports=(8080,)))
"""
    for after_ms in (2, 8, 15, 25, 35, 45):
        config = new_config()
        async with owner(config, scenario):
            await asyncio.wait([asyncio.get_running_loop().create_future()], timeout=patient(after_ms / 1000))
        garden = await new_garden(config)
        assert {container.handle for container in garden.containers()} <= {"any"}
        for container in garden.containers():
            await garden.destroy(call(), container.handle)
        await start(garden, shell("any", "exit 0", ports=(8080,)))
        assert (await garden.wait("any")).status == 0


@every_runtime
async def test_exec_of_a_dead_owner_is_ended(new_garden: Callable[..., Any], new_config: Callable[..., Any]) -> None:
    scenario = """
async def scenario(garden, hang):
    await start(garden, shell("a", "exec sleep 600"))
    async with asyncio.TaskGroup() as group:
        group.create_task(garden.exec(call(), "a", ProcessSpec("/bin/sh", ("-c", "sleep 77; true")), 60))
        while len(garden._host.cgroups.processes("a")) < 3:
            await asyncio.sleep(0.01)
        await hang()
"""
    config = new_config()
    async with owner(config, scenario):
        pass
    garden = await new_garden(config)
    seen = await garden.exec(call(), "a", ProcessSpec("/bin/ps", ("-o", "args")), SOON_S)
    assert "sleep 600" in seen.output
    assert "sh -c sleep 77" not in seen.output


async def test_adopted_network_goes_on_without_a_gap(
    new_garden: Callable[..., Any], new_config: Callable[..., Any]
) -> None:
    config = new_config()
    first = await new_garden(config)
    await start(first, shell("a", "httpd -p 8080 -h /srv/www && echo ready && exec sleep 600", ports=(8080,)))
    await until_printed(first, "a", "ready")
    port = first.containers()[0].network.ports[0].host_port
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await first.close()
    second = await new_garden(config)
    writer.write(b"GET /index.html HTTP/1.0\r\n\r\n")
    assert (await reader.read()).endswith(b"hello\n")
    writer.close()
    await second.destroy(call(), "a")
    first._boxes.clear()


PULLING = """
from cells.garden.images import provide
from tests.kernel.images import MemorySource, member, tar, until
from tests.slowness import patient

async def scenario(garden, hang):
    files = int(50_000 / patient(1))  # A second or two, wherever it is.
    blob = tar(*(member(f"f{number}", bytes(4096)) for number in range(files)))
    source = MemorySource([blob], hold=asyncio.Event(), raw=True)
    provide.source_of = lambda spec, config: source
    async with asyncio.TaskGroup() as group:
        group.create_task(garden.create(call(), shell("half", "true", rootfs="docker:///x")))
        await until(lambda: source.fetched)
        MOMENT
        await hang()
"""


@pytest.mark.parametrize("moment", ["", "source.hold.set()"], ids=["while it fetches", "while it unpacks"])
async def test_killed_while_it_pulls(
    new_garden: Callable[..., Any], new_config: Callable[..., Any], moment: str
) -> None:
    """The unpacker ends with the process that owns the garden, and the next one begins anew."""
    config = new_config()
    layers = Path(config.state_dir, "images/layers")
    async with owner(config, PULLING.replace("MOMENT", moment)) as process:
        if moment:
            await until(lambda: any(layers.glob("*.incomplete/fs/f1*")))
            assert processes.mentioning(f"parent={process.pid}")
    await until(lambda: not processes.mentioning(f"parent={process.pid}"))
    garden = await new_garden(config)
    assert not list(layers.iterdir())
    assert garden.containers() == []
