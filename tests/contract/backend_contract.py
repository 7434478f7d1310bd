"""What every container backend must do; the fake and the real garden run the same functions.

Each takes a started backend and a rootfs that has `/bin/sh`. Handles are the caller's, so that suites can share a host.
"""

from __future__ import annotations

import asyncio
import io
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from cells.executor import results
from cells.executor.backend import ContainerBackend
from cells.garden.spec import ContainerSpec, EgressRule, Limits, Network, ProcessSpec
from diego_py.call import Call
from diego_py.errors import (
    ContainerNotFound,
    DiegoError,
    HandleTaken,
    IllegalTransition,
    PrivilegedRefused,
    ResultMissing,
    RootfsNotFound,
)
from diego_py.service.clock import SystemClock

Contract = Callable[[ContainerBackend, str, str], Awaitable[None]]

GRACE_S = 0.3


def call() -> Call:
    return Call.begin(SystemClock(), 30_000)


def shell(handle: str, rootfs: str, script: str, **more: object) -> ContainerSpec:
    return ContainerSpec(handle=handle, rootfs=rootfs, path="/bin/sh", args=("-c", script), **more)  # type: ignore[arg-type]


async def started(backend: ContainerBackend, handle: str, rootfs: str, script: str) -> None:
    await backend.create(call(), shell(handle, rootfs, script))
    await backend.run(call(), handle)


async def creates_runs_and_tells_the_exit(backend: ContainerBackend, handle: str, rootfs: str) -> None:
    spec = shell(handle, rootfs, "echo hello; exit 3", properties={"owner": "me"}, ports=(8080,))
    container = await backend.create(call(), spec)
    assert (container.handle, container.state) == (handle, "created")
    assert container.properties == {"owner": "me"}
    assert [port.container_port for port in container.network.ports] == [8080]
    await backend.run(call(), handle)
    ended = await backend.wait(handle)
    assert (ended.status, ended.signal, ended.oom_killed) == (3, None, False)
    assert ended.log_tail == ("hello",)
    assert [c.state for c in backend.containers() if c.handle == handle] == ["exited"]
    assert await backend.wait(handle) == ended
    await backend.destroy(call(), handle)


async def changes_what_it_may_reach(backend: ContainerBackend, handle: str, rootfs: str) -> None:
    await backend.create(call(), shell(handle, rootfs, "sleep 1000"))
    await backend.set_egress(call(), handle, [EgressRule("tcp", ("192.0.2.0/24",), ((80, 80),))])
    await backend.set_egress(call(), handle, [])
    await backend.destroy(call(), handle)
    with pytest.raises(DiegoError) as refused:
        await backend.set_egress(call(), handle, [])
    assert isinstance(refused.value.root, ContainerNotFound)


async def tells_the_signal(backend: ContainerBackend, handle: str, rootfs: str) -> None:
    await started(backend, handle, rootfs, "exit 143")
    ended = await backend.wait(handle)
    assert (ended.status, ended.signal) == (143, 15)
    await backend.destroy(call(), handle)


async def gives_the_addresses_to_the_environment(backend: ContainerBackend, handle: str, rootfs: str) -> None:
    asked: list[Network] = []

    def network_env(network: Network) -> tuple[tuple[str, str], ...]:
        asked.append(network)
        return (("ADDRESS", network.address),)

    container = await backend.create(call(), shell(handle, rootfs, "exit 0", network_env=network_env))
    assert asked == [container.network]
    await backend.destroy(call(), handle)


async def stops_within_the_grace_time(backend: ContainerBackend, handle: str, rootfs: str) -> None:
    await started(backend, handle, rootfs, "sleep 1000")
    assert [c.state for c in backend.containers() if c.handle == handle] == ["running"]
    waiting = await backend.stop(call(), handle, GRACE_S)
    assert waiting.signal in (15, 9)
    again = await backend.stop(call(), handle, GRACE_S)
    assert again.status == waiting.status
    await backend.destroy(call(), handle)


async def kills_what_ignores_sigterm(backend: ContainerBackend, handle: str, rootfs: str) -> None:
    await started(backend, handle, rootfs, "trap '' TERM; echo ready; sleep 1000")
    async for _ in backend.logs(handle, 1, True):
        break
    ended = await backend.stop(call(), handle, GRACE_S)
    assert (ended.status, ended.signal) == (137, 9)
    await backend.destroy(call(), handle)


async def gives_time_to_end_before_it_destroys(backend: ContainerBackend, handle: str, rootfs: str) -> None:
    await started(backend, handle, rootfs, "sleep 1000")
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(backend.wait(handle))
        await asyncio.sleep(0)
        await backend.destroy(call(), handle, GRACE_S)
    assert waiting.result().signal == 15
    assert handle not in [container.handle for container in backend.containers()]


