"""Deltas leave the same numbers behind as a fleet that is built anew."""

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bbs.auction.cell_view import CellView, Demand
from bbs.auction.fleet import Fleet
from diego_py.models.identifiers import CellId
from tests.unit.bbs.auction.cells import IMAGE, OTHER_IMAGE, cell, cells, demand, demands, fleet_of
from tests.unit.bbs.auction.reference import with_one_more


def numbers(fleet: Fleet) -> dict[CellId, dict[str, Any]]:
    """All that a fleet has of each cell, without the numbers that it gave to zones, kinds and slots."""
    fleet.rank()
    told = {}
    for cell_id, slot in fleet.slots.items():
        row = {name: column.at[slot] for name, column in fleet.columns.all().items()}
        row["zone"], row["kind"] = fleet.zones.values[row["zone"]], fleet.kinds.values[row["kind"]]
        row["images"] = [slot in fleet.images.of(image) for image in (IMAGE, OTHER_IMAGE)]
        row["instances"] = {
            guid: (spread.by_slot[slot], spread.by_zone[fleet.columns.zone.at[slot]])
            for guid, spread in fleet.spreads.items()
            if slot in spread.by_slot
        }
        told[cell_id] = row
    return told


class Deltas(RuleBasedStateMachine):
    """A fleet that changes, beside the list of what its cells are."""

    def __init__(self) -> None:
        super().__init__()
        self.fleet = Fleet(bin_pack_weight=0.125)
        self.known: dict[CellId, CellView] = {}
        self.added: list[tuple[CellId, Demand]] = []

    @rule(view=cells)
    def a_cell_says_what_it_has(self, view: CellView) -> None:
        self.fleet.put(view)
        self.known[view.cell_id] = view
        self.added = [(cell_id, wanted) for cell_id, wanted in self.added if cell_id != view.cell_id]

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def a_cell_goes(self, data: st.DataObject) -> None:
        gone = data.draw(st.sampled_from(sorted(self.known)))
        self.fleet.remove(gone)
        del self.known[gone]
        self.added = [(cell_id, wanted) for cell_id, wanted in self.added if cell_id != gone]

    @precondition(lambda self: self.known)
    @rule(data=st.data(), wanted=demands)
    def something_is_sent_to_a_cell(self, data: st.DataObject, wanted: Demand) -> None:
        cell_id = data.draw(st.sampled_from(sorted(self.known)))
        self.fleet.add(self.fleet.slots[cell_id], wanted)
        self.added.append((cell_id, wanted))

    @precondition(lambda self: self.added)
    @rule(data=st.data())
    def something_is_not_sent_after_all(self, data: st.DataObject) -> None:
        cell_id, wanted = self.added.pop(data.draw(st.integers(0, len(self.added) - 1)))
        self.fleet.take_back(self.fleet.slots[cell_id], wanted)

    @invariant()
    def the_fleet_is_as_if_it_were_new(self) -> None:
        views = dict(self.known)
        for cell_id, wanted in self.added:
            views[cell_id] = with_one_more(views[cell_id], wanted)
        assert numbers(self.fleet) == numbers(fleet_of(views.values(), bin_pack_weight=0.125))
        assert sum(value is not None for value in self.fleet.kinds.values) <= len(self.known)
        assert sum(value is not None for value in self.fleet.zones.values) <= len(self.known)
        assert len(self.fleet.spreads) <= 2


TestDeltas = Deltas.TestCase
TestDeltas.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)


def test_slots_kinds_and_zones_are_used_again() -> None:
    fleet = Fleet()
    for n in range(100):
        fleet.put(cell(f"c{n}", zone=f"z{n}", placement_tags=frozenset({f"t{n}"}), images=frozenset({IMAGE})))
        fleet.add(fleet.slots[CellId(f"c{n}")], demand(f"p{n}"))
        fleet.remove(CellId(f"c{n}"))
    assert not fleet.images.of(IMAGE)
    assert (fleet.count, len(fleet.zones.values), len(fleet.kinds.values), fleet.spreads) == (1, 1, 2, {})
