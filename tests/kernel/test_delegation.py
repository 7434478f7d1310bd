"""A cell that sees only a part of the tree of cgroup v2, as in a container: what is in its way is told at start."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cells.garden.delegation import NEEDED
from tests.kernel.slot import CGROUP_PREFIX

pytestmark = pytest.mark.kernel

TOP = Path("/sys/fs/cgroup")
LOOK = """
import json, os, subprocess, sys
sys.path[:] = json.loads(sys.argv[1])
subprocess.run("umount /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup", shell=True, check=True)
from cells.garden.cgroups import Cgroups
from diego_py.cli import doctor_checks
from diego_py.errors import CgroupFailed

def look():
    try:
        Cgroups.of_host("/cells/one").prepare()
    except CgroupFailed as failed:
        told = failed.evidence["errno"], failed.evidence["processes"] == [os.getpid()]
    else:
        told = "usable"
    return told, doctor_checks.cgroups().verdict

found = [look()]
os.mkdir("/sys/fs/cgroup/own")
with open("/sys/fs/cgroup/own/cgroup.procs", "w") as procs:
    procs.write(str(os.getpid()))
found.append(look())
print(json.dumps(found))
"""


@pytest.fixture
def group() -> Iterator[Path]:
    """A cgroup that is the root of somebody's view."""
    if not (TOP / "cgroup.controllers").exists():
        pytest.skip("this host has not cgroup v2 alone; scripts/test-vm runs this test on one that has")
    (TOP / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in NEEDED))
    made = TOP / f"{CGROUP_PREFIX}view"
    made.mkdir()
    yield made
    for below in sorted(made.glob("**/"), reverse=True):
        below.rmdir()


def test_processes_in_the_root_of_a_view_are_told_at_start(group: Path) -> None:
    enter = f"echo $$ >{group}/cgroup.procs && exec unshare --cgroup --mount \"$@\""
    argv = ["sh", "-c", enter, "sh", sys.executable, "-c", LOOK, json.dumps(sys.path)]
    finished = subprocess.run(argv, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout) == [[["EBUSY", True], "fail"], ["usable", "ok"]]