async def destroys_what_ignores_sigterm(backend: ContainerBackend, handle: str, rootfs: str) -> None:
    await started(backend, handle, rootfs, "trap '' TERM; echo ready; sleep 1000")
    async for _ in backend.logs(handle, 1, True):
        break
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(backend.wait(handle))
        await asyncio.sleep(0)
        await backend.destroy(call(), handle, GRACE_S)
    assert (waiting.result().status, waiting.result().signal) == (137, 9)


async def destroys_idempotently(backend: ContainerBackend, handle: str, rootfs: str) -> None:
    await started(backend, handle, rootfs, "sleep 1000")
    await backend.destroy(call(), handle)
    await backend.destroy(call(), handle)
    assert handle not in [container.handle for container in backend.containers()]
    with pytest.raises(ContainerNotFound):
        await backend.wait(handle)


async def wakes_those_who_wait_when_it_destroys(backend: ContainerBackend, handle: str, rootfs: str) -> None:
    await started(backend, handle, rootfs, "sleep 1000")
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(backend.wait(handle))
        await asyncio.sleep(0)
        await backend.destroy(call(), handle)
    assert waiting.result().at is not None


async def keeps_logs_after_destroy(backend: ContainerBackend, handle: str, rootfs: str) -> None:
    await started(backend, handle, rootfs, "echo one; echo two; echo three; exit 0")
    await backend.wait(handle)
    await backend.destroy(call(), handle)
    assert [line.text async for line in backend.logs(handle, 2, False)] == ["two", "three"]
    assert [line.text async for line in backend.logs(handle, 10, True)] == ["one", "two", "three"]


async def executes_more_processes(backend: ContainerBackend, handle: str, rootfs: str) -> None:
    await started(backend, handle, rootfs, "sleep 1000")
    good = await backend.exec(call(), handle, ProcessSpec("/bin/sh", ("-c", "echo fine; exit 0")), 10.0)
    bad = await backend.exec(call(), handle, ProcessSpec("/bin/sh", ("-c", "exit 4")), 10.0)
    late = await backend.exec(call(), handle, ProcessSpec("/bin/sh", ("-c", "sleep 1000")), 0.2)
    assert (good.status, good.output.strip(), good.timed_out) == (0, "fine", False)
    assert (bad.status, bad.timed_out) == (4, False)
    assert late.timed_out
    await backend.destroy(call(), handle)


async def launches_processes_beside_an_idle_one(backend: ContainerBackend, handle: str, rootfs: str) -> None:
    await backend.create(call(), ContainerSpec(handle=handle, rootfs=rootfs, path="", idle=True))
    await backend.run(call(), handle)
    assert backend.activity(handle) == "ended"
    good = await backend.launch(call(), handle, ProcessSpec("/bin/sh", ("-c", "echo fine"), log_source="A B"))
    assert (await good.wait()).status == 0
    assert (await good.wait()).status == 0
    await good.close()
    assert not good.signal(15)
    bad = await backend.launch(call(), handle, ProcessSpec("/bin/sh", ("-c", "echo bad; exit 3"), silent=True))
    assert (await bad.wait()).status == 3
    await bad.close()
    backend.note(handle, "CELL", "of our own")
    told = [(line.source, line.text) async for line in backend.logs(handle, 10, False)]
    assert told == [("A B", "fine"), ("CELL", "of our own")]
    await backend.destroy(call(), handle)
    await _fails_as(ContainerNotFound, backend.launch(call(), handle, ProcessSpec("/bin/sh", ("-c", "exit 0"))))
    with pytest.raises(ContainerNotFound):
        backend.note(handle, "CELL", "nobody")


async def ends_launched_processes(backend: ContainerBackend, handle: str, rootfs: str) -> None:
    await backend.create(call(), ContainerSpec(handle=handle, rootfs=rootfs, path="", idle=True))
    await backend.run(call(), handle)
    asked = await backend.launch(call(), handle, ProcessSpec("/bin/sh", ("-c", "sleep 1000")))
    assert asked.signal(15)
    assert (await asked.wait()).signal == 15
    await asked.close()
    closed = await backend.launch(call(), handle, ProcessSpec("/bin/sh", ("-c", "sleep 1000")))
    await closed.close()
    assert (await closed.wait()).signal == 9
    left = await backend.launch(call(), handle, ProcessSpec("/bin/sh", ("-c", "sleep 1000")))
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(left.wait())
        await asyncio.sleep(0)
        await backend.destroy(call(), handle)
    assert waiting.result().signal in (9, None)
    await left.close()


