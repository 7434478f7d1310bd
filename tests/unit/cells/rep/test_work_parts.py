"""Many instances in one request: each is decided, claimed, answered and undone by itself."""

from __future__ import annotations

import asyncio
from io import StringIO

import aiohttp
from attrs import evolve

from cells.app import Cell
from diego_py import wire
from diego_py.clients.cell import CellClient
from diego_py.errors import (
    ClaimLost,
    ClaimRefused,
    DiegoError,
    InsufficientResources,
    InvalidSpec,
    MountFailed,
    Outcome,
)
from diego_py.models.work import InstanceState, InstanceWork, Started, Works
from tests.fakes.bbs import FakeBBS
from tests.fakes.cell import CELL_ID, call, client_of, url_of, work
from tests.fakes.garden import FakeGarden


async def asked(client: CellClient, cell: Cell, count: int, **changes: object) -> list[Started | DiegoError]:
    """What became of instances that were asked for at the same moment."""
    runs = [
        client.run(call(), CELL_ID, url_of(cell), work(f"i-{n}", index=n, **changes), 1)  # type: ignore[arg-type]
        for n in range(count)
    ]
    return await asyncio.gather(*runs, return_exceptions=True)  # type: ignore[return-value]


async def test_one_claim_request_for_all_and_each_its_own_outcome(cell: Cell, garden: FakeGarden, bbs: FakeBBS) -> None:
    """One is refused its row, one finds no room: the others run."""
    bbs.refused_indices = frozenset({1})
    async with client_of() as client:
        outcomes = await asked(client, cell, 5)
    (claims,) = bbs.claim_requests.items
    assert [claim.index for claim in claims.instances] == [0, 1, 2, 3]
    assert isinstance(outcomes[4], InsufficientResources)
    refused = outcomes[1]
    assert isinstance(refused, DiegoError)
    assert [(link.frame and link.frame.hop, link.code) for link in refused.links()] == [
        ("rep", "rep.work_failed"),
        ("bbs", "rep.claim_refused"),
    ]
    assert isinstance(refused.root, ClaimRefused)
    assert refused.outcome is Outcome.ROLLED_BACK
    assert [outcome.instance_guid for outcome in outcomes if isinstance(outcome, Started)] == ["i-0", "i-2", "i-3"]
    assert sorted(container.handle for container in garden.containers()) == ["i-0", "i-2", "i-3"]


async def test_a_claim_that_nobody_answers_fails_all_and_leaves_nothing(
    cell: Cell, garden: FakeGarden, bbs: FakeBBS
) -> None:
    bbs.refusal = DiegoError("broken")
    async with client_of() as client:
        outcomes = await asked(client, cell, 3)
    assert all(isinstance(outcome, DiegoError) and outcome.find(ClaimLost) for outcome in outcomes)
    assert garden.containers() == []
    assert len(cell.work.books.instances) == 0


async def test_a_slow_one_holds_up_nobody(cell: Cell, bbs: FakeBBS, garden: FakeGarden) -> None:
    garden.holds["run"] = asyncio.Event()
    async with client_of() as client, asyncio.TaskGroup() as group:
        slow = group.create_task(client.run(call(), CELL_ID, url_of(cell), work("i-0"), 1))
        refused = group.create_task(asked(client, cell, 1, memory_mb=10_000))
        (outcome,) = await refused
        assert isinstance(outcome, DiegoError)
        assert not slow.done()
        garden.holds["run"].set()
    assert slow.result().instance_guid == "i-0"


def told(guid: str, index: int, definition: int, budget_ms: int = 5_000) -> InstanceWork:
    one = work(guid, index=index)
    return InstanceWork(
        process_guid=one.process_guid,
        index=index,
        domain=one.domain,
        instance_guid=one.instance_guid,
        definition=definition,
        request_id=f"request-{index}",
        trace_id=f"{index:032x}",
        budget_ms=budget_ms,
    )


async def test_a_bad_definition_or_a_spent_budget_fails_its_own_instances(cell: Cell, log: StringIO) -> None:
    good = wire.to_builtins_revealed(work().definition)
    works = Works(
        definitions=(good, {**good, "rootfs": 5, "more": 1}),
        instances=(told("i-0", 0, 0), told("i-1", 1, 1), told("i-2", 2, 7), told("i-3", 3, 0, budget_ms=0)),
    )
    lines = await sent(cell, works)
    assert lines[0]["given"]["instance_guid"] == "i-0"
    assert lines[1]["failure"]["code"] == InvalidSpec.code
    assert {error["pointer"] for error in lines[1]["failure"]["errors"]} == {"/definition/rootfs", "/definition/more"}
    assert lines[1]["failure"]["request_id"] == "request-1"
    assert lines[2]["failure"]["code"] == InvalidSpec.code
    assert lines[3]["failure"]["code"] == "budget_spent"
    assert "canary-secret" not in str(lines)
    events = [wire.parse(line.encode()) for line in log.getvalue().splitlines()]
    logged = {event["request_id"]: event["status"] for event in events if event.get("op") == "run_instance"}
    assert logged == {"request-0": 201, "request-1": 422, "request-2": 422, "request-3": 504}


async def sent(cell: Cell, works: Works) -> list[dict[str, object]]:
    """The lines of the answer, by part."""
    body, kind = wire.encode_revealed(works), {"Content-Type": "application/json"}
    async with (
        aiohttp.ClientSession(url_of(cell)) as http,
        http.post("/v1/instances", data=body, headers=kind) as response,
    ):
        assert (response.status, response.content_type) == (200, "application/x-ndjson")
        lines = [wire.parse(line) for line in (await response.read()).splitlines()]
    return sorted(lines, key=lambda line: line["part"])


async def test_the_caller_hangs_up_and_all_of_it_comes_to_its_end(cell: Cell, garden: FakeGarden, bbs: FakeBBS) -> None:
    bbs.hold_claims = asyncio.Event()
    async with client_of() as client, asyncio.TaskGroup() as group:
        asking = group.create_task(asked(client, cell, 3))
        await bbs.claims.first(lambda claim: claim.index == 2)
        asking.cancel()
        bbs.hold_claims.set()
        await asyncio.gather(*(cell.work._starts.settled(f"i-{n}") for n in range(3)))
    states = [instance.state for instance in cell.work.books.instances]
    assert states == [InstanceState.RUNNING] * 3


async def test_each_is_undone_by_itself(cell: Cell, garden: FakeGarden, bbs: FakeBBS) -> None:
    garden.failures["create"] = MountFailed("mount overlay")
    async with client_of() as client:
        outcomes = await asked(client, cell, 3)
    assert all(isinstance(outcome, DiegoError) and isinstance(outcome.root, MountFailed) for outcome in outcomes)
    assert {outcome.outcome for outcome in outcomes if isinstance(outcome, DiegoError)} == {Outcome.ROLLED_BACK}
    assert cell.work.books.reservations.available().containers == 4


async def test_a_repeat_among_the_others_joins_the_first(cell: Cell, garden: FakeGarden) -> None:
    same = told("i-0", 0, 0)
    definition = wire.to_builtins_revealed(work().definition)
    lines = await sent(cell, Works(definitions=(definition,), instances=(same, evolve(same, request_id="again"))))
    assert [line["given"]["instance_guid"] for line in lines] == ["i-0", "i-0"]  # type: ignore[index]
    assert garden.ops() == ["create", "run"]
