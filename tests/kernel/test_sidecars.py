"""Containers in another one's sandbox: what they share with it, what is their own, and that they never outlive it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cells.garden import processes
from cells.garden.garden import Garden
from cells.garden.monitor import gone
from cells.garden.processes import identify, is_alive
from cells.garden.spec import ContainerSpec, EgressRule, Limits, ProcessSpec
from diego_py.errors import (
    ContainerNotFound,
    DiegoError,
    ExecNotFound,
    InvalidSpec,
    RuntimeFailed,
    SandboxFailed,
    UserNotFound,
)
from tests.kernel.containers import (
    SOON_S,
    call,
    cgroups_of,
    every_runtime,
    move_below,
    runtime_of_version,
    shell,
    start,
    until_printed,
)
from tests.kernel.images import until
from tests.kernel.test_privileged import SAFE
from tests.kernel.test_restart import orphans, owner

pytestmark = pytest.mark.kernel
__all__ = ["orphans"]

MEBIBYTE = 1024 * 1024
SERVER = "httpd -p 8080 -h /srv/www; echo serving; trap 'echo main got TERM; exit 3' TERM; while :; do sleep 0.05; done"
WAIT = "echo begun; trap 'exit 4' TERM; while :; do sleep 0.05; done"


def sidecar(script: str, name: str = "side", **more: Any) -> ContainerSpec:
    return shell(f"main.{name}", script, sandbox_of="main", rootfs=more.pop("rootfs", "preloaded:minimal"), **more)


async def start_main(garden: Garden, **more: Any) -> None:
    await start(garden, shell("main", SERVER, **more))
    await until_printed(garden, "main", "serving")


async def printed(garden: Garden, wanted: ContainerSpec) -> list[str]:
    """What a sidecar prints from begin to end; it is destroyed."""
    await start(garden, wanted)
    ended = await garden.wait(wanted.handle)
    assert ended.status == 0, ended
    await garden.destroy(call(), wanted.handle)
    return [line.text async for line in garden.logs(wanted.handle)]


async def said(garden: Garden, handle: str, script: str) -> str:
    result = await garden.exec(call(), handle, ProcessSpec("/bin/busybox", ("sh", "-c", script)), SOON_S)
    return result.output.strip()


async def works(garden: Garden, handle: str = "main") -> bool:
    return await said(garden, handle, "echo well") == "well"


def commands(garden: Garden, handle: str) -> str:
    """What runs in a container, arguments and processes with a zero between them."""
    found = ""
    for pid in garden._host.cgroups.processes(handle):
        with contextlib.suppress(OSError):
            found += Path(f"/proc/{pid}/cmdline").read_text()
    return found


def left(garden: Garden, handle: str) -> list[str]:
    host = garden._host
    directory = host.depot.directory(handle, str(host.volumes.path(handle)))
    places = [str(path) for path in (directory.path, directory.volume, host.depot.runtime / handle) if path.exists()]
    return places + [str(place) for place in cgroups_of(garden, handle)]


@every_runtime
async def test_what_is_shared_and_what_is_not(garden: Garden) -> None:
    await start_main(garden, hostname="the-main-one", ports=(8080,))
    own = "; ".join(f"busybox readlink /proc/self/ns/{kind}" for kind in ("user", "pid", "net", "ipc", "uts"))
    apart = "; ".join(f"busybox readlink /proc/self/ns/{kind}" for kind in ("mnt", "cgroup"))
    script = """
        busybox wget -qO- http://127.0.0.1:8080/index.html
        busybox hostname
        busybox ps -o args | busybox grep -c '^httpd -p 8080'
        [ -e /srv ] && echo main files
        busybox cat /etc/hosts | busybox grep -c the-main-one
    """
    assert await printed(garden, sidecar(script)) == ["hello", "the-main-one", "1", "1"]
    begun = await garden.create(call(), sidecar(WAIT))
    assert begun.sandbox_of == "main"
    assert begun.network == next(each for each in garden.containers() if each.handle == "main").network
    await garden.run(call(), "main.side")
    assert await said(garden, "main", own) == await said(garden, "main.side", own)
    theirs = (await said(garden, "main", apart), await said(garden, "main.side", apart))
    assert not {*theirs[0].split()} & {*theirs[1].split()}
    # Seen from the other side, too: it, and at times what it has just forked.
    assert await said(garden, "main", "ps -o args | grep '^/bin/sh -c echo begun' | sort -u | wc -l") == "1"
    assert (await garden.stop(call(), "main.side", grace_s=SOON_S)).status == 4
    assert await works(garden)


async def test_its_own_out_of_memory_kills_no_other(garden: Garden) -> None:
    await start_main(garden)
    await start(garden, sidecar(WAIT, "calm"))
    limits = Limits(memory_bytes=32 * MEBIBYTE, pids=7, cpu_weight=10)
    await start(garden, sidecar("exec tail -c 200m /dev/zero", "hog", limits=limits, rootfs="preloaded:busybox"))
    ended = await garden.wait("main.hog")
    assert (ended.oom_killed, ended.signal) == (True, 9)
    assert (ended.cgroup["memory_limit_bytes"], ended.cgroup["pids_limit"]) == (limits.memory_bytes, 7)
    assert await works(garden)
    assert await works(garden, "main.calm")
    main = await garden.stop(call(), "main", grace_s=SOON_S)
    assert (main.status, main.oom_killed) == (3, False)


async def test_its_own_disk_limit(new_garden: Callable[..., Any]) -> None:
    garden = await new_garden(volumes_store_mb=256)
    await start_main(garden)
    write = "busybox dd if=/dev/zero of=/big bs=1M count=20 2>/dev/null && echo written || echo full"
    fill = f"{write}; exec busybox sleep 1000"
    await start(garden, sidecar(fill, "small", limits=Limits(disk_bytes=8 * MEBIBYTE)))
    await start(garden, sidecar(fill, "large", limits=Limits(disk_bytes=64 * MEBIBYTE)))
    await until_printed(garden, "main.large", "written")
    await until_printed(garden, "main.small", "full")
    await garden.stop(call(), "main.small", grace_s=0)
    used = (await garden.wait("main.small")).disk
    assert used is not None
    assert used.limit_bytes == 8 * MEBIBYTE
    assert used.used_bytes <= 8 * MEBIBYTE
    assert await said(garden, "main", "dd if=/dev/zero of=/big bs=1M count=20 2>/dev/null && echo written") == "written"


async def test_own_log_and_status_and_the_end_of_one_is_not_the_end_of_others(garden: Garden) -> None:
    await start_main(garden)
    await start(garden, sidecar("echo to its own log; exit 9", "short"))
    assert (await garden.wait("main.short")).status == 9
    await start(garden, sidecar(WAIT))
    assert [line.text async for line in garden.logs("main.short")] == ["to its own log"]
    assert [line.text async for line in garden.logs("main")] == ["serving"]
    assert (await garden.stop(call(), "main", grace_s=SOON_S)).status == 3
    assert await works(garden, "main.side")
    # Beside a container that has ended, too.
    assert await printed(garden, sidecar("echo late", "late")) == ["late"]


async def test_an_orphan_stays_in_the_sidecar_and_goes_with_it(garden: Garden) -> None:
    await start_main(garden)
    await start(garden, sidecar(f"(busybox sleep 1000 &); {WAIT}", limits=Limits(pids=9)))
    await until_printed(garden, "main.side", "begun")
    inside = {identify(pid) for pid in garden._host.cgroups.processes("main.side")}
    assert len(inside) >= 2
    await garden.destroy(call(), "main.side")
    assert not any(map(is_alive, inside))
    assert left(garden, "main.side") == []
    assert await said(garden, "main", "wget -qO- http://127.0.0.1:8080/index.html") == "hello"


async def test_destroyed_with_what_is_in_cgroups_below_its_own(garden: Garden) -> None:
    await start_main(garden)
    await start(garden, sidecar(f"(busybox sleep 1000 &); {WAIT}"))
    await until_printed(garden, "main.side", "begun")
    inside = garden._host.cgroups.processes("main.side")
    move_below(garden, "main.side", *inside)
    await garden.destroy(call(), "main.side")
    assert not any(is_alive(identify(pid)) for pid in inside)
    assert left(garden, "main.side") == []
    assert await works(garden)


@every_runtime
@pytest.mark.parametrize("begun", [True, False], ids=["running", "starting"])
async def test_destroyed_with_what_talks_to_it_and_what_runs_in_it(garden: Garden, begun: bool) -> None:
    """An extra process that the runtime is just starting must not be the one that keeps the sidecar there."""
    await start_main(garden)
    await start(garden, sidecar(WAIT))
    session = await garden.open(call(), "main.side", ProcessSpec("/bin/busybox", ("cat",)))
    extra = ProcessSpec("/bin/busybox", ("sleep", "1000"))
    box = garden._box("main.side")

    async def destroy() -> None:
        await until(lambda: "sleep\x001000" in commands(garden, "main.side") if begun else box.runtimes.count == 1)
        await garden.destroy(call(), "main.side")

    running = garden.exec(call(), "main.side", extra, 600)
    ended, destroyed = await asyncio.gather(running, destroy(), return_exceptions=True)
    assert destroyed is None
    assert (await session.wait()) == 128 + 9
    if isinstance(ended, BaseException):
        assert not begun
        assert isinstance(_causes(ended)[-1], RuntimeFailed), _causes(ended)
    else:
        # crun, killed in the middle of it, does not always say more than that it failed.
        assert ended.status == 128 + 9 or (not begun and ended.status == 255)
    assert left(garden, "main.side") == []
    assert await works(garden)


async def test_a_missing_program_in_the_words_of_the_runtime_and_nothing_left(garden: Garden) -> None:
    await start_main(garden)
    with pytest.raises(DiegoError) as failed:
        await start(garden, ContainerSpec("main.side", "preloaded:minimal", "/not/there", sandbox_of="main"))
    causes = _causes(failed.value)
    assert isinstance(causes[-1], ExecNotFound)
    assert "/not/there" in str(causes[-1])
    assert left(garden, "main.side") == []
    assert [container.handle for container in garden.containers()] == ["main"]
    assert await works(garden)
    assert await printed(garden, sidecar("echo again")) == ["again"]


async def test_destroyed_with_its_container(garden: Garden) -> None:
    await start_main(garden)
    await garden.create(call(), sidecar(WAIT, "waits"))
    await start(garden, sidecar(WAIT, "runs"))
    await start(garden, sidecar("exit 1", "ended"))
    await garden.wait("main.ended")
    async with asyncio.TaskGroup() as group:
        group.create_task(garden.create(call(), sidecar(WAIT, "half")))
        await until(lambda: "main.half" in garden._boxes)
        await garden.destroy(call(), "main")
    assert garden.containers() == []
    for handle in ("main", "main.waits", "main.runs", "main.ended", "main.half"):
        assert left(garden, handle) == []
    with pytest.raises(DiegoError) as failed:
        await garden.create(call(), sidecar(WAIT))
    assert isinstance(_causes(failed.value)[-1], ContainerNotFound)


async def test_users_and_the_place_of_a_user_namespace(garden: Garden) -> None:
    await start_main(garden)
    as_vcap = {"rootfs": "preloaded:busybox", "user": "vcap"}
    script = "id -u; id -G; cd; pwd; touch mine && stat -c %u mine; touch /srv/x 2>/dev/null || echo no"
    assert await printed(garden, sidecar(script, **as_vcap)) == ["1000", "1000 2000", "/home/vcap", "1000", "no"]
    # A user of the image of the main container is none of this one's.
    with pytest.raises(DiegoError) as failed:
        await garden.create(call(), sidecar(WAIT, user="vcap"))
    assert isinstance(_causes(failed.value)[-1], UserNotFound)
    assert left(garden, "main.side") == []
    assert await printed(garden, sidecar("busybox id -u; echo $A; busybox pwd", env=(("A", "b"),), cwd="/bin")) == [
        "0",
        "b",
        "/bin",
    ]


@pytest.mark.parametrize(
    "wrong", [{"ports": (80,)}, {"egress": (EgressRule("all", ("0.0.0.0/0",)),)}, {"hostname": "mine"}]
)
async def test_what_is_the_main_containers_cannot_be_asked_for(garden: Garden, wrong: dict[str, Any]) -> None:
    await start_main(garden)
    with pytest.raises(DiegoError) as failed:
        await garden.create(call(), sidecar(WAIT, **wrong))
    refused = _causes(failed.value)[-1]
    assert isinstance(refused, InvalidSpec)
    assert [error["pointer"] for error in refused.errors] == [f"/{name}" for name in wrong]


async def test_only_beside_a_whole_main_container(garden: Garden) -> None:
    await start_main(garden)
    await start(garden, sidecar(WAIT))
    with pytest.raises(DiegoError) as failed:
        await garden.create(call(), shell("deeper", WAIT, sandbox_of="main.side"))
    assert isinstance(_causes(failed.value)[-1], InvalidSpec)
    with pytest.raises(DiegoError) as failed:
        await garden.set_egress(call(), "main.side", ())
    assert isinstance(_causes(failed.value)[-1], InvalidSpec)
    holder = garden._box("main").holder
    processes.kill(holder)
    await gone(holder)
    with pytest.raises(DiegoError) as failed:
        await garden.create(call(), sidecar(WAIT, "other"))
    assert isinstance(_causes(failed.value)[-1], SandboxFailed)


async def test_it_is_as_privileged_as_its_container(new_garden: Callable[..., Any], tmp_path: Path) -> None:
    garden = await new_garden(allow_privileged=True, runtime_path=runtime_of_version(tmp_path, SAFE))
    for main in (False, True):
        await start_main(garden, privileged=main)
        with pytest.raises(DiegoError) as failed:
            await garden.create(call(), sidecar(WAIT, privileged=not main))
        refused = _causes(failed.value)[-1]
        assert isinstance(refused, InvalidSpec)
        assert [error["pointer"] for error in refused.errors] == ["/privileged"]
        script = "busybox id -u; busybox cut -c-11 /proc/self/uid_map; busybox ps -o args | busybox grep -c '^httpd'"
        uid, mapped, seen = await printed(garden, sidecar(script, privileged=main))
        assert (uid, mapped.split(), seen) == ("0", ["0"], "1")
        await garden.create(call(), sidecar(WAIT, privileged=main))
        inside = Path(f"/proc/{garden._box('main.side').init.pid}/uid_map").read_text().split()
        assert (int(inside[1]) == 0) is main
        await garden.destroy(call(), "main")
        assert left(garden, "main.side") == []


@every_runtime
async def test_adopted_with_its_container(new_garden: Callable[..., Any], new_config: Callable[..., Any]) -> None:
    config = new_config()
    async with owner(config, ADOPTED):
        pass
    garden = await new_garden(config)
    seen = {container.handle: (container.state, container.sandbox_of) for container in garden.containers()}
    assert seen == {
        "main": ("running", None),
        "main.ended": ("exited", "main"),
        "main.runs": ("running", "main"),
        "main.waits": ("created", "main"),
    }
    assert (await garden.wait("main.ended")).status == 6
    await garden.run(call(), "main.waits")
    assert (await garden.wait("main.waits")).status == 8
    await garden.destroy(call(), "main.runs")
    # Its number is free again, no other's is.
    await garden.create(call(), sidecar(WAIT, "new"))
    assert sorted(box.record.part for box in garden._boxes.values()) == [0, 1, 2, 3]
    assert await works(garden)
    await garden.destroy(call(), "main")
    assert garden.containers() == []


async def test_without_its_container_it_is_not_adopted(
    new_garden: Callable[..., Any], new_config: Callable[..., Any]
) -> None:
    config = new_config()
    async with owner(config, ADOPTED):
        pass
    Path(config.state_dir, "containers/main/state.json").write_text("torn")
    garden = await new_garden(config)
    assert garden.containers() == []
    assert garden._host.depot.handles() == []


ADOPTED = """
async def scenario(garden, hang):
    await start(garden, shell("main", "while :; do sleep 0.05; done"))
    wait = "while :; do sleep 0.05; done"
    await start(garden, shell("main.runs", wait, sandbox_of="main"))
    await start(garden, shell("main.ended", "exit 6", sandbox_of="main"))
    await garden.wait("main.ended")
    await garden.create(call(), shell("main.waits", "exit 8", sandbox_of="main"))
"""


def _causes(error: BaseException) -> list[BaseException]:
    found = [error]
    while found[-1].__cause__ is not None:
        found.append(found[-1].__cause__)
    return found
