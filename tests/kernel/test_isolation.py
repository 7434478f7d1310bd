"""The walls of a container, tried from inside."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from cells.garden.bundle.paths import MASKED, READONLY
from cells.garden.garden import Garden
from cells.garden.spec import Limits
from tests.kernel.containers import call, cgroups_of, every_runtime, output, shell, start, until_printed

pytestmark = [pytest.mark.kernel, every_runtime]

ELEVEN_CAPABILITIES = "00000000800405fb"
NONE = "0000000000000000"
MEMORY_BYTES = 32 << 20


async def status(garden: Garden, user: str) -> dict[str, str]:
    lines = await output(garden, shell("a", "cat /proc/self/status", user=user))
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


async def test_root_has_eleven_capabilities_and_no_more(garden: Garden) -> None:
    seen = await status(garden, "root")
    assert {seen[name] for name in ("CapBnd", "CapEff", "CapPrm")} == {ELEVEN_CAPABILITIES}
    assert (seen["CapInh"], seen["CapAmb"]) == (NONE, NONE)
    assert (seen["Seccomp"], seen["NoNewPrivs"]) == ("2", "1")


async def test_users_have_no_capabilities(garden: Garden) -> None:
    seen = await status(garden, "vcap")
    assert {seen[name] for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == {NONE}
    assert seen["CapBnd"] == ELEVEN_CAPABILITIES
    assert (seen["Seccomp"], seen["NoNewPrivs"]) == ("2", "1")


async def test_two_containers_share_no_id(garden: Garden) -> None:
    for handle in ("a", "b"):
        await start(garden, shell(handle, "cat /proc/self/uid_map /proc/self/gid_map"))
        await garden.wait(handle)  # ended, but both are there
    lines = [[line.text async for line in garden.logs(handle)] for handle in ("a", "b")]
    one, two = lines[0][0].split(), lines[1][0].split()
    assert (one[0], one[2], two[0], two[2]) == ("0", "65536", "0", "65536")
    assert abs(int(one[1]) - int(two[1])) >= 65_536
    assert int(one[1]) >= garden.config.id_base


async def test_files_of_the_image_belong_to_the_containers_root(garden: Garden) -> None:
    script = "stat -c '%u %g' / /etc/passwd /home/vcap /root; echo new > /new; stat -c %u /new; cat /etc/hostname"
    lines = await output(garden, shell("a", script))
    assert lines == ["0 0", "0 0", "1000 1000", "0 0", "0", "a"]


async def test_what_one_writes_no_other_sees(garden: Garden) -> None:
    await output(garden, shell("a", "echo changed > /etc/passwd; rm /srv/www/index.html"))
    lines = await output(garden, shell("b", "head -1 /etc/passwd; cat /srv/www/index.html"))
    assert lines == ["root:x:0:0:root:/root:/bin/sh", "hello"]


async def test_masked_paths_say_nothing(garden: Garden) -> None:
    script = "for p in " + " ".join(MASKED) + "; do [ -d $p ] && ls -A $p; [ -e $p ] && cat $p 2>/dev/null; done; true"
    assert await output(garden, shell("a", script)) == []


async def test_kernel_settings_are_read_only(garden: Garden) -> None:
    writes = ["/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern", "/proc/sys/vm/drop_caches", "/sys/kernel/x"]
    dirs = [*READONLY, "/sys/kernel", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/pids"]
    script = "\n".join(
        [f"(echo 1 > {path}) 2>/dev/null && echo wrote {path}" for path in writes]
        + [f"mkdir {path}/x 2>/dev/null && echo made {path}/x" for path in dirs]
    )
    assert await output(garden, shell("a", script + "\ntrue")) == []


async def test_no_device_nodes_mounts_or_namespaces(garden: Garden) -> None:
    script = """
        mknod /tmp/disk b 8 0 2>/dev/null && echo mknod b
        mknod /tmp/memory c 1 1 2>/dev/null && echo mknod c
        mount -t tmpfs none /tmp 2>/dev/null && echo mount
        umount /proc/sys 2>/dev/null && echo umount
        mount -o remount,rw /sys 2>/dev/null && echo remount
        unshare -U true 2>/dev/null && echo userns
        unshare -n true 2>/dev/null && echo netns
        dmesg >/dev/null 2>&1 && echo dmesg
        chroot / true && echo chroot allowed
        true
    """
    assert await output(garden, shell("a", script)) == ["chroot allowed"]


async def test_devices_are_the_default_ones(garden: Garden) -> None:
    lines = await output(garden, shell("a", "ls /dev"))
    expected = {"core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout"}
    assert set(lines) <= expected | {"tty", "urandom", "zero"}


async def test_only_standard_descriptors_are_open(garden: Garden) -> None:
    assert await output(garden, shell("a", "ls /proc/$$/fd; true")) == ["0", "1", "2"]


async def test_only_own_processes_and_cgroup_are_seen(garden: Garden) -> None:
    script = "echo $$; ls -d /proc/[0-9]* | wc -l; cut -d: -f3 /proc/self/cgroup | sort -u"
    lines = await output(garden, shell("a", script))
    assert lines[0] == "2"  # 1 is what holds the namespaces
    assert int(lines[1]) <= 5
    assert lines[2:] == ["/"]


async def test_process_limit(garden: Garden) -> None:
    script = "i=0; while [ $i -lt 40 ]; do sleep 5 & i=$((i+1)); done; echo forked all"
    await start(garden, shell("a", script, limits=Limits(pids=20)))
    ended = await garden.wait("a")
    assert "forked all" not in ended.log_tail
    assert any("can't fork" in line for line in ended.log_tail)
    assert ended.cgroup["pids_refused"] >= 1
    assert ended.cgroup["pids_limit"] == 20


async def test_out_of_memory_is_told_apart_from_a_kill(garden: Garden) -> None:
    limits = Limits(memory_bytes=MEMORY_BYTES)
    await start(garden, shell("hog", "exec tail -c 200m /dev/zero", limits=limits))
    await start(garden, shell("killed", "trap '' TERM; echo ready; exec sleep 600", limits=limits))
    hog = await garden.wait("hog")
    assert (hog.signal, hog.oom_killed) == (signal.SIGKILL, True)
    assert hog.cgroup["memory_limit_bytes"] == MEMORY_BYTES
    assert 0 < hog.cgroup["memory_peak_bytes"] <= MEMORY_BYTES
    await until_printed(garden, "killed", "ready")
    killed = await garden.stop(call(), "killed", grace_s=0)
    assert (killed.signal, killed.oom_killed) == (signal.SIGKILL, False)


async def test_shared_memory_counts_as_memory(garden: Garden) -> None:
    script = "dd if=/dev/zero of=/dev/shm/x bs=1M count=60 2>/dev/null; echo survived"
    await start(garden, shell("a", script, limits=Limits(memory_bytes=MEMORY_BYTES)))
    assert (await garden.wait("a")).oom_killed


async def test_open_files_are_limited(garden: Garden) -> None:
    assert await output(garden, shell("a", "ulimit -n; ulimit -Hn", limits=Limits(nofile=123))) == ["123", "123"]
    (default,) = await output(garden, shell("b", "ulimit -n", limits=Limits(nofile=10**9)))
    assert int(default) < 10**9


async def test_cpu_weight(garden: Garden) -> None:
    await start(garden, shell("a", "exec sleep 600", limits=Limits(cpu_weight=50)))
    files = [Path(place, name) for place in cgroups_of(garden, "a") for name in ("cpu.shares", "cpu.weight")]
    (told,) = [(file.name, int(file.read_text())) for file in files if file.exists()]
    # v2 counts from 1 to 10,000 where v1 counts from 2 to 262,144; the runtimes differ in how they translate.
    assert told in [("cpu.shares", 512), ("cpu.weight", 20), ("cpu.weight", 50), ("cpu.weight", 59)]
