"""Which trees a host has, by its mounts."""

from __future__ import annotations

from pathlib import Path

import pytest

from cells.garden.cgroups import Cgroups, Hierarchy, hierarchies
from diego_py.errors import CgroupFailed

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


def test_controllers_are_passed_down_on_v2(tmp_path: Path) -> None:
    places = [tmp_path, tmp_path / "diego", tmp_path / "diego/cell"]
    places[-1].mkdir(parents=True)
    for place in places:
        (place / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
        (place / "cgroup.subtree_control").write_text("")
    (tmp_path / "cgroup.subtree_control").write_text("cpu io memory pids\n")
    Cgroups("/diego/cell", [Hierarchy(str(tmp_path), frozenset(), v2=True)]).prepare()
    passed = [(place / "cgroup.subtree_control").read_text() for place in places]
    assert passed == ["cpu io memory pids\n", "+cpu +memory +pids", "+cpu +memory +pids"]


def test_controllers_that_are_not_there_are_told(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpuset pids\n")
    (tmp_path / "cgroup.subtree_control").write_text("")
    with pytest.raises(CgroupFailed, match="cpu, memory"):
        Cgroups("/diego", [Hierarchy(str(tmp_path), frozenset(), v2=True)]).prepare()


def test_beside_v1_nothing_is_passed_down(tmp_path: Path) -> None:
    v1 = tmp_path / "memory"
    trees = [Hierarchy(str(v1), frozenset({"memory"}), v2=False), Hierarchy(str(tmp_path), frozenset(), v2=True)]
    Cgroups("/diego", trees).prepare()
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "diego", v1, v1 / "diego"]


@pytest.mark.parametrize(
    ("own", "told"),
    [
        ("oom 0\noom_kill 0\n", 0),  # A cgroup below had less memory, and too little.
        ("oom 0\noom_kill 2\n", 2),  # The host had too little.
        ("oom 1\noom_kill 0\n", 3),  # The container's own limit, and its processes are in cgroups below.
        (None, 3),  # Linux before 5.2.
    ],
)
def test_who_died_for_want_of_the_containers_memory_on_v2(tmp_path: Path, own: str | None, told: int) -> None:
    place = tmp_path / "diego/a"
    place.mkdir(parents=True)
    (place / "memory.events").write_text("oom 3\noom_kill 3\n")
    if own is not None:
        (place / "memory.events.local").write_text(own)
    assert Cgroups("/diego", [Hierarchy(str(tmp_path), frozenset(), v2=True)]).usage("a") == {"oom_kill": told}
