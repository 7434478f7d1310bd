"""Cells and demands for tests of the auction."""

from typing import Any

from hypothesis import strategies as st

from bbs.auction.cell_view import CellView, Demand, Room
from diego_py.models.identifiers import CellId, ProcessGuid

ROOTFS = "preloaded:cflinuxfs4"
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


amounts = st.integers(0, 12)
rooms = st.builds(Room, amounts, amounts, st.integers(0, 5))
tag_sets = st.frozensets(st.sampled_from(TAGS))
demands = st.builds(
    Demand,
    process_guid=st.sampled_from([ProcessGuid("web"), ProcessGuid("worker")]),
    index=st.integers(0, 9),
    rootfs=st.sampled_from([ROOTFS, "preloaded:other", "docker://registry.test/app", "oci:x"]),
    need=st.builds(Room, amounts, amounts, st.just(1)),
    placement_tags=tag_sets,
    privileged=st.booleans(),
)
cell_lists = st.lists(
    st.builds(
        CellView,
        cell_id=st.integers(0, 99).map(lambda n: CellId(f"cell-{n:02}")),
        zone=st.sampled_from(["z1", "z2", "z3"]),
        capacity=rooms,
        available=rooms,
        rootfs_providers=st.sampled_from(
            [
                {"preloaded": frozenset({"cflinuxfs4"}), "docker": frozenset()},
                {"preloaded": frozenset({"cflinuxfs4", "other"})},
                {},
            ]
        ),
        placement_tags=tag_sets,
        optional_placement_tags=tag_sets,
        privileged=st.booleans(),
        draining=st.booleans(),
        starting=st.integers(0, 3),
        instances=st.dictionaries(st.sampled_from([ProcessGuid("web"), ProcessGuid("worker")]), st.integers(0, 3)),
    ),
    max_size=8,
    unique_by=lambda view: view.cell_id,
)
