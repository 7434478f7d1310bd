"""Cells and demands for tests of the auction."""

from collections.abc import Iterable
from typing import Any

from hypothesis import strategies as st

from bbs.auction.cell_view import CellView, Demand, Room
from bbs.auction.fleet import Fleet
from diego_py.models.identifiers import CellId, ProcessGuid

ROOTFS = "preloaded:cflinuxfs4"
IMAGE, OTHER_IMAGE = "docker://registry.test/app:latest", "oci:/images/app.tar"
TAGS = ["gpu", "isolated"]


def cell(name: str, memory_mb: int = 1_000, disk_mb: int = 1_000, containers: int = 10, **other: Any) -> CellView:
    """A cell with nothing on it."""
    capacity = Room(memory_mb, disk_mb, containers)
    told = {
        "zone": "z1",
        "capacity": capacity,
        "available": capacity,
        "rootfs_providers": {"preloaded": frozenset({"cflinuxfs4"}), "docker": frozenset()},
    } | other
    return CellView(cell_id=CellId(name), **told)


def demand(process_guid: str = "web", index: int = 0, memory_mb: int = 100, disk_mb: int = 100, **other: Any) -> Demand:
    """What one small instance needs."""
    told = {"rootfs": ROOTFS} | other
    return Demand(process_guid=ProcessGuid(process_guid), index=index, need=Room(memory_mb, disk_mb, 1), **told)


def fleet_of(cells: Iterable[CellView], bin_pack_weight: float = 0.0, rush: bool = False) -> Fleet:
    fleet = Fleet(bin_pack_weight)
    fleet.rush = rush
    for view in cells:
        fleet.put(view)
    return fleet


amounts = st.integers(0, 12)
rooms = st.builds(Room, amounts, amounts, st.integers(0, 5))
left = st.integers(-2, 12)
tag_sets = st.frozensets(st.sampled_from(TAGS))
image_sets = st.frozensets(st.sampled_from([IMAGE, OTHER_IMAGE]))
guids = st.sampled_from([ProcessGuid("web"), ProcessGuid("worker")])
demands = st.builds(
    Demand,
    process_guid=guids,
    index=st.integers(0, 9),
    rootfs=st.sampled_from([ROOTFS, ROOTFS, ROOTFS, "preloaded:other", "docker://registry.test/app", "oci:x", IMAGE]),
    need=st.builds(Room, amounts, amounts, st.just(1)),
    placement_tags=tag_sets,
    privileged=st.booleans(),
    volume_drivers=st.sampled_from([frozenset(), frozenset(), frozenset({"local"}), frozenset({"local", "nfs"})]),
    task=st.booleans(),
)
cells = st.builds(
    CellView,
    cell_id=st.integers(0, 99).map(lambda n: CellId(f"cell-{n:02}")),
    zone=st.sampled_from(["z1", "z2", "z3"]),
    capacity=rooms,
    available=st.builds(Room, left, left, st.integers(-1, 5)),
    rootfs_providers=st.sampled_from(
        [
            {"preloaded": frozenset({"cflinuxfs4"}), "docker": frozenset()},
            {"preloaded": frozenset({"cflinuxfs4", "other"})},
            {},
        ]
    ),
    images=image_sets,
    placement_tags=tag_sets,
    optional_placement_tags=tag_sets,
    volume_drivers=st.sampled_from([frozenset(), frozenset({"local"})]),
    privileged=st.booleans(),
    disk_limits=st.sampled_from([True, True, False]),
    draining=st.booleans(),
    starting=st.integers(0, 3),
    instances=st.dictionaries(guids, st.integers(1, 3)),
    tasks=st.integers(0, 2),
)
cell_lists = st.lists(cells, max_size=8, unique_by=lambda view: view.cell_id)
plain_cells = st.builds(
    lambda number, zone, used, capacity, instances, images: cell(
        f"cell-{number:02}",
        *capacity,
        zone=zone,
        available=Room(max(0, capacity[0] - used), max(0, capacity[1] - used), capacity[2]),
        instances=instances,
        images=images,
    ),
    st.integers(0, 99),
    st.sampled_from(["z1", "z2", "z3"]),
    st.integers(0, 900),
    st.sampled_from([(1_000, 1_000, 10), (1_000, 3_000, 30), (700, 700, 7)]),
    st.dictionaries(guids, st.integers(1, 3)),
    image_sets,
)
"""Cells that take nearly everything, so that auctions go on for long."""
plain_cell_lists = st.lists(plain_cells, min_size=1, max_size=8, unique_by=lambda view: view.cell_id)
alike = st.builds(
    lambda guid, memory_mb, task, rootfs: demand(guid, memory_mb=memory_mb, task=task, rootfs=rootfs),
    st.sampled_from(["web", "worker", "a", "b", "c", "d"]),
    st.sampled_from([0, 50, 100]),
    st.booleans(),
    st.sampled_from([ROOTFS, IMAGE]),
)
"""Few different demands, so that many of an auction are alike."""
