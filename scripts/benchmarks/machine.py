"""The machine that is measured on: what it is, how busy it is, and the one state of its kernel that changes figures."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from pathlib import Path

from cells.garden.cgroups import Cgroups
from scripts import crun_on_hybrid

BUSY_SHARE_MAX = 0.25
IDLE_LOOK_S = 0.03
IDLE_WAIT_S = 2.0
COLD_PAUSE_S = 0.1
"""After this long without a move between cgroups the next one waits for a whole RCU grace period again."""



def runtime(name: str, home: Path, as_cell: bool = True) -> str:
    """Where the runtime is; on a hybrid host crun needs a wrapper, whose half a millisecond each of its figures has."""
    return crun_on_hybrid.write(home, as_cell) if name == "crun" and crun_on_hybrid.UNIFIED.exists() else name


def facts(runtime_path: str = "runc") -> dict[str, str]:
    """What a reader must know to judge the figures."""
    models = {line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")}
    total_kib = next(line.split()[1] for line in _lines("/proc/meminfo") if line.startswith("MemTotal"))
    versions = {name: _first_line(name, "--version") for name in ("runc", "conmon", "nft")}
    trees = {line.split()[2] for line in _lines("/proc/mounts") if line.split()[2] in ("cgroup", "cgroup2")}
    return {
        "cpu": f"{os.cpu_count()} x {', '.join(sorted(models))}",
        "memory": f"{int(total_kib) // 2**20} GiB",
        "kernel": platform.release(),
        "cgroups": {"cgroup": "v1", "cgroup2": "v2"}.get("".join(trees), "hybrid"),
        "python": platform.python_version(),
        **versions,
        "runtime of the cells": _first_line(runtime_path, "--version"),
    }


def facts_of_any() -> dict[str, str]:
    """The same where no container is made: nothing of a runtime."""
    models = {line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")}
    return {
        "cpu": f"{os.cpu_count()} x {', '.join(sorted(models))}",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load before": f"{os.getloadavg()[0]:.1f}",
    }


def busy_s() -> float:
    """Seconds that all processors together have worked since the machine was started."""
    ticks = [int(word) for word in _lines("/proc/stat")[0].split()[1:]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def wait_for_idle() -> bool:
    """Return when the machine is mostly idle; False when it did not become so and is measured as it is."""
    until_s = time.monotonic() + IDLE_WAIT_S
    while time.monotonic() < until_s:
        before_s, began_s = busy_s(), time.monotonic()
        time.sleep(IDLE_LOOK_S)
        if busy_s() - before_s <= BUSY_SHARE_MAX * (time.monotonic() - began_s) * (os.cpu_count() or 1):
            return True
    return False


def cool_down() -> None:
    """Leave cgroups alone until the kernel's lock is back on its slow side for those who move processes."""
    time.sleep(COLD_PAUSE_S)


def heat_up(cgroups: Cgroups) -> None:
    """Pay the grace period now: a move of nobody, as garden makes it, so that the next moves do not wait."""
    cgroups.warm()


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def _first_line(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()[0]
