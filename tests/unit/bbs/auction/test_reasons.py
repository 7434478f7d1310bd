"""What an operator reads when nothing fits."""

import json

import pytest
from hypothesis import given

from bbs.auction.auction import choose
from bbs.auction.cell_view import CellView, Demand, Room
from bbs.auction.reasons import BIDS_SHOWN_MAX, placement, ruled_out, summary
from tests.unit.bbs.auction.cells import ROOTFS, cell, cell_lists, demand, demands

RULED_OUT = [
    (cell("c"), demand(rootfs="oci:x"), "rootfs", "does not offer oci:x"),
    (cell("c"), demand(rootfs="preloaded:other"), "rootfs", "does not offer preloaded:other"),
    (cell("c"), demand(privileged=True), "privileged", "makes no privileged containers"),
    (cell("c", draining=True), demand(), "draining", "the cell is being emptied"),
    (
        cell("c", placement_tags=frozenset({"gpu", "a"})),
        demand(),
        "placement_tags",
        "takes only work tagged a, gpu",
    ),
    (cell("c"), demand(placement_tags=frozenset({"gpu"})), "placement_tags", "lacks the tags gpu"),
    (
        cell("c", optional_placement_tags=frozenset({"gpu"})),
        demand(placement_tags=frozenset({"gpu", "b"})),
        "placement_tags",
        "lacks the tags b",
    ),
]


@pytest.mark.parametrize(("view", "wanted", "verdict", "detail"), RULED_OUT, ids=lambda value: str(value)[:20])
def test_a_cell_says_why_it_is_ruled_out(view: CellView, wanted: Demand, verdict: str, detail: str) -> None:
    bid = ruled_out(view, wanted, frozenset())
    assert bid is not None
    assert (bid.verdict, bid.detail, bid.score) == (verdict, detail, None)


def test_a_cell_that_was_tried_points_to_its_frames() -> None:
    bid = ruled_out(cell("c"), demand(), frozenset({"c"}))
    assert bid is not None
    assert (bid.verdict, bid.detail) == ("tried", "tried in this request; see its frames in the chain")


def test_a_cell_takes_any_name_of_a_scheme_that_it_offers_without_names() -> None:
    assert ruled_out(cell("c"), demand(rootfs="docker://registry.test/app#v1"), frozenset()) is None
    assert ruled_out(cell("c"), demand(rootfs=ROOTFS), frozenset()) is None


def test_a_cell_with_optional_tags_takes_work_with_and_without_them() -> None:
    view = cell("c", optional_placement_tags=frozenset({"gpu"}))
    assert ruled_out(view, demand(), frozenset()) is None
    assert ruled_out(view, demand(placement_tags=frozenset({"gpu"})), frozenset()) is None


def test_what_is_short_is_told_with_need_and_have() -> None:
    bid = ruled_out(cell("c", available=Room(50, 500, -1)), demand(memory_mb=512), frozenset())
    assert bid is not None
    assert bid.lacks == {"memory_mb": {"need": 512, "have": 50}, "containers": {"need": 1, "have": 0}}
    assert bid.told() == {
        "cell": "c",
        "verdict": "no_fit",
        "have": {"memory_mb": 50, "disk_mb": 500, "containers": -1},
        "lacks": {"memory_mb": {"need": 512, "have": 50}, "containers": {"need": 1, "have": 0}},
    }


def told(wanted: Demand, *cells: CellView) -> str:
    return summary(wanted, choose(wanted, cells).bids)


def test_the_summary_has_the_numbers_that_matter() -> None:
    small, smaller = cell("a", available=Room(128, 900, 3)), cell("b", available=Room(64, 900, 3))
    assert told(demand(memory_mb=512), small, smaller) == "memory_mb 512 needed, 128 at most free on 2 cell(s)"
    assert told(demand(memory_mb=512), small, cell("c", draining=True)) == (
        "memory_mb 512 needed, 128 at most free on 1 cell(s); 1 ruled out otherwise"
    )
    assert told(demand(memory_mb=512, disk_mb=950), small) == (
        "disk_mb 950 needed, 900 at most free, memory_mb 512 needed, 128 at most free on 1 cell(s)"
    )
    assert told(demand(), cell("a", containers=0)) == "containers 1 needed, 0 at most free on 1 cell(s)"


def test_the_summary_names_other_reasons_when_room_is_not_the_matter() -> None:
    assert told(demand(rootfs="oci:x"), cell("a"), cell("b")) == "2 cell(s): does not offer oci:x"
    assert told(demand(), cell("a", draining=True), cell("b", placement_tags=frozenset({"gpu"}))) == (
        "1 cell(s): the cell is being emptied; 1 cell(s): takes only work tagged gpu"
    )


@given(demands, cell_lists)
def test_every_refusal_has_a_summary(wanted: Demand, cells: list[CellView]) -> None:
    assignment = choose(wanted, cells)
    if assignment.cell_id is None and cells:
        assert "cell(s)" in summary(wanted, assignment.bids)


@given(demands, cell_lists)
def test_the_placement_counts_every_cell_and_is_json(wanted: Demand, cells: list[CellView]) -> None:
    assignment = choose(wanted, cells)
    document = placement(wanted, assignment.bids)
    assert json.loads(json.dumps(document)) == document
    assert document["cells"] == len(cells) == sum(document["verdicts"].values())
    assert len(document["bids"]) == min(len(cells), BIDS_SHOWN_MAX)
    if assignment.cell_id is not None:
        assert document["bids"][0]["cell"] == assignment.cell_id


def test_the_nearest_misses_come_first_and_the_rest_is_only_counted() -> None:
    cells = [cell(f"c{n:02}", available=Room(10 * n, 1_000, 10)) for n in range(30)]
    drained = cell("drained", draining=True)
    wanted = demand(memory_mb=500)
    document = placement(wanted, choose(wanted, [drained, *cells]).bids)
    assert [bid["cell"] for bid in document["bids"]] == [f"c{n:02}" for n in range(29, 9, -1)]
    assert document["verdicts"] == {"draining": 1, "no_fit": 30}
    assert document["need"] == {"memory_mb": 500, "disk_mb": 100, "containers": 1}
