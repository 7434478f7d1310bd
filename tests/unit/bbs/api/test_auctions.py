"""The answer to a dry run, however many cells and instances there are."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from bbs.api.auctions import DRY_RUN_INSTANCES_MAX, EXPLAINED_MAX, document
from bbs.known_cells import KnownCells
from diego_py.chain import DOCUMENT_BYTES_MAX
from tests.unit.bbs.auction.cells import cell, demand, fleet_of

TAGS = frozenset(f"tag-{n}" for n in range(100))


@given(st.integers(1, 240), st.sampled_from([1, 30, 300]), st.sampled_from([100, 2_000]))
def test_it_is_bounded_and_says_what_it_leaves_out(name_length: int, cells: int, memory_mb: int) -> None:
    views = [cell(f"{n:04}{'x' * name_length}", containers=1, placement_tags=TAGS) for n in range(cells)]
    wanted = [demand(index=n, memory_mb=memory_mb, placement_tags=TAGS) for n in range(DRY_RUN_INSTANCES_MAX)]
    told = document(KnownCells(fleet_of(views)).rehearse(wanted, EXPLAINED_MAX), 10_000)
    assert len(msgspec.json.encode(told)) <= DOCUMENT_BYTES_MAX
    assert told["instances"] == 10_000 == told["left_out"] + len(told["assignments"])
    assert "placement" in told["assignments"][0]
    placed = cells if memory_mb == 100 else 0
    for number, assignment in enumerate(told["assignments"]):
        assert assignment["index"] == number
        assert (assignment["cell_id"] is not None) is (number < placed)
        assert ("score" in assignment) is (number < placed)
