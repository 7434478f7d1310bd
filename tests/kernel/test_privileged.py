"""Privileged containers: root of the host's ids with all that the cell may do, and still every other wall."""

from __future__ import annotations

import io
import tarfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cells.garden import runtimes
from cells.garden.garden import Garden
from cells.garden.spec import BindMount, ContainerSpec, Limits, ProcessSpec
from diego_py.errors import DiegoError, Outcome, PrivilegedRefused
from tests.kernel.containers import SOON_S, call, output, runtime_of_version, shell, start, until_printed
from tests.kernel.images import until
from tests.kernel.places import PLACES, place

pytestmark = pytest.mark.kernel

SAFE = "runc version 1.4.0"
MEBIBYTE = 1 << 20
OWN_CAPABILITIES = next(line for line in Path("/proc/self/status").read_text().splitlines() if "CapBnd" in line)
SEEN = "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status; cat /proc/self/uid_map"


def privileged(handle: str, script: str, **more: Any) -> ContainerSpec:
    return shell(handle, script, privileged=True, **more)


@pytest.fixture
def allowing(tmp_path: Path) -> dict[str, Any]:
    """Settings of a cell that makes them."""
    return {"allow_privileged": True, "runtime_path": runtime_of_version(tmp_path, SAFE)}


@pytest.fixture
async def garden(new_garden: Callable[..., Any], allowing: dict[str, Any]) -> Garden:
    made: Garden = await new_garden(**allowing)
    return made


def status(lines: list[str]) -> dict[str, str]:
    return {name: value.strip() for name, colon, value in (line.partition(":") for line in lines) if colon}


async def test_root_is_the_hosts_with_every_capability_of_the_cell(garden: Garden) -> None:
    lines = await output(garden, privileged("a", f"{SEEN}; cat /proc/sys/kernel/ostype; ls /proc/kcore"))
    seen = status(lines)
    assert seen["CapEff"] == seen["CapBnd"] == seen["CapPrm"] == OWN_CAPABILITIES.split()[1]
    assert (seen["CapInh"], seen["CapAmb"]) == ("0" * 16, "0" * 16)
    assert (seen["NoNewPrivs"], seen["Seccomp"]) == ("0", "0")
    assert "0 0 4294967295" in {" ".join(line.split()) for line in lines}


async def test_the_cell_says_that_it_makes_them(garden: Garden) -> None:
    assert garden.makes_privileged()


async def test_another_user_has_no_capability_until_it_becomes_root(garden: Garden) -> None:
    seen = status(await output(garden, privileged("a", SEEN, user="vcap")))
    assert (seen["CapEff"], seen["CapPrm"], seen["CapAmb"]) == ("0" * 16,) * 3
    assert seen["CapBnd"] == OWN_CAPABILITIES.split()[1]


async def test_an_ordinary_one_beside_it_is_as_ever(garden: Garden) -> None:
    await start(garden, privileged("a", "echo up; exec sleep 600"))
    await until_printed(garden, "a", "up")
    lines = await output(garden, shell("b", f"{SEEN}; mount -t tmpfs x /tmp || echo refused"))
    seen = status(lines)
    assert (seen["NoNewPrivs"], seen["Seccomp"]) == ("1", "2")
    assert bin(int(seen["CapEff"], 16)).count("1") == 11
    assert "refused" in lines
    assert not any(line.split()[:2] == ["0", "0"] for line in lines)


async def test_it_mounts_and_sets_its_own_network(garden: Garden) -> None:
    script = """
    mount -t tmpfs mine /tmp && echo x > /tmp/x && cat /tmp/x
    echo 0 > /proc/sys/net/ipv4/ip_forward && cat /proc/sys/net/ipv4/ip_forward
    ip link add extra type veth && ls /sys/class/net
    """
    before = Path("/proc/sys/net/ipv4/ip_forward").read_text()
    mounts = Path("/proc/self/mountinfo").read_text()
    lines = await output(garden, privileged("a", script))
    assert lines[:2] == ["x", "0"]
    assert "extra" in lines
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == before
    assert "mine" not in Path("/proc/self/mountinfo").read_text().replace(mounts, "")
    assert not Path("/sys/class/net/extra").exists()


