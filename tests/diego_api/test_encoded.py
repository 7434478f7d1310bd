"""What was encoded before is told again only as long as encoding it anew would give the same."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from bbs.diego_api.descriptors import MESSAGES
from bbs.diego_api.desired_lrps import routing_info, scheduling_info, whole, whole_r2
from bbs.diego_api.encoded import OVERHEAD_BYTES, ROOM_BYTES, EncodedLRPs
from bbs.store.desired_lrps import StoredLRP
from diego_py import wire
from diego_py.models.identifiers import ProcessGuid
from diego_py.models.workload import ModificationTag
from tests.contract.store.conftest import definition

LIST = ("DesiredLRPsResponse", "desired_lrps")


def stored(guid: str, annotation: str = "", index: int = 0) -> StoredLRP:
    whole = wire.encode_revealed(definition(guid, annotation=annotation))
    return StoredLRP(ProcessGuid(guid), whole, ModificationTag(epoch="e", index=index))


ROWS = st.lists(
    st.builds(
        stored, st.sampled_from("abcd"), annotation=st.sampled_from(["", "x", "y" * 500]), index=st.integers(0, 2)
    ),
    max_size=6,
)
VIEWS = st.sampled_from([whole, whole_r2, routing_info])


@given(st.lists(st.tuples(VIEWS, ROWS), max_size=8), st.sampled_from([0, 1_000, 3_000, ROOM_BYTES]))
@settings(max_examples=60, deadline=None)
def test_it_tells_what_encoding_tells(asked: list[tuple[Any, list[StoredLRP]]], room_bytes: int) -> None:
    """Also of one LRP that changes without its tag, as after a restored backup; and never takes more than its room."""
    encoded = EncodedLRPs(room_bytes)
    for view, rows in asked:
        message = MESSAGES["DesiredLRPsResponse"](desired_lrps=[view(row) for row in rows])
        told = MESSAGES["DesiredLRPsResponse"].FromString(encoded.listed(*LIST, view, rows))
        assert told == message
        kept = sum(len(item) + OVERHEAD_BYTES for _, item in encoded._encoded._kept.values())
        assert kept == encoded._encoded._bytes <= room_bytes


def test_what_has_not_changed_is_not_encoded_again() -> None:
    seen: list[str] = []

    def view(row: StoredLRP) -> dict[str, Any]:
        seen.append(row.process_guid)
        return scheduling_info(row)

    encoded = EncodedLRPs()
    name = ("DesiredLRPSchedulingInfosResponse", "desired_lrp_scheduling_infos")
    first, tagged, changed = stored("b"), stored("b", index=1), stored("a", "x")
    for rows in ([stored("a"), first], [stored("a"), tagged], [changed, tagged]):
        encoded.listed(*name, view, rows)
    assert seen == ["a", "b", "b", "a"]


def test_what_is_gone_makes_room_in_the_end() -> None:
    encoded = EncodedLRPs(room_bytes=3_000)
    rows = [stored(f"old-{number}") for number in range(20)]
    encoded.listed(*LIST, whole, rows)
    for _ in range(20):
        encoded.listed(*LIST, whole, [stored("new")])
    assert (whole, "new") in encoded._encoded._kept
