"""Fleets and demands for measurements, the same for the same seed."""

from __future__ import annotations

import random
from collections.abc import Iterable

from bbs.auction.cell_view import CellView, Demand, Room
from bbs.auction.fleet import Fleet
from diego_py.models.identifiers import CellId, ProcessGuid

ZONES = 3
SEGMENTS = 10
"""Isolation segments: each has as many cells as the others."""
RARE = 97
"""One cell of so many has the rare tag."""
SIZES_MB = (64, 128, 256, 512, 1024, 2048)
ROOTFS = "preloaded:cflinuxfs4"
PROVIDERS = {"preloaded": frozenset({"cflinuxfs4", "cflinuxfs5"}), "docker": frozenset[str]()}
CAPACITY = Room(65_536, 262_144, 250)
MIXES = ("alike", "sizes", "tags", "few fit", "none fits")


def cells(count: int, seed: int = 0) -> list[CellView]:
    """Cells that are up to half full, a tenth of them in each isolation segment but for the first tenth."""
    rng = random.Random(seed)
    views = []
    for number in range(count):
        used = rng.randrange(0, CAPACITY.memory_mb // 2)
        share = used / CAPACITY.memory_mb
        segment = number // ZONES % SEGMENTS
        views.append(
            CellView(
                cell_id=CellId(f"cell-{number:05}"),
                zone=f"z{number % ZONES}",
                capacity=CAPACITY,
                available=CAPACITY.less(Room(used, int(share * 200_000), int(share * 200))),
                rootfs_providers=PROVIDERS,
                placement_tags=frozenset({f"segment-{segment}"}) if segment else frozenset(),
                optional_placement_tags=frozenset({"rare"}) if number % RARE == 0 else frozenset(),
            )
        )
    return views


def fleet_of(views: Iterable[CellView]) -> Fleet:
    fleet = Fleet()
    for view in views:
        fleet.put(view)
    return fleet


def demands(mix: str, count: int, seed: int = 0) -> list[Demand]:
    """A batch of LRPs with one to eight instances each; of `alike` one LRP has all."""
    rng = random.Random(seed)
    found: list[Demand] = []
    while len(found) < count:
        guid = ProcessGuid(f"{mix}-{len(found)}")
        instances = count if mix == "alike" else min(rng.randint(1, 8), count - len(found))
        tags = frozenset({f"segment-{rng.randrange(1, SEGMENTS)}"}) if mix == "tags" else frozenset[str]()
        need = Room(256 if mix == "alike" else rng.choice(SIZES_MB), 1024, 1)
        if mix == "few fit":
            tags = frozenset({"rare"})
        if mix == "none fits":
            need = Room(CAPACITY.memory_mb + 1, 1024, 1)
        found += [
            Demand(guid, index, ROOTFS, need, placement_tags=frozenset(tags)) for index in range(instances)
        ]
    return found