async def launches_before_its_own_process_begins(backend: ContainerBackend, handle: str, rootfs: str) -> None:
    own = shell(handle, rootfs, "echo own", own_env=(("OWN", "1"),), log_source="OWN")
    container = await backend.create(call(), own)
    assert container.started_at is None
    process = await backend.launch(call(), handle, ProcessSpec("/bin/sh", ("-c", "echo setup > /made; echo set up")))
    assert (await process.wait()).status == 0
    await process.close()
    await backend.run(call(), handle)
    assert (await backend.wait(handle)).log_tail == ("set up", "own")
    assert [c.started_at is not None for c in backend.containers() if c.handle == handle] == [True]
    assert [line.source async for line in backend.logs(handle, 10, False)][-1] == "OWN"
    await _fails_as(IllegalTransition, backend.launch(call(), handle, ProcessSpec("/bin/sh", ("-c", "exit 0"))))
    assert await results.read(call(), backend, handle, "/made") == "setup\n"
    with pytest.raises(ResultMissing):
        await results.read(call(), backend, handle, "/not-made")
    await backend.destroy(call(), handle)


async def streams_files_in(backend: ContainerBackend, handle: str, rootfs: str) -> None:
    await backend.create(call(), shell(handle, rootfs, "exit 0"))
    for path, where in (("/srv/deep", "/srv/deep/file"), ("deep", "deep/file")):
        await backend.stream_in(call(), handle, path, _packed("file", b"content"))
        assert await results.read(call(), backend, handle, where) == "content"
    await backend.destroy(call(), handle)
    await _fails_as(ContainerNotFound, backend.stream_in(call(), handle, "/srv", _packed("file", b"")))


async def _packed(name: str, content: bytes) -> AsyncIterator[bytes]:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        described = tarfile.TarInfo(name)
        described.size = len(content)
        archive.addfile(described, io.BytesIO(content))
    yield packed.getvalue()


async def tells_what_a_container_uses(backend: ContainerBackend, handle: str, rootfs: str) -> None:
    limits = Limits(memory_bytes=64 << 20, disk_bytes=16 << 20, pids=77)
    assert "bytes" in backend.disk_limits()["limits"]  # type: ignore[operator]
    assert backend.limits_disk()
    await backend.create(call(), shell(handle, rootfs, "echo up; sleep 1000", limits=limits))
    await backend.run(call(), handle)
    async for _ in backend.logs(handle, 1, True):
        break
    used = backend.usage(handle)
    assert used.memory_bytes is not None
    assert used.memory_limit_bytes == 64 << 20
    assert 0 < used.memory_bytes <= used.memory_limit_bytes
    assert (used.pids or 0, used.pids_limit) >= (1, 77)
    assert used.disk is not None
    assert used.disk.used_bytes < (used.disk.limit_bytes or 0)
    assert not used.disk.full
    await backend.destroy(call(), handle)
    with pytest.raises(ContainerNotFound):
        backend.usage(handle)


async def refuses_what_makes_no_sense(backend: ContainerBackend, handle: str, rootfs: str) -> None:
    spec = shell(handle, rootfs, "sleep 1000")
    await backend.create(call(), spec)
    await _fails_as(HandleTaken, backend.create(call(), spec))
    await backend.run(call(), handle)
    await _fails_as(IllegalTransition, backend.run(call(), handle))
    await backend.destroy(call(), handle)
    await _fails_as(ContainerNotFound, backend.run(call(), handle))
    await _fails_as(ContainerNotFound, backend.stop(call(), handle, GRACE_S))
    await _fails_as(RootfsNotFound, backend.create(call(), shell(handle, "preloaded:none", "exit 0")))
    assert not any(name.startswith("preloaded:") for name in backend.held_images()), "those are told anyway"
    assert not backend.makes_privileged()
    await _fails_as(PrivilegedRefused, backend.create(call(), shell(handle, rootfs, "exit 0", privileged=True)))
    assert handle not in [container.handle for container in backend.containers()]
    with pytest.raises(ContainerNotFound):
        backend.logs(f"{handle}-never", 1, False)


async def _fails_as(kind: type[DiegoError], work: Awaitable[object]) -> None:
    """It fails, the chain has the error in it, and its outermost frame is garden's."""
    with pytest.raises(DiegoError) as caught:
        await work
    assert caught.value.find(kind) is not None
    assert caught.value.frame is not None
    assert caught.value.frame.hop == "garden"


CONTRACTS: tuple[Contract, ...] = (
    creates_runs_and_tells_the_exit,
    changes_what_it_may_reach,
    tells_the_signal,
    gives_the_addresses_to_the_environment,
    stops_within_the_grace_time,
    kills_what_ignores_sigterm,
    gives_time_to_end_before_it_destroys,
    destroys_what_ignores_sigterm,
    destroys_idempotently,
    wakes_those_who_wait_when_it_destroys,
    keeps_logs_after_destroy,
    executes_more_processes,
    launches_processes_beside_an_idle_one,
    ends_launched_processes,
    launches_before_its_own_process_begins,
    streams_files_in,
    tells_what_a_container_uses,
    refuses_what_makes_no_sense,
)
"""Each is one test: `await contract(backend, handle, rootfs)`."""
