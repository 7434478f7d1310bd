"""What a container sees and can change of /proc, /sys, its cgroup and its first process."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cells.garden.bundle.paths import MASKED, READONLY
from tests.kernel.security.probing import Ways, table

pytestmark = pytest.mark.kernel

NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
CLOSED = ("EROFS", "EACCES", "EPERM", "ENOENT")
TRIGGERS = (
    "/proc/sysrq-trigger",
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/kernel/hotplug",
    "/proc/sys/fs/binfmt_misc/register",
    "/proc/sys/vm/drop_caches",
    "/proc/sys/user/max_inotify_instances",
    "/proc/sys/net/ipv4/ip_forward",
    "/proc/irq/default_smp_affinity",
    "/sys/kernel/uevent_helper",
    "/sys/kernel/mm/transparent_hugepage/enabled",
    "/sys/power/state",
    "/sys/fs/cgroup/memory/release_agent",
    "/sys/fs/cgroup/memory/notify_on_release",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    "/sys/fs/cgroup/devices/devices.allow",
    "/sys/fs/cgroup/cgroup.procs",
    "/sys/fs/cgroup/memory.max",
)
SECRETS = ("/proc/kcore", "/proc/kmsg", "/proc/kpageflags", "/proc/slabinfo", "/proc/vmallocinfo", "/dev/mem")
SILENT = "[ -e {0} ] || continue; [ -d {0} ] && ls -A {0} || cat {0} 2>/dev/null"


async def test_masked_paths_say_nothing(each_way: Ways) -> None:
    paths = [*MASKED, "/sys/devices/system/cpu/cpu*/thermal_throttle", "/sys/class/powercap/*/energy_uj"]
    script = f"for p in {' '.join(paths)}; do " + SILENT.format("$p") + "; done"
    assert set(map(tuple, (await each_way(script)).values())) == {()}


async def test_timing_of_others_is_hidden(each_way: Ways) -> None:
    """Interrupt and timer counters tell when others work, or type."""
    present = [path for path in ("/proc/interrupts", "/proc/timer_list") if Path(path).exists()]
    assert present
    for lines in (await each_way("wc -c " + " ".join(present) + " | grep -v total")).values():
        assert [line.split()[0] for line in lines] == ["0"] * len(present)


@pytest.mark.parametrize("user", ["root", "vcap"])
async def test_kernel_settings_are_read_only(each_way: Ways, user: str) -> None:
    for lines in (await each_way("probe write " + " ".join(TRIGGERS), user)).values():
        answers = table(lines)
        assert answers.keys() == set(TRIGGERS)
        assert {path: answer for path, answer in answers.items() if answer not in CLOSED} == {}


async def test_nothing_is_made_in_kernel_file_systems(each_way: Ways) -> None:
    places = [*READONLY, "/sys", "/sys/kernel", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/pids", "/proc"]
    script = f"for p in {' '.join(places)}; do mkdir $p/made 2>/dev/null && echo made $p/made; done; true"
    assert set(map(tuple, (await each_way(script)).values())) == {()}


async def test_read_only_paths_are_mounted_so(each_way: Ways) -> None:
    """Not only refused to this user: the mount itself is read-only."""
    for lines in (await each_way("cut -d' ' -f5,6 /proc/self/mountinfo")).values():
        mounts = {line.split()[0]: line.split()[1].split(",") for line in lines}
        for path in READONLY:
            if Path(path).exists():
                assert "ro" in mounts[path], path


async def test_no_mount_is_shared_with_the_host(each_way: Ways) -> None:
    for lines in (await each_way("cat /proc/self/mountinfo")).values():
        assert lines
        assert not [line for line in lines if "shared:" in line]


async def test_kernel_memory_is_closed(each_way: Ways) -> None:
    """Where the kernel has it. What is masked opens, and is the null device: see above."""
    for lines in (await each_way("probe read " + " ".join(SECRETS))).values():
        answers = table(lines)
        assert answers.keys() == set(SECRETS)
        assert {path for path, answer in answers.items() if answer not in CLOSED} <= set(MASKED)


async def test_kernel_addresses_are_zero(each_way: Ways) -> None:
    for lines in (await each_way("cut -d' ' -f1 /proc/kallsyms | sort -u")).values():
        assert lines == ["0" * 16]


async def test_only_own_processes_are_seen(each_way: Ways) -> None:
    for lines in (await each_way("cat /proc/[0-9]*/comm")).values():
        assert 1 <= len(lines) <= 8
        assert not {"conmon", "python", "init", "runc"} & set(lines)


async def test_every_namespace_is_its_own(each_way: Ways) -> None:
    script = "for n in " + " ".join(NAMESPACES) + "; do readlink /proc/self/ns/$n; done"
    host = {os.readlink(f"/proc/self/ns/{name}") for name in NAMESPACES}
    for lines in (await each_way(script)).values():
        assert len(lines) == len(NAMESPACES)
        assert not host & set(lines)


async def test_cgroup_is_the_root_of_its_view(each_way: Ways) -> None:
    """Where PID 1 is, which holds the namespaces, tells nothing of the host: not even how deep the cell's cgroup is."""
    script = "cut -d: -f3 /proc/self/cgroup | sort -u; cut -d: -f3 /proc/1/cgroup | sort -u"
    for lines in (await each_way(script)).values():
        assert lines[0] == "/"
        assert lines[1:] in ([], ["/../_sandboxes"])


@pytest.mark.parametrize("user", ["root", "vcap"])
async def test_no_process_has_a_way_out(each_way: Ways, user: str) -> None:
    """Root, program, directory and descriptors of every process in view, PID 1 first, are the container's or shut."""
    script = """
        own=$(stat -c %d:%i /)
        for process in /proc/[0-9]*; do
            at=$(stat -L -c %d:%i $process/root 2>/dev/null)
            [ -z "$at" ] || [ "$at" = "$own" ] || echo "root of $process is $at"
            program=$(readlink $process/exe) && { [ -e "$program" ] || echo "program of $process is $program"; }
            where=$(readlink $process/cwd) && { [ -d "$where" ] || echo "directory of $process is $where"; }
            for fd in $process/fd/*; do
                leads=$(readlink $fd) || continue
                case $leads in
                    pipe:* | /dev/null | /dev/pts/* | /proc/[0-9]*/fd | /tmp/*) ;;
                    *) echo "$fd leads to $leads" ;;
                esac
            done
        done
        probe write /proc/1/exe | grep ' ok'
        true
    """
    assert set(map(tuple, (await each_way(script, user)).values())) == {()}


async def test_root_cannot_be_left(each_way: Ways) -> None:
    """Up from the root, and by the classic double chroot, there is the same root."""
    script = """
        own=$(stat -c %d:%i /); cd /../../..; [ $(stat -c %d:%i .) = $own ] || echo up
        mkdir -p /tmp/jail/bin; cp /bin/busybox /tmp/jail/bin/; cd /
        chroot /tmp/jail /bin/busybox sh -c 'cd ../../../..; /bin/busybox stat -c %d:%i .' >/tmp/seen
        ls -ld /proc/$$/root/bin >/dev/null || echo no root
        [ -s /tmp/seen ] || echo no chroot
    """
    assert set(map(tuple, (await each_way(script)).values())) == {()}
