"""Two cells of one host never share a number or a name."""

from ipaddress import IPv4Network
from itertools import combinations
from pathlib import Path

import pytest

from diego_py.embedded import cluster_layout
from diego_py.embedded.cluster_layout import CELLS_MAX, SLOTS, ClusterError, cell_layout, claim_slot, release_slot


def test_all_cells_of_all_clusters_are_disjoint() -> None:
    all_ = [cell_layout(Path(f"/s{slot}"), slot, n) for slot in range(SLOTS) for n in range(1, CELLS_MAX + 1)]
    for one, other in combinations(all_, 2):
        assert not IPv4Network(one.network).overlaps(IPv4Network(other.network))
        assert abs(one.port_first - other.port_first) >= cluster_layout.PORTS_PER_CELL
        assert abs(one.id_base - other.id_base) >= cluster_layout.ID_SLOTS * cluster_layout.IDS_PER_CONTAINER
        assert not one.names.interface_prefix.startswith(other.names.interface_prefix)
        assert one.names.nft_table != other.names.nft_table
        assert one.names.cgroup_parent != other.names.cgroup_parent
    last = all_[-1]
    assert last.port_first + cluster_layout.PORTS_PER_CELL <= 32_768
    assert last.id_base + cluster_layout.ID_SLOTS * cluster_layout.IDS_PER_CONTAINER < 2**32


def test_a_slot_stays_with_its_directory_until_it_is_given_back(tmp_path: Path) -> None:
    registry = tmp_path / "registry"
    states = [tmp_path / str(number) for number in range(SLOTS + 1)]
    for state in states:
        state.mkdir()
    slots = [claim_slot(state, registry) for state in states[:SLOTS]]
    assert slots == list(range(SLOTS))
    assert claim_slot(states[3], registry) == 3
    with pytest.raises(ClusterError):
        claim_slot(states[SLOTS], registry)
    release_slot(states[3], registry)
    assert claim_slot(states[SLOTS], registry) == 3


def test_the_slot_of_a_directory_that_is_gone_is_free(tmp_path: Path) -> None:
    assert claim_slot(tmp_path / "never-there", tmp_path / "registry") == 0
    (tmp_path / "there").mkdir()
    assert claim_slot(tmp_path / "there", tmp_path / "registry") == 0