async def test_it_has_its_own_namespaces_and_processes(garden: Garden) -> None:
    names = "mnt pid net ipc uts cgroup"
    lines = await output(
        garden, privileged("a", f"for n in {names}; do readlink /proc/self/ns/$n; done; ps -o pid,comm")
    )
    host = {Path(f"/proc/self/ns/{name}").readlink().name for name in names.split()}
    assert len(lines[:6]) == 6
    assert not host & set(lines[:6])
    processes = lines[7:]
    assert len(processes) <= 3, processes  # What holds its namespaces, the shell, ps.


async def test_memory_is_limited(garden: Garden) -> None:
    limits = Limits(memory_bytes=16 * MEBIBYTE)
    await start(garden, privileged("a", "exec tail -c 100000000 /dev/zero", limits=limits))
    assert (await garden.wait("a")).oom_killed


DIVIDES = """
mount -o remount,bind,rw /sys/fs/cgroup && cd /sys/fs/cgroup && mkdir own inner && echo 0 > own/cgroup.procs
echo '+memory +pids' > cgroup.subtree_control && echo 8M > inner/memory.max
sh -c 'echo 0 > inner/cgroup.procs; exec tail -c 100m /dev/zero'
echo inner $?; trap 'exit 7' TERM; while :; do sleep 0.05; done
"""


async def test_its_cgroup_is_its_own_to_divide(garden: Garden) -> None:
    """As systemd does there. Nobody may be in a cgroup that passes controllers on, so who enters goes where it is."""
    if not Path("/sys/fs/cgroup/cgroup.controllers").exists():
        pytest.skip("needs cgroup v2 alone: in v1 no cgroup passes controllers on")
    await start(garden, privileged("a", DIVIDES, limits=Limits(memory_bytes=64 * MEBIBYTE)))
    await until_printed(garden, "a", "inner 137")
    assert garden._boxes["a"].init.pid in garden._host.cgroups.processes("a")
    result = await garden.exec(call(), "a", ProcessSpec("/bin/cat", ("/proc/self/cgroup",)), SOON_S)
    assert (result.status, result.output) == (0, "0::/own\n")
    ended = await garden.stop(call(), "a", SOON_S)
    # What died there had less memory than the container has: that is no end of the container.
    assert (ended.status, ended.oom_killed, ended.cgroup["memory_limit_bytes"]) == (7, False, 64 * MEBIBYTE)


@pytest.fixture(params=PLACES)
def settings(request: pytest.FixtureRequest, host_sweep: None) -> Iterator[dict[str, Any]]:
    with place(request.param) as made:
        yield made


async def test_disk_is_limited(
    settings: dict[str, Any], new_garden: Callable[..., Any], allowing: dict[str, Any]
) -> None:
    """Also where others are held by a quota, which the kernel does not apply to whoever has CAP_SYS_RESOURCE."""
    garden = await new_garden(**settings, **allowing)
    fill = "dd if=/dev/zero of=/big bs=64k count=200 2>/dev/null || echo full; wc -c < /big"
    lines = await output(garden, privileged("a", fill, limits=Limits(disk_bytes=4 * MEBIBYTE)))
    assert lines[0] == "full"
    assert 2 * MEBIBYTE < int(lines[1]) < 6 * MEBIBYTE
    assert garden._host.volumes.handles() == set()


async def test_the_network_is_as_closed_as_others(garden: Garden, host_address: str) -> None:
    script = f"""
    ip address flush dev eth0; ip address add 169.254.1.1/16 dev eth0; ip route add {host_address} dev eth0
    wget -T 1 -O- http://{host_address}:1/ || echo closed
    """
    assert "closed" in await output(garden, privileged("a", script))


