"""Directories of the host and memory file systems in containers, working directories, and users of odd images."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cells.garden.garden import Garden
from cells.garden.spec import BindMount, Limits, ProcessSpec, TmpfsMount, Window
from diego_py.errors import DiegoError, InvalidSpec
from tests.kernel.containers import SOON_S, call, output, shell, spec, start

pytestmark = pytest.mark.kernel


@pytest.fixture
async def allowed(new_garden: Callable[..., Any], tmp_path: Path) -> tuple[Garden, Path]:
    """A garden that may mount what is below a directory, in which are a file of root and one of user 1000."""
    top = tmp_path / "volumes"
    (top / "data").mkdir(parents=True)
    (tmp_path / "secret").write_text("of the host")
    (top / "data/root").write_text("root's\n")
    (top / "data/vcap").write_text("vcap's\n")
    (top / "data/root").chmod(0o600)
    (top / "data/vcap").chmod(0o600)
    os.chown(top / "data/vcap", 1000, 1000)
    return await new_garden(bind_source_dirs=(str(top),)), top


async def test_bind_has_the_ids_of_the_container(allowed: tuple[Garden, Path]) -> None:
    garden, top = allowed
    mounts = (BindMount(str(top / "data"), "/mnt/data", readonly=False), BindMount(str(top / "data/vcap"), "/one"))
    script = """
        stat -c '%n %u:%g' /mnt/data/root /mnt/data/vcap; cat /one; cat /mnt/data/root 2>&1
        echo new > /mnt/data/vcap && echo written; (echo no > /one) 2>&1
        grep -E ' /mnt/data | /one ' /proc/self/mountinfo | cut -d' ' -f5,6,7
    """
    lines = await output(garden, shell("a", script, user="vcap", mounts=mounts))
    assert lines[:3] == ["/mnt/data/root 0:0", "/mnt/data/vcap 1000:1000", "vcap's"]
    assert "ermission denied" in lines[3]
    assert lines[4] == "written"
    assert "ead-only" in lines[5]
    flags = {line.split()[0]: line.split()[1:] for line in lines[6:]}
    assert {"rw", "nosuid", "nodev"} <= set(flags["/mnt/data"][0].split(","))
    assert {"ro", "nosuid", "nodev"} <= set(flags["/one"][0].split(","))
    assert flags["/mnt/data"][1] == "-", "no peer, no master: nothing propagates"
    assert (top / "data/vcap").read_text() == "new\n"
    assert (top / "data/vcap").stat().st_uid == 1000


async def test_readonly_cannot_be_undone(allowed: tuple[Garden, Path]) -> None:
    garden, top = allowed
    script = "mount -o remount,rw,bind /d; umount /d; touch /d/x; mknod /d/n c 1 3; cat /d/root"
    assert "root's" in await output(garden, shell("a", script, mounts=(BindMount(str(top / "data"), "/d"),)))
    assert sorted(os.listdir(top / "data")) == ["root", "vcap"]


async def test_a_mount_below_the_source_stays_outside(allowed: tuple[Garden, Path]) -> None:
    garden, top = allowed
    (top / "data/below").mkdir()
    os.system(f"mount -t tmpfs none {top}/data/below && touch {top}/data/below/hidden")
    try:
        assert await output(garden, shell("a", "ls /d/below", mounts=(BindMount(str(top / "data"), "/d"),))) == []
    finally:
        os.system(f"umount {top}/data/below")


@pytest.mark.parametrize(
    "below", ["../secret", "../volumes2", "link", "link/secret", "up/secret", "magic", "nothing", "data/../../secret"]
)
async def test_sources_that_are_refused(allowed: tuple[Garden, Path], below: str) -> None:
    garden, top = allowed
    (top.parent / "volumes2").mkdir()
    (top / "link").symlink_to(top.parent)
    (top / "up").symlink_to("..")
    (top / "magic").symlink_to("/proc/self/cwd")
    os.mkfifo(top / "pipe")
    for source in (f"{top}/{below}", f"{top}/pipe", str(top.parent), "/etc", "data"):
        with pytest.raises(DiegoError) as failed:
            await garden.create(call(), shell("a", "true", mounts=(BindMount(source, "/d"),)))
        assert failed.value.root.code == "garden.bind_refused"
    assert garden.containers() == []


async def test_nothing_is_mounted_where_nothing_is_allowed(garden: Garden, tmp_path: Path) -> None:
    with pytest.raises(DiegoError) as failed:
        await garden.create(call(), shell("a", "true", mounts=(BindMount(str(tmp_path), "/d"),)))
    assert failed.value.root.code == "garden.bind_refused"


@pytest.mark.parametrize(
    "destination", ["/", "d", "/proc", "/proc/sys", "/sys/x", "/dev/x", "/a/../b", "/a//b", "/a\0"]
)
async def test_destinations_that_are_refused(garden: Garden, destination: str) -> None:
    with pytest.raises(DiegoError) as failed:
        await garden.create(call(), shell("a", "true", mounts=(TmpfsMount(destination, 1 << 20),)))
    found = failed.value.find(InvalidSpec)
    assert found is not None
    assert [error["pointer"] for error in found.errors] == ["/mounts/0/destination"]


async def test_a_destination_that_is_a_link_stays_in_the_container(allowed: tuple[Garden, Path]) -> None:
    """The runtime follows it below the container's root."""
    garden, top = allowed
    before = sorted(os.listdir("/"))
    mounts = (TmpfsMount("/mnt/t", 1 << 20), BindMount(str(top / "data"), "/var/deep/d"))
    assert await output(garden, shell("a", "ls /var/deep/d; touch /mnt/t/x", mounts=mounts)) == ["root", "vcap"]
    assert sorted(os.listdir("/")) == before


