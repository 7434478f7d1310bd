"""A list that remembers tells what a list tells that reads everything, whatever happened in between."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from attrs import define
from hypothesis import given, settings
from hypothesis import strategies as st

from bbs.diego_api import instance_lists
from bbs.diego_api.instance_lists import InstanceLists
from bbs.lifecycle import Lifecycle
from bbs.store.told_instances import Wanted
from bbs.store.transaction import Transaction
from bbs.succession import Succession
from diego_py.call import Call
from diego_py.errors import DiegoError
from diego_py.models.actual_lrp import ActualLRP
from diego_py.models.desired_lrp import DesiredLRPUpdate
from diego_py.models.workload import MetricTagValue
from diego_py.service.clock import SystemClock
from tests.contract.store.conftest import Scene, definition, guids
from tests.contract.store.tampering import MemoryTampering
from tests.simulation.memory_store.engine import MemoryDatabase
from tests.simulation.memory_store.store import MemoryStore

GUIDS = ("a", "b", "c")
TAGS = {"source_id": MetricTagValue(static="app")}
Step = Callable[[Scene, ActualLRP], Awaitable[object]]


def scene() -> Scene:
    clock = SystemClock()
    memory = MemoryDatabase(clock)
    store = MemoryStore(memory, clock)
    return Scene(Lifecycle(store, clock, guids()), store, MemoryTampering(memory))


async def displace(scene: Scene, row: ActualLRP) -> object:
    return await Succession(scene.store, scene.lifecycle).displace(scene.call, row, row.revision)


async def tell(scene: Scene, row: ActualLRP) -> object:
    labels = definition(metric_tags=TAGS)
    return await scene.lifecycle.update(scene.call, row.process_guid, DesiredLRPUpdate(metric_tags=labels.metric_tags))


async def undesire(scene: Scene, row: ActualLRP) -> object:
    return await scene.lifecycle.undesire(scene.call, row.process_guid)


STEPS: dict[str, Step] = {
    "claim": lambda scene, row: scene.claim(row),
    "start": lambda scene, row: scene.start(row),
    "crash": lambda scene, row: scene.crash(row, f"f-{row.process_guid}"),
    "displace": displace,
    "tell": tell,
    "undesire": undesire,
    "remove": lambda scene, row: scene.lifecycle.remove(scene.call, row.process_guid, row.index, row.instance_guid),
}


KEYS = (("b", 0), ("b", 1))


async def told(lists: InstanceLists, call: Call, wanted: Wanted) -> list[tuple[Any, bytes]]:
    return [(mark.place, item) async for page in lists.pages(call, wanted) for mark, item in page]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(sorted(STEPS)), st.integers(0, 8)), max_size=10),
    st.sampled_from([Wanted(), Wanted(cell_id="cell-1"), Wanted(process_guids=["a", "c"])]),
)
@pytest.mark.asyncio
async def test_lists_are_as_if_all_was_read(steps: list[tuple[str, int]], wanted: Wanted) -> None:
    made = scene()
    await made.cell()
    for guid in GUIDS:
        await made.unclaimed(guid, instances=3)
    lists = InstanceLists(made.store)
    for name, number in [("claim", 0), ("start", 0), *steps]:
        rows = await made.store.read(made.call, "list", lambda tx: tx.actual_lrps.list_all())
        try:
            if rows:
                await STEPS[name](made, rows[number % len(rows)])
        except (DiegoError, AssertionError):
            pass  # not possible of that row
        whole = await told(InstanceLists(made.store), made.call, wanted)
        assert await told(lists, made.call, wanted) == whole


async def test_what_has_not_changed_is_not_encoded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    made, seen = scene(), []
    real = instance_lists.instance
    monkeypatch.setattr(instance_lists, "instance", lambda row: seen.append(row.mark.place) or real(row))
    await made.cell()
    for guid in GUIDS:
        await made.unclaimed(guid, instances=2)
    lists = InstanceLists(made.store)
    await told(lists, made.call, Wanted())
    assert len(seen) == 6
    (row, *_) = await made.store.read(made.call, "list", lambda tx: tx.actual_lrps.list_of("b"))
    await made.claim(row)
    await told(lists, made.call, Wanted())
    await told(lists, made.call, Wanted(process_guids=["a"]))
    assert seen[6:] == [("b", 0, "ORDINARY")]


@define
class Meanwhile:
    """A store where something happens once, just before rows are read for marks that were read before."""

    store: MemoryStore
    happens: Callable[[], Awaitable[object]]
    reads: int = 0

    async def read(self, call: Call, op: str, work: Callable[[Transaction], Awaitable[Any]]) -> Any:
        self.reads += 1
        if self.reads == 2:
            await self.happens()
        return await self.store.read(call, op, work)


async def test_rows_that_change_places_meanwhile_are_told_both() -> None:
    """The running one goes on serving beside the new one: a router that reads just then must not miss it."""
    made = scene()
    await made.running("a")
    await made.unclaimed("b", instances=2)
    lists = InstanceLists(made.store)
    await told(lists, made.call, Wanted())
    await made.lifecycle.update(made.call, "a", DesiredLRPUpdate(metric_tags=TAGS))

    async def happens() -> None:
        (now,) = await made.store.read(made.call, "list", lambda tx: tx.actual_lrps.list_of("a"))
        await displace(made, now)

    lists.store = Meanwhile(made.store, happens)  # type: ignore[assignment]
    found = [place for place, _ in await told(lists, made.call, Wanted())]
    assert lists.store.reads == 2  # type: ignore[attr-defined]
    assert found == [("a", 0, "EVACUATING"), *((guid, index, "ORDINARY") for guid, index in (("a", 0), *KEYS))]
