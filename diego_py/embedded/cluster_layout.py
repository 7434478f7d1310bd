"""Names and numbers of a cluster on one machine: disjoint between its cells and from every other cluster's.

A cluster takes one of the host's slots for as long as its state directory may have containers; from slot and cell
number follow addresses, host ports, user ids and names.
"""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from attrs import frozen

from diego_py.embedded.host_sweep import CellNames

SLOTS = 8
CELLS_MAX = 16
PORT_FIRST = 15_000
PORTS_PER_CELL = 128
"""8 x 16 x 128 ports end at 31,384, below those that the kernel gives to outgoing connections."""
ID_BASE = 1_048_576
IDS_PER_CONTAINER = 65_536
CONTAINERS_MAX = 120
"""Of one cell: each may publish a port, and a few ports may be in use by others."""
ID_SLOTS = 128
REGISTRY = Path("/run/diego/clusters")


class ClusterError(RuntimeError):
    """The cluster could not do what was asked; the message ends with the tail of a log if there is one."""


@frozen
class CellLayout:
    """Where one cell of a cluster has its things."""

    cell_id: str
    state_dir: Path
    config_path: Path
    log_path: Path
    names: CellNames
    network: str
    port_first: int
    id_base: int


def cell_layout(state_dir: Path, slot: int, number: int) -> CellLayout:
    """The layout of cell `number` (from 1) of the cluster in `slot`. Pure."""
    place = slot * CELLS_MAX + number - 1
    cell_id = f"cell-{number}"
    home = state_dir / "cells" / cell_id
    letters = chr(ord("a") + slot) + chr(ord("a") + number - 1)
    return CellLayout(
        cell_id=cell_id,
        state_dir=home,
        config_path=home / "config.json",
        log_path=state_dir / "logs" / f"{cell_id}.log",
        # No name may be the beginning of another one: the firewall matches interfaces by prefix.
        names=CellNames(home, f"dg{letters}", f"diego_{letters}", f"/diego-{letters[0]}/{cell_id}"),
        network=f"10.{240 + slot}.{(number - 1) * 4}.0/22",
        port_first=PORT_FIRST + place * PORTS_PER_CELL,
        id_base=ID_BASE + place * ID_SLOTS * IDS_PER_CONTAINER,
    )


def cell_settings(layout: CellLayout, image_root: Path, memory_mb: int, disk_mb: int) -> dict[str, Any]:
    """What the configuration of a cell says of its names, its numbers and its share of the machine. Pure."""
    return {
        "cell_id": layout.cell_id,
        "state_dir": str(layout.state_dir),
        "image_root": str(image_root),
        "memory_mb": memory_mb,
        "disk_mb": disk_mb,
        "volumes_store_mb": disk_mb,
        "containers_max": CONTAINERS_MAX,
        "network": layout.network,
        "port_first": layout.port_first,
        "port_count": PORTS_PER_CELL,
        "id_base": layout.id_base,
        "id_slots": ID_SLOTS,
        "cgroup_parent": layout.names.cgroup_parent,
        "interface_prefix": layout.names.interface_prefix,
        "nft_table": layout.names.nft_table,
    }


def claim_slot(state_dir: Path, registry: Path = REGISTRY) -> int:
    """The slot of this state directory: the one it has, or else a free one. Raises ClusterError."""
    with _locked(registry):
        owners = {slot: _owner(registry / str(slot)) for slot in range(SLOTS)}
        for slot, owner in owners.items():
            if owner == state_dir:
                return slot
        for slot, owner in owners.items():
            if owner is None or not owner.exists():
                (registry / str(slot)).write_text(str(state_dir))
                return slot
    told = ", ".join(str(owner) for owner in owners.values())
    raise ClusterError(f"find a free slot for {state_dir}: this machine has {SLOTS} clusters already: {told}")


def release_slot(state_dir: Path, registry: Path = REGISTRY) -> None:
    """Give the slot back; nothing of the cluster is on the host any more."""
    with _locked(registry):
        for slot in range(SLOTS):
            if _owner(registry / str(slot)) == state_dir:
                (registry / str(slot)).unlink()


def free_port() -> int:
    """A TCP port of loopback that nobody listens on at this moment."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def memory_mb_of_each(cells: int) -> int:
    """Three quarters of the host's memory, shared out."""
    total_mb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    return max(64, total_mb * 3 // 4 // cells)


def _owner(path: Path) -> Path | None:
    try:
        return Path(path.read_text())
    except FileNotFoundError:
        return None


@contextmanager
def _locked(registry: Path) -> Iterator[None]:
    registry.mkdir(parents=True, exist_ok=True)
    with (registry / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
