"""Which trees a host has, by its mounts."""

from __future__ import annotations

from cells.garden.cgroups import Cgroups, Hierarchy, hierarchies

V1 = "30 25 0:26 / /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory"
CPU = "31 25 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct"
UNIFIED = "32 25 0:28 / /sys/fs/cgroup/unified rw shared:4 - cgroup2 cgroup2 rw,nsdelegate"
OTHER = "25 1 0:25 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755"


def test_hierarchies() -> None:
    assert hierarchies("\n".join((OTHER, V1, CPU, UNIFIED, V1))) == [
        Hierarchy("/sys/fs/cgroup/memory", frozenset({"memory"}), v2=False),
        Hierarchy("/sys/fs/cgroup/cpu", frozenset({"cpu", "cpuacct"}), v2=False),
        Hierarchy("/sys/fs/cgroup/unified", frozenset(), v2=True),
    ]


def test_paths_are_absolute_whatever_the_configuration_says() -> None:
    for parent in ("diego", "/diego", "/diego/"):
        assert Cgroups(parent, []).path("a") == "/diego/a"
