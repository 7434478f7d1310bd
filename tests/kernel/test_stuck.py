"""Containers that the kernel does not let go: destroy says in time what is stuck, and succeeds when it is no more."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from cells.garden import binds, demolition, furnishing
from cells.garden import kernel as os_kernel
from cells.garden.garden import Garden
from cells.garden.quota import kernel
from cells.garden.spec import BindMount, Limits, ProcessSpec
from cells.garden.threads import IDLE
from diego_py.chain import Problem, problem
from diego_py.errors import BudgetSpent, ContainerStuck, DiegoError, IllegalTransition, Outcome, RuntimeSilent
from tests.kernel.containers import call, cgroups_of, output, runtime_of_version, shell, start, until_printed
from tests.kernel.images import until
from tests.kernel.places import mounted
from tests.slowness import patient

pytestmark = pytest.mark.kernel

BUDGET_MS = 800
CREATE_MS = patient(2500)
AGAIN_MS = 500
LATE_MS = patient(1000)
"""How much later an answer may be on a machine that has much to do; without a budget it would be ten seconds."""
FREEZE = 0xC0045877
WAITS_FOR_FUSE = "mkdir /srv/remote; echo ready; until [ -e /srv/go ]; do sleep 0.01; done; cat /srv/remote/hang"


@asynccontextmanager
async def silent(pid: int, path: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A file system in a container's view that does not answer, until the end of the block or of the server."""
    argv = [sys.executable, "-m", "tests.kernel.silent_fuse", str(pid), path]
    server = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2])
    assert server.stdout is not None
    try:
        assert await server.stdout.readline() == b"ready\n"
        yield server
    finally:
        await ended(server)


async def hangs(server: asyncio.subprocess.Process) -> None:
    """Return when somebody waits for it."""
    assert server.stdout is not None
    assert await server.stdout.readline() == b"hangs\n"