async def test_memory_file_system_has_its_size_and_counts_as_memory(garden: Garden) -> None:
    script = """
        head -c 3000000 /dev/zero > /t/f; stat -c '%s' /t/f; stat -c %a /t; rm /t/f
        head -c 90000000 /dev/zero > /big/f; echo no
    """
    mounts = (TmpfsMount("/t", 1 << 20), TmpfsMount("/big", 200 << 20, mode=0o700))
    await start(garden, shell("a", script, mounts=mounts, limits=Limits(memory_bytes=32 << 20)))
    ended = await garden.wait("a")
    assert ended.oom_killed
    assert [line for line in ended.log_tail if line.isdigit()] == [str(1 << 20), "1777"]
    assert "no" not in ended.log_tail


async def test_binds_stay_after_a_restart_and_go_with_the_container(
    allowed: tuple[Garden, Path], new_garden: Callable[..., Any]
) -> None:
    garden, top = allowed
    mounts = (BindMount(str(top / "data"), "/d"), TmpfsMount("/t", 1 << 20))
    await start(garden, spec("a", "/bin/sleep", "600", mounts=mounts))
    await garden.close()
    second = await new_garden(garden.config)
    told = await second.exec(call(), "a", ProcessSpec("/bin/ls", ("/d",)), SOON_S)
    assert told.output == "root\nvcap\n"
    await second.destroy(call(), "a")
    garden._boxes.clear()


async def test_missing_working_directory_is_the_users(garden: Garden) -> None:
    script = "pwd; stat -c %u:%g:%a . .. /home/vcap"
    lines = await output(garden, shell("a", script, user="vcap", cwd="/srv/new/deep"))
    assert lines == ["/srv/new/deep", "1000:1000:755", "1000:1000:755", "1000:1000:755"]
    await start(garden, spec("a", "/bin/sleep", "600", mounts=(TmpfsMount("/t", 1 << 20),)))
    for cwd in ("/root/only/roots", "/t/in/memory"):
        process = ProcessSpec("/bin/sh", ("-c", script), user="vcap", cwd=cwd)
        told = await garden.exec(call(), "a", process, SOON_S)
        assert told.output.splitlines()[:2] == [cwd, "1000:1000:755"] or "ermission" in told.output
    process = ProcessSpec("/bin/pwd", cwd="/srv/session", terminal=Window())
    async with await garden.open(call(), "a", process) as session:
        assert await session.stdout.read() == b"/srv/session\r\n"


@pytest.mark.parametrize("cwd", ["/etc/passwd/x", "/etc/passwd", "/dangling", "/bin/../../etc/passwd"])
async def test_working_directories_that_cannot_be(garden: Garden, cwd: str) -> None:
    await start(garden, spec("a", "/bin/sleep", "600"))
    await garden.exec(call(), "a", ProcessSpec("/bin/ln", ("-s", "/nowhere/at/all", "/dangling")), SOON_S)
    with pytest.raises(DiegoError) as failed:
        await garden.exec(call(), "a", ProcessSpec("/bin/true", cwd=cwd), SOON_S)
    assert failed.value.root.code in ("runtime.working_directory", "files.kind_wrong", "files.missing")


async def test_root_needs_no_file_of_users(garden: Garden) -> None:
    lines = await output(garden, spec("a", "/bin/sh", "-c", "echo $USER $HOME; pwd", rootfs="preloaded:minimal"))
    assert lines == ["root /", "/"]


@pytest.mark.parametrize(
    ("user", "told"),
    [
        ("vcap:extra", "1000 2000 2000 vcap /home/vcap /usr/local/bin:/usr/bin:/bin"),
        ("vcap:0", "1000 0 0 vcap /home/vcap /usr/local/bin:/usr/bin:/bin"),
        ("1000", "1000 1000 1000 2000 vcap /home/vcap /usr/local/bin:/usr/bin:/bin"),
        ("4321:17", "4321 17 17 4321 / /usr/local/bin:/usr/bin:/bin"),
        ("65535:65535", "65535 65535 65535 65535 / /usr/local/bin:/usr/bin:/bin"),
        ("root", "0 0 0 root /root /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    ],
)
async def test_users_by_name_and_number(garden: Garden, user: str, told: str) -> None:
    script = "echo $(id -u) $(id -g) $(id -G) $USER $HOME $PATH"
    await start(garden, spec("a", "/bin/sleep", "600"))
    seen = await garden.exec(call(), "a", ProcessSpec("/bin/sh", ("-c", script), user=user), SOON_S)
    assert seen.output.strip() == told


@pytest.mark.parametrize("user", ["65536", "0:65536", "who", "vcap:who", ":1"])
async def test_users_that_are_not(garden: Garden, user: str) -> None:
    await start(garden, spec("a", "/bin/sleep", "600"))
    with pytest.raises(DiegoError) as failed:
        await garden.exec(call(), "a", ProcessSpec("/bin/true", user=user), SOON_S)
    assert failed.value.root.code == "garden.user_not_found"