async def test_exec_and_files_in_and_out(garden: Garden) -> None:
    await start(garden, privileged("a", "echo up; exec sleep 600"))
    await until_printed(garden, "a", "up")
    result = await garden.exec(call(), "a", ProcessSpec("/bin/sh", ("-c", SEEN)), SOON_S)
    seen = status(result.output.splitlines())
    assert (seen["CapEff"], seen["NoNewPrivs"]) == (OWN_CAPABILITIES.split()[1], "0")

    async def archive() -> AsyncIterator[bytes]:
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode="w") as tar:
            entry = tarfile.TarInfo("hello")
            entry.size = 5
            tar.addfile(entry, io.BytesIO(b"world"))
        yield made.getvalue()

    for user, owner in (("root", "0"), ("vcap", "1000")):
        await garden.stream_in(call(), "a", f"/tmp/{user}", archive(), user)
        found = await garden.exec(call(), "a", ProcessSpec("/bin/stat", ("-c", "%u", f"/tmp/{user}/hello")), SOON_S)
        assert found.output.strip() == owner

    async def fetched() -> bytes:
        whole = b"".join([chunk async for chunk in garden.stream_out(call(), "a", "/tmp/vcap/hello", "vcap")])
        with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
            content = tar.extractfile("hello")
            assert content is not None
            return content.read()

    assert await fetched() == b"world"
    with pytest.raises(DiegoError) as denied:
        assert [chunk async for chunk in garden.stream_out(call(), "a", "/root/", "vcap")]
    assert denied.value.root.code == "files.denied"
    await garden.stop(call(), "a", 0.0)
    assert await fetched() == b"world"


async def test_directories_of_the_host_have_their_own_ids(
    new_garden: Callable[..., Any], allowing: dict[str, Any], tmp_path: Path
) -> None:
    garden = await new_garden(**allowing, bind_source_dirs=(str(tmp_path),))
    (tmp_path / "shared").mkdir()
    mounts = (BindMount(str(tmp_path / "shared"), "/shared", readonly=False),)
    await output(garden, privileged("a", "touch /shared/a; chown 1000 /shared/a", mounts=mounts))
    assert (tmp_path / "shared/a").stat().st_uid == 1000


async def test_it_is_adopted_and_destroyed_wholly(
    new_garden: Callable[..., Any], new_config: Callable[..., Any], allowing: dict[str, Any]
) -> None:
    config = new_config(**allowing, sandboxes_ready=1)
    garden = await new_garden(config)
    script = "mount -t tmpfs mine /tmp; ip link del eth0; (setsid sleep 601 &); echo up; exec sleep 600"
    await start(garden, privileged("a", script, limits=Limits(disk_bytes=4 * MEBIBYTE)))
    await until_printed(garden, "a", "up")
    await garden.close()
    later = await new_garden(config)
    assert [container.state for container in later.containers()] == ["running"]
    result = await later.exec(call(), "a", ProcessSpec("/bin/sh", ("-c", SEEN)), SOON_S)
    assert status(result.output.splitlines())["CapEff"] == OWN_CAPABILITIES.split()[1]
    await later.destroy(call(), "a")
    assert later.containers() == []


async def test_a_ready_sandbox_gives_its_place(new_garden: Callable[..., Any], allowing: dict[str, Any]) -> None:
    """The only id range is that of a prepared sandbox, which has a user namespace."""
    garden = await new_garden(**allowing, sandboxes_ready=1, id_slots=1)
    await until(lambda: bool(garden._host.sandboxes._ready))
    assert "0 0 4294967295" in {" ".join(line.split()) for line in await output(garden, privileged("a", SEEN))}
    await until(lambda: bool(garden._host.sandboxes._ready))
    assert "0 0 4294967295" not in {" ".join(line.split()) for line in await output(garden, shell("b", SEEN))}


async def refused(garden: Garden) -> PrivilegedRefused:
    assert not garden.makes_privileged()
    with pytest.raises(DiegoError) as caught:
        await garden.create(call(), privileged("a", "exit 0"))
    error = caught.value.root
    assert isinstance(error, PrivilegedRefused)
    assert error.outcome is Outcome.NOT_STARTED
    assert garden.containers() == []
    return error


async def test_it_is_refused_unless_the_cell_allows_it(
    new_garden: Callable[..., Any], allowing: dict[str, Any]
) -> None:
    error = await refused(await new_garden(runtime_path=allowing["runtime_path"]))
    assert error.evidence == {"reason": "not_allowed"}


async def test_it_is_refused_below_the_first_safe_runtime(new_garden: Callable[..., Any], tmp_path: Path) -> None:
    path = runtime_of_version(tmp_path, "runc version 1.1.5")
    error = await refused(await new_garden(allow_privileged=True, runtime_path=path))
    assert error.evidence == {"reason": "runtime", "runtime": "runc", "version": "1.1.5"}
    assert runtimes.parse("runc version 1.1.5", path).shortcoming() in error.message
