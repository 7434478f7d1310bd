"""What containers cost in memory when they do nothing: one cell with as many as it takes, and what we added for each.

PSS shares out what several processes have in common, so the sum over all of them is what the machine gave.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import tempfile
from collections import Counter
from pathlib import Path

from cells.garden.processes import descendants
from diego_py.cli import rootfs_busybox
from diego_py.embedded.cluster import Cluster
from scripts.benchmarks import machine
from scripts.benchmarks.api import Api, lrp
from scripts.benchmarks.figures import table

CONTAINERS = 250
SLEEP = ("/bin/sleep", "100000")
KIB = 1024
SETTINGS = {"containers_max": CONTAINERS, "id_slots": CONTAINERS + 6}


def below(pid: int) -> dict[str, list[int]]:
    """The process and all that descend from it, by what they are."""
    found: dict[str, list[int]] = {"cell": [pid], "conmon": [], "holder": [], "other": []}
    for child in descendants([pid]):
        name = Path(f"/proc/{child}/comm").read_text().strip()
        kind = {"conmon": "conmon", "memfd:sandbox": "holder", "sandbox": "holder"}.get(name, "other")
        found[kind].append(child)
    return found


def pss_kib(pids: list[int]) -> int:
    return sum(_figure(Path(f"/proc/{pid}/smaps_rollup").read_text(), "Pss:") for pid in pids)


def rss_kib(pid: int) -> int:
    return _figure(Path(f"/proc/{pid}/status").read_text(), "VmRSS:")


def _figure(text: str, name: str) -> int:
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith(name)), 0)


async def measure(home: Path) -> str:
    image_root = home / "rootfs"
    rootfs_busybox.add(image_root)
    cluster = Cluster(
        home / "cluster", cells=1, image_root=image_root, memory_mb=CONTAINERS * 16, cell_settings=SETTINGS
    )
    try:
        async with cluster:
            (cell,) = (child.process.pid for child in cluster.children if child.name.startswith("cell"))
            before, rss_before = pss_kib(below(cell)["cell"]), rss_kib(cell)
            api = Api(cluster.url)
            api.desire(lrp("idle", SLEEP, instances=CONTAINERS, memory_mb=8)).expect(201)
            parts = below(cell)
            cell_pss, rss = pss_kib(parts["cell"]), rss_kib(cell)
            added: Counter[str] = Counter({kind: pss_kib(parts[kind]) for kind in ("conmon", "holder")})
            added["cell process, growth"] = cell_pss - before
            rows = [[kind, f"{kib / CONTAINERS:.0f}"] for kind, kib in added.items()]
            rows.append(["all that we add", f"{added.total() / CONTAINERS:.0f}"])
            api.delete("idle").expect(200)
            await cluster.delete_everything()
    finally:
        await cluster.purge()
    return "\n".join(
        [
            *(f"{name}: {fact}" for name, fact in machine.facts().items()),
            "",
            table([f"PSS for each of {CONTAINERS} idle containers", "KiB"], rows),
            "",
            f"cell process: RSS {rss_before / KIB:.0f} MiB without containers, {rss / KIB:.0f} MiB with {CONTAINERS}",
        ]
    )


def main(argv: list[str]) -> int:
    argparse.ArgumentParser(prog="bench memory", description=__doc__).parse_args(argv)
    home = Path(tempfile.mkdtemp(prefix="diego-bench-"))
    os.chmod(home, 0o711)
    try:
        print(asyncio.run(measure(home)))
    finally:
        shutil.rmtree(home, ignore_errors=True)
    return 0