async def ended(server: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        server.kill()
    await server.wait()


async def refused(garden: Garden, budget_ms: float = BUDGET_MS) -> Problem:
    """How destroying `a` fails, in time."""
    begun_s, asked = time.monotonic(), call(budget_ms)
    with pytest.raises(DiegoError) as failed:
        await garden.destroy(asked, "a")
    assert (time.monotonic() - begun_s) * 1000 < budget_ms + LATE_MS
    assert isinstance(failed.value.root, ContainerStuck)
    document = problem(failed.value, asked)
    assert document.retryable
    assert document.next
    return document


async def stays_until_its_end(garden: Garden, server: asyncio.subprocess.Process) -> None:
    """What is left of `a` is refused and harms no other container; once its server has ended it can be destroyed."""
    assert [container.state for container in garden.containers()] == ["destroying"]
    await refused(garden, AGAIN_MS)
    assert await output(garden, shell("b", "echo works")) == ["works"]
    await ended(server)
    await garden.destroy(call(), "a")
    assert garden.containers() == []


def kept(garden: Garden) -> dict[str, Any]:
    """What a stuck container still has: place in the list, record, numbers."""
    box = garden._boxes["a"]
    record = garden._host.depot.load("a")
    assert record is not None
    return {
        "state": box.container().state,
        "phase": record.phase,
        "holder": record.holder_pid,
        "numbers": (record.id_slot, record.address_number, record.ports),
        "taken": garden._host.ports.taken,
        "address": box.network.address,
    }


@pytest.mark.parametrize("who", ["process", "session", "copy"])
async def test_a_file_system_that_does_not_answer(garden: Garden, who: str) -> None:
    await start(garden, shell("a", WAITS_FOR_FUSE, ports=(8080,)))
    await until_printed(garden, "a", "ready")
    async with silent(garden._boxes["a"].init.pid, "/srv/remote") as server, asyncio.TaskGroup() as group:
        if who == "process":
            await garden.exec(call(), "a", ProcessSpec("/bin/touch", ("/srv/go",)), 20)
        elif who == "session":
            await garden.open(call(), "a", ProcessSpec("/bin/cat", ("/srv/remote/hang",)))
        else:
            copying = group.create_task(_copied(garden))
        await hangs(server)
        document = await refused(garden)
        (waiting, *_), (mount,) = document.evidence["waiting"], document.evidence["mounts"]
        assert waiting["state"] == "D"
        assert waiting["wchan"]
        assert mount["kind"] == "fuse"
        assert mount["at"] == "/srv/remote"
        assert mount["ended_by"].startswith("echo 1 > /sys/fs/fuse/connections/")
        assert kept(garden) == kept(garden) | {"state": "destroying", "phase": "destroying", "taken": 1}
        with pytest.raises(DiegoError) as closed:
            await garden.exec(call(), "a", ProcessSpec("/bin/true"), 20)
        assert closed.value.find(IllegalTransition) is not None
        assert await output(garden, shell("b", "echo works")) == ["works"]
        patient_one = group.create_task(garden.destroy(call(), "a"))
        await until(garden._boxes["a"].lock.locked)
        with pytest.raises(DiegoError) as hurried:
            await garden.destroy(call(AGAIN_MS), "a")
        assert isinstance(hurried.value.root, BudgetSpent)
        await ended(server)
        await patient_one
        assert garden.containers() == []
        assert who != "copy" or isinstance(await copying, DiegoError)


async def _copied(garden: Garden) -> DiegoError | None:
    try:
        async for _ in garden.stream_out(call(), "a", "/srv/remote/hang"):
            pass
    except DiegoError as failed:
        return failed
    return None


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[Path]:
    """Where a test may mount something on the host."""
    path = tmp_path / "remote"
    path.mkdir()
    yield path
    if path in (Path(line.split(" ")[4]) for line in Path("/proc/self/mountinfo").read_text().splitlines()):
        os_kernel.umount(str(path), os_kernel.MNT_DETACH)


async def test_a_directory_of_the_host_whose_server_does_not_answer(
    new_garden: Callable[..., Any], remote: Path
) -> None:
    """The start of a container with it fails in time; what is left of that goes when somebody answers."""
    garden = await new_garden(bind_source_dirs=(str(remote),))
    mounts = (BindMount(str(remote / "hang"), "/d"),)
    async with silent(os.getpid(), str(remote)) as server:
        begun_s, asked = time.monotonic(), call(CREATE_MS)
        with pytest.raises(DiegoError) as failed:
            await garden.create(asked, shell("a", "true", ports=(8080,), mounts=mounts))
        await hangs(server)
        assert (time.monotonic() - begun_s) * 1000 < CREATE_MS + LATE_MS
        assert isinstance(failed.value.root, ContainerStuck)
        document = problem(failed.value, asked)
        assert document.outcome == Outcome.PARTIAL
        (waiting,) = document.evidence["waiting"]
        assert waiting["what"] == "mount directories of the host for a"
        await stays_until_its_end(garden, server)


async def test_a_creation_whose_time_is_over_says_that_something_is_left(
    new_garden: Callable[..., Any], remote: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a machine that is too busy to say in time who waits for what."""
    monkeypatch.setattr(furnishing, "UNDO_S", -1000.0)
    garden = await new_garden(bind_source_dirs=(str(remote),))
    async with silent(os.getpid(), str(remote)) as server:
        asked = call(CREATE_MS)
        with pytest.raises(DiegoError) as failed:
            await garden.create(asked, shell("a", "true", mounts=(BindMount(str(remote / "hang"), "/d"),)))
        await hangs(server)
        assert isinstance(failed.value.root, BudgetSpent)
        assert problem(failed.value, asked).outcome == Outcome.PARTIAL
        assert [container.state for container in garden.containers()] == ["destroying"]
        await ended(server)
        await garden.destroy(call(), "a")
        assert garden.containers() == []


async def test_one_whose_server_falls_silent_before_the_runtime_has_it(
    new_garden: Callable[..., Any], remote: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Privileged, for such a file system has no ids to shift. The runtime is then stuck in the kernel and not we."""
    runtime = runtime_of_version(tmp_path, "runc version 1.4.0")
    garden = await new_garden(bind_source_dirs=(str(remote),), allow_privileged=True, runtime_path=runtime)
    mounts = (BindMount(str(remote / "later"), "/d"),)
    async with silent(os.getpid(), str(remote)) as server:
        real = binds.attach

        def attach(*arguments: Any) -> Any:
            made = real(*arguments)
            server.send_signal(signal.SIGUSR1)
            return made

        monkeypatch.setattr(binds, "attach", attach)
        begun_s, asked = time.monotonic(), call(CREATE_MS)
        with pytest.raises(DiegoError) as failed:
            await garden.create(asked, shell("a", "true", ports=(8080,), mounts=mounts, privileged=True))
        assert (time.monotonic() - begun_s) * 1000 < CREATE_MS + LATE_MS
        await hangs(server)
        assert isinstance(failed.value.root, RuntimeSilent)
        document = problem(failed.value, asked)
        assert document.outcome == Outcome.PARTIAL
        assert any(each["name"].startswith("runc:") for each in document.evidence["waiting"])
        assert str(remote) in {mount["at"] for mount in document.evidence["mounts"]}
        await stays_until_its_end(garden, server)


async def test_a_restart_goes_on_without_it(
    new_garden: Callable[..., Any], new_config: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demolition, "KILL_TIMEOUT_S", 1.0)
    config = new_config()
    first = await new_garden(config)
    await start(first, shell("a", WAITS_FOR_FUSE, ports=(8080,)))
    await start(first, shell("b", "exec sleep 600", ports=(8080,)))
    await until_printed(first, "a", "ready")
    async with silent(first._boxes["a"].init.pid, "/srv/remote") as server:
        await first.exec(call(), "a", ProcessSpec("/bin/touch", ("/srv/go",)), 20)
        await hangs(server)
        await refused(first)
        had = kept(first)
        await first.close()
        second: Garden = await new_garden(config)
        first._boxes.clear()
        assert {each.handle: each.state for each in second.containers()} == {"a": "destroying", "b": "running"}
        assert kept(second) == had | {"taken": 2}
        assert (await second.exec(call(), "b", ProcessSpec("/bin/true"), 20)).status == 0
        await start(second, shell("c", "exec sleep 600", ports=(8080,)))
        assert second._boxes["c"].network.address != had["address"]
        document = await refused(second)
        assert document.evidence["mounts"][0]["at"] == "/srv/remote"
        await ended(server)
        await second.destroy(call(), "a")
    assert {each.handle for each in second.containers()} == {"b", "c"}


@pytest.fixture
def frozen() -> Iterator[Callable[[Path], None]]:
    """Freezes file systems for one test."""
    ones: list[Path] = []

    def freeze(path: Path) -> None:
        kernel._ask(str(path), FREEZE, bytes(4))
        ones.append(path)

    yield freeze
    for path in ones:
        if path.exists():
            kernel.thaw(str(path))


async def test_a_volume_of_its_own_that_is_frozen_is_thawed(
    new_garden: Callable[..., Any], frozen: Callable[[Path], None]
) -> None:
    garden = await new_garden(disk_driver="loop")
    await start(garden, shell("a", "while :; do date >/srv/x; done", limits=Limits(disk_bytes=16 << 20)))
    box = garden._boxes["a"]
    frozen(box.directory.volume)
    await until(lambda: "D" in _states(garden, "a"))
    await garden.destroy(call(), "a")
    assert garden.containers() == []


def _states(garden: Garden, handle: str) -> str:
    found = ""
    for pid in garden._host.cgroups.processes(handle):
        with contextlib.suppress(OSError):
            found += Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    return found


async def test_volumes_that_are_frozen_hold_one_thread_each(
    new_garden: Callable[..., Any], frozen: Callable[[Path], None]
) -> None:
    """The operator takes a snapshot of what all volumes are on: then nothing can be removed from there, for a while."""
    with mounted("plain") as volumes:
        garden = await new_garden(volumes_dir=str(volumes), disk_driver="none")
        await start(garden, shell("a", "echo x >/srv/x; echo ready; exec sleep 600"))
        await until_printed(garden, "a", "ready")
        frozen(volumes)
        threads = _threads()
        document = await refused(garden)
        (waiting,) = document.evidence["waiting"]
        assert waiting["what"] == "remove the root of a"
        assert waiting["state"] == "D"
        await refused(garden, AGAIN_MS)
        assert _threads().count("remove the root of a") == 1
        kernel.thaw(str(volumes))
        await garden.destroy(call(), "a")
        assert garden.containers() == []
        assert _threads() == threads
        await garden.close()


def _threads() -> list[str]:
    """Names of threads, but for those that wait for something to do: there may be more or fewer of them at any time."""
    return [name for thread in threading.enumerate() if not (name := thread.name).startswith(("asyncio_", IDLE))]


@pytest.mark.parametrize("sidecar", [False, True], ids=["container", "sidecar"])
async def test_cgroups_that_it_made_and_froze(new_garden: Callable[..., Any], tmp_path: Path, sidecar: bool) -> None:
    runtime = runtime_of_version(tmp_path, "runc version 1.4.0")
    garden = await new_garden(allow_privileged=True, runtime_path=runtime)
    await start(garden, shell("main", "exec sleep 600", privileged=True))
    await start(garden, shell("a", "exec sleep 600", privileged=True, sandbox_of="main" if sidecar else None))
    below = [Path(path, "below") for path in cgroups_of(garden, "a")]
    freezers = {"freezer.state": "FROZEN", "cgroup.freeze": "1"}  # Of cgroup v1, which has it in one tree; of v2.
    freezer, name = next((path, name) for name in freezers for path in below if (path.parent / name).exists())
    await garden.exec(call(), "a", ProcessSpec("/bin/sh", ("-c", "sleep 77 >/dev/null 2>&1 &")), 20)
    pid = str(max(garden._host.cgroups.processes("a")))
    for path in below:
        path.mkdir()
        with contextlib.suppress(OSError):  # Some want settings first.
            (path / "cgroup.procs").write_text(pid)
    assert pid in (freezer / "cgroup.procs").read_text().split()
    (freezer / name).write_text(freezers[name])
    await garden.destroy(call(), "a")
    assert [container.handle for container in garden.containers()] == ["main"]
    assert garden.containers()[0].state == "running"
