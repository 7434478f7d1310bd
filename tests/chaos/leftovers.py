"""What a cell's containers have on its machine, each thing named so that no later one is taken for it."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Set
from pathlib import Path

from diego_py.embedded import host_sweep
from diego_py.embedded.cluster_layout import CellLayout
from tests.chaos.network import Host

STARTED = 19
"""Where a process's start time is in /proc/PID/stat, counted from its state."""


def of_cell(layout: CellLayout, host: Host) -> Set[str]:
    """Processes with their start times, links with their numbers, mounts and cgroups of containers."""
    things = [*host_sweep.of_containers(layout.names), *host_sweep.of_cell(layout.names)]
    found = {str(thing) for thing in things if thing.kind in ("mount", "cgroup")}
    for thing in things:
        if thing.kind in ("process", "sandbox"):
            with contextlib.suppress(OSError):  # It ended meanwhile.
                words = Path(f"/proc/{thing.name.split()[0]}/stat").read_text().rpartition(")")[2].split()
                found.add(f"process {thing.name}, started at {words[STARTED]}")
    return found | _links(layout, host)


def _links(layout: CellLayout, host: Host) -> Set[str]:
    listed = subprocess.run(host.command("ip", "-oneline", "link"), text=True, capture_output=True, check=True).stdout
    names = {" ".join(line.split()[:2]).partition("@")[0].rstrip(":") for line in listed.splitlines()}
    return {f"link {name}" for name in names if name.split()[1].startswith(layout.names.interface_prefix)}
