"""What an operator reads when nothing fits."""

import json

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from bbs.auction import auction
from bbs.auction.cell_view import CellView, Demand, Room
from bbs.auction.reasons import BIDS_SHOWN_MAX, Explanation, explain, nearest_misses
from tests.unit.bbs.auction import reference
from tests.unit.bbs.auction.cells import IMAGE, ROOTFS, cell, cell_lists, demand, demands, fleet_of
from tests.unit.bbs.auction.reference import fits

RULED_OUT = [
    (cell("c"), demand(rootfs="oci:x"), "rootfs", "does not offer oci:x"),
    (cell("c"), demand(rootfs="preloaded:other"), "rootfs", "does not offer preloaded:other"),
    (cell("c"), demand(privileged=True), "privileged", "makes no privileged containers"),
    (cell("c", volume_drivers=frozenset({"local"})), demand(volume_drivers=frozenset({"local", "nfs"})),
     "volume_drivers", "lacks the volume drivers nfs"),
    (cell("c", disk_limits=False), demand(), "disk_limit", "holds no container to a disk limit"),
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


def explained(wanted: Demand, *cells: CellView, tried: frozenset[str] = frozenset()) -> Explanation:
    fleet = fleet_of(cells)
    return explain(fleet, wanted, tried, auction.choose(fleet, wanted, tried).cell_id)


@pytest.mark.parametrize(("view", "wanted", "verdict", "detail"), RULED_OUT, ids=lambda value: str(value)[:20])
def test_a_cell_says_why_it_is_ruled_out(view: CellView, wanted: Demand, verdict: str, detail: str) -> None:
    (bid,) = explained(wanted, view).bids
    assert (bid.verdict, bid.detail, bid.score) == (verdict, detail, None)


def test_a_cell_that_was_tried_points_to_its_frames() -> None:
    (bid,) = explained(demand(), cell("c"), tried=frozenset({"c", "gone"})).bids
    assert (bid.verdict, bid.detail) == ("tried", "tried in this request; see its frames in the chain")


def test_a_cell_takes_any_name_of_a_scheme_that_it_offers_without_names() -> None:
    assert explained(demand(rootfs="docker://registry.test/app#v1"), cell("c")).verdicts == {"won": 1}
    assert explained(demand(rootfs=ROOTFS), cell("c")).verdicts == {"won": 1}


def test_a_cell_that_holds_no_disk_limits_takes_what_has_none() -> None:
    assert explained(demand(disk_mb=0), cell("c", disk_limits=False)).verdicts == {"won": 1}


def test_a_cell_with_optional_tags_takes_work_with_and_without_them() -> None:
    view = cell("c", optional_placement_tags=frozenset({"gpu"}))
    assert explained(demand(), view).verdicts == {"won": 1}
    assert explained(demand(placement_tags=frozenset({"gpu"})), view).verdicts == {"won": 1}


def test_what_is_short_is_told_with_need_and_have() -> None:
    why = explained(demand(memory_mb=512), cell("c", available=Room(50, 500, -1)))
    (bid,) = why.bids
    assert bid.told() == {
        "cell": "c",
        "zone": "z1",
        "verdict": "no_fit",
        "have": {"memory_mb": 50, "disk_mb": 500, "containers": -1},
        "lacks": {"memory_mb": {"need": 512, "have": 50}, "containers": {"need": 1, "have": 0}},
    }
    assert why.told()["short"] == {
        "memory_mb": {"cells": 1, "need": 512, "most": 50},
        "containers": {"cells": 1, "need": 1, "most": 0},
    }


def told(wanted: Demand, *cells: CellView) -> str:
    return explained(wanted, *cells).summary()


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
    why = explained(wanted, *cells)
    if "won" not in why.verdicts and cells:
        assert "cell(s)" in why.summary()


@given(demands, cell_lists, st.booleans())
def test_every_cell_is_counted_and_every_refusal_has_its_reason_with_numbers(
    wanted: Demand, cells: list[CellView], rush: bool
) -> None:
    fleet = fleet_of(cells, rush=rush)
    chosen = auction.choose(fleet, wanted)
    why = explain(fleet, wanted, won=chosen.cell_id)
    document = why.told()
    assert json.loads(json.dumps(document)) == document
    assert document["cells"] == len(cells) == sum(document["verdicts"].values()) == len(why.bids)
    views = {view.cell_id: view for view in cells}
    assert [bid.cell_id for bid in why.bids if bid.verdict == "won"] == ([chosen.cell_id] if chosen.cell_id else [])
    assert [bid.cell_id for bid in why.bids][:1] == [chosen.cell_id] or chosen.cell_id is None
    for bid in why.bids:
        view = views[bid.cell_id]
        assert (bid.have, bid.zone) == (view.available, view.zone)
        assert (bid.score is not None) is fits(view, wanted) is (bid.verdict in ("won", "fits"))
        if bid.score is not None:
            assert bid.score == pytest.approx(reference.score(view, wanted, others=cells, rush=rush))
            last = "tasks" if wanted.task else "same_process"
            rushed = ["rush"] if rush else []
            assert list(bid.parts) == ["load", "starting", "unasked_tags", "image", *rushed, last]
        elif bid.verdict == "no_fit":
            assert bid.lacks == view.available.lacks(wanted.need) != {}
        else:
            assert bid.detail


def test_the_terms_of_a_score_are_named() -> None:
    view = cell("c", available=Room(600, 1_000, 10), starting=2, instances={"web": 3, "worker": 9})
    (bid,) = explained(demand(memory_mb=100, disk_mb=500), view).bids
    assert bid.parts == {
        "load": pytest.approx((0.5 + 0.5 + 0.1) / 3),
        "starting": 0.5,
        "unasked_tags": 0.0,
        "image": 0.0,
        "same_process": 3_000.0,
    }
    assert bid.in_zone == 3


def test_an_image_that_must_be_fetched_is_a_term_while_another_cell_has_it() -> None:
    wanted = demand(rootfs="docker://registry.test/app")
    holder, other = cell("b", images=frozenset({IMAGE})), cell("a")
    bids = explained(wanted, other, holder).bids
    assert [(bid.cell_id, bid.verdict, bid.parts["image"]) for bid in bids] == [("b", "won", 0.0), ("a", "fits", 0.125)]
    assert [bid.parts["image"] for bid in explained(demand(), other, holder).bids] == [0.0, 0.0]
    assert [bid.parts["image"] for bid in explained(wanted, other).bids] == [0.0], "nobody has it"


def test_the_nearest_misses_come_first_and_the_rest_is_only_counted() -> None:
    cells = [cell(f"c{n:02}", available=Room(10 * n, 1_000, 10)) for n in range(30)]
    wanted = demand(memory_mb=500)
    document = explained(wanted, cell("drained", draining=True), *cells).told()
    assert [bid["cell"] for bid in document["bids"]] == [f"c{n:02}" for n in range(29, 9, -1)]
    assert document["verdicts"] == {"draining": 1, "no_fit": 30}
    assert document["need"] == {"memory_mb": 500, "disk_mb": 100, "containers": 1}
    assert document["short"] == {"memory_mb": {"cells": 30, "need": 500, "most": 290}}


def test_of_cells_that_fit_those_in_emptier_zones_come_first() -> None:
    cells = [cell("a", instances={"web": 1}), cell("b"), cell("c", zone="z2", available=Room(200, 200, 2))]
    why = explained(demand(), *cells)
    assert [(bid.cell_id, bid.in_zone) for bid in why.bids] == [("c", 0), ("b", 1), ("a", 1)]


def test_however_many_cells_there_are_the_document_is_small() -> None:
    tags = frozenset(f"a-rather-long-tag-{n:04}" for n in range(1_000))
    cells = [cell(f"cell-{n:04}", placement_tags=tags if n % 2 else frozenset()) for n in range(2_000)]
    for wanted in (demand(), demand(memory_mb=5_000), demand(rootfs="docker://" + "x" * 10_000, privileged=True)):
        document = explained(evolve(wanted, placement_tags=tags), *cells).told()
        assert len(document["bids"]) == BIDS_SHOWN_MAX
        assert len(json.dumps({**document, "rootfs": ""})) < 16_000


def test_who_is_asked_before_a_refusal_are_those_who_might_take_it_another_time() -> None:
    cells = [
        cell("big", available=Room(300, 900, 10)),
        cell("nearer", available=Room(400, 900, 10)),
        cell("never", memory_mb=499),
        cell("drains", draining=True),
        cell("tried"),
    ]
    fleet, wanted = fleet_of(cells), demand(memory_mb=500)
    assert nearest_misses(fleet, wanted, frozenset({"tried"}), 10) == ["nearer", "big", "drains"]
    assert nearest_misses(fleet, wanted, frozenset({"tried"}), 1) == ["nearer"]


@given(demands, cell_lists, st.integers(0, 4))
def test_no_cell_that_fits_is_asked(wanted: Demand, cells: list[CellView], count: int) -> None:
    asked = nearest_misses(fleet_of(cells), wanted, frozenset(), count)
    assert len(asked) <= count
    assert not any(fits(view, wanted) for view in cells if view.cell_id in asked)
