"""Lists, cursors and what is kept for how long, table by table."""

from typing import Any

import pytest
from attrs import evolve

from bbs.store import desired_lrps, failures, idempotency
from bbs.store.desired_lrps import StoredLRP
from diego_py import wire
from diego_py.errors import CallerError, InternalError
from diego_py.models.actual_lrp import ActualLRPState
from diego_py.models.desired_lrp import DesiredLRPDefinition
from tests.contract.store.conftest import NET_INFO, Scene, all_desired, definition, problem

DAY_S = 24 * 3600


async def test_stored_definitions_are_filtered_and_paged(scene: Scene) -> None:
    for guid in ("a-1", "a-2", "b-1", "B"):
        await scene.unclaimed(guid, instances=1)

    async def listed(after: str | None = None, limit: int = 500, **wanted: Any) -> list[StoredLRP]:
        selection = desired_lrps.Filter(**wanted)
        return await scene.store.read(
            scene.call, "list", lambda tx: tx.desired_lrps.list_stored(selection, after, limit)
        )

    whole = await listed()
    assert [stored.process_guid for stored in whole] == ["B", "a-1", "a-2", "b-1"]
    desired = await scene.store.read(scene.call, "get", all_desired)
    assert [wire.decode(DesiredLRPDefinition, stored.definition) for stored in whole] == [
        lrp.definition for lrp in desired
    ]
    assert [stored.modification_tag for stored in whole] == [lrp.modification_tag for lrp in desired]
    assert await listed(after="B", limit=2) == whole[1:3]
    assert await listed(domain="tests") == whole
    assert await listed(domain="other") == []
    assert await listed(process_guids=["b-1", "B", "none"]) == [whole[0], whole[3]]
    assert await listed(prefixes=["a-", "B"]) == whole[:3]
    assert await listed(process_guids=["a-1", "b-1"], prefixes=["a"]) == [whole[1]]
    assert await listed(process_guids=[]) == []
    assert await listed(prefixes=["_"]) == []


async def test_what_is_to_be_scheduled(scene: Scene) -> None:
    for guid in ("a", "b", "c"):
        await scene.unclaimed(guid)
    wanted = ["c", "a", "other"]
    infos = await scene.store.read(scene.call, "list", lambda tx: tx.desired_lrps.list_scheduling_infos(wanted))
    assert [(info.process_guid, info.instances, info.domain) for info in infos] == [
        (guid, 1, "tests") for guid in ("a", "c")
    ]


async def test_failures_newest_first_by_page_and_filter(scene: Scene) -> None:
    (row,) = await scene.unclaimed()
    for number in range(5):
        await scene.lifecycle.record_failure(scene.call, problem(scene.call, f"f{number}"), "place", row)

    async def page(after: tuple[str, str] | None, **wanted: str) -> list[failures.FailureRecord]:
        filter = failures.Filter(**wanted)
        return await scene.store.read(scene.call, "list", lambda tx: tx.failures.list_page(filter, after, 3))

    first = await page(None)
    assert [failure.id for failure in first] == ["f4", "f3", "f2"]
    assert [failure.id for failure in await page(failures.cursor_of(first[-1]))] == ["f1", "f0"]
    assert len(await page(None, process_guid="app", domain="tests", code="app.exited")) == 3
    assert await page(None, process_guid="other") == []
    assert wire.encode(first)


async def test_failures_are_kept_for_thirty_days(scene: Scene) -> None:
    for id in ("old", "new"):
        await scene.lifecycle.record_failure(scene.call, problem(scene.call, id), "place")
    await scene.tampering.shift("failures", "created_at", -31 * DAY_S, "old")
    await scene.store.run(scene.call, "prune", lambda tx: tx.failures.prune())
    assert await scene.tampering.column("failures", "id") == ["new"]


async def test_domains_are_fresh_for_their_time(scene: Scene) -> None:
    await scene.store.run(scene.call, "upsert", lambda tx: tx.domains.upsert("short", 60))
    await scene.store.run(scene.call, "upsert", lambda tx: tx.domains.upsert("long", 3600))
    await scene.store.run(scene.call, "upsert", lambda tx: tx.domains.upsert("ever", None))
    await scene.tampering.shift("domains", "expires_at", -61)
    fresh = await scene.store.read(scene.call, "list", lambda tx: tx.domains.list_fresh())
    assert [(item.domain, item.expires_at is None) for item in fresh] == [("ever", True), ("long", False)]
    assert wire.encode(fresh)
    await scene.tampering.shift("domains", "expires_at", -2 * DAY_S)
    await scene.store.run(scene.call, "prune", lambda tx: tx.domains.prune())
    assert await scene.tampering.column("domains", "domain") == ["ever"]


async def test_keys_are_forgotten_a_day_after_they_ran_out(scene: Scene) -> None:
    key = idempotency.IdempotencyKey("k", "POST /", b"h", "o")
    await scene.lifecycle.desire(scene.call, definition(), key)
    await scene.tampering.shift("idempotency_keys", "expires_at", -25 * 3600)
    await scene.store.run(scene.call, "prune", lambda tx: tx.idempotency.prune())
    assert await scene.tampering.column("idempotency_keys", "key") == []


@pytest.mark.parametrize(
    "changes",
    [
        {"state": ActualLRPState.CLAIMED},
        {"state": ActualLRPState.RUNNING, "cell_id": "c"},
        {"state": ActualLRPState.CRASHED},
        {"routable": True},
        {"net_info": NET_INFO},
        {"cell_id": "c"},
    ],
    ids=str,
)
async def test_a_row_that_no_state_allows_is_a_defect_and_not_stored(scene: Scene, changes: dict[str, Any]) -> None:
    (row,) = await scene.unclaimed()
    with pytest.raises(InternalError):
        await scene.store.run(scene.call, "save", lambda tx: tx.actual_lrps.save(evolve(row, **changes), None))
    assert await scene.row() == row


async def test_an_instance_guid_is_of_one_row_only(scene: Scene) -> None:
    rows = await scene.unclaimed(instances=2)
    twin = evolve(rows[0], instance_guid=rows[1].instance_guid)
    with pytest.raises(InternalError):
        await scene.store.run(scene.call, "save", lambda tx: tx.actual_lrps.save(twin, None))
    assert await scene.row() == rows[0]


@pytest.mark.parametrize("text", ["a\0b", "a\udcff"], ids=["nul", "half a character"])
async def test_text_that_cannot_be_stored_is_the_callers_fault(scene: Scene, text: str) -> None:
    with pytest.raises(CallerError, match="cannot be stored"):
        await scene.store.read(scene.call, "get", lambda tx: tx.desired_lrps.get(text))
