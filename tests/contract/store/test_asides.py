"""Many rows step aside in one transaction: what is refused to one is refused to none of the others."""

from attrs import evolve

from bbs.store.asides import Aside, Pair, step_aside
from bbs.store.failures import Filter, document_of
from bbs.store.transaction import Transaction
from diego_py.errors import ActualLRPNotFound, DiegoError, IllegalTransition, NotLeader
from diego_py.models.actual_lrp import ActualLRP, ActualLRPState, Presence, PresenceEvent
from diego_py.models.identifiers import ProcessGuid
from tests.contract.store.conftest import Scene, problem


async def step(scene: Scene, *asides: Aside) -> list[Pair | DiegoError]:
    async def work(tx: Transaction) -> list[Pair | DiegoError]:
        return await step_aside(tx, asides, scene.lifecycle.new_guid)

    return await scene.store.run(scene.call, "step_aside", work)


def suspect(scene: Scene, row: ActualLRP, epoch: int | None = None) -> Aside:
    document = document_of(problem(scene.call, f"lost-{row.process_guid}"))
    return Aside(row, PresenceEvent.SUSPECT, 1, document, epoch)


async def leads(scene: Scene) -> int:
    epoch = await scene.store.run(scene.call, "lead", lambda tx: tx.leader.acquire_or_renew("me", 60.0))
    assert epoch is not None
    return epoch


async def test_each_has_an_outcome_of_its_own(scene: Scene) -> None:
    running = [await scene.running(guid) for guid in ("one", "two", "three", "four")]
    one, two, three, four = running
    stale = evolve(two, modification_tag=four.modification_tag.next().next())
    nobody = evolve(three, process_guid=ProcessGuid("nobody"))
    epoch = await leads(scene)
    asked = [suspect(scene, one, epoch), suspect(scene, stale), suspect(scene, nobody), suspect(scene, four, epoch + 1)]
    first, *refused = await step(scene, *asked)
    assert isinstance(first, Pair)
    assert [type(one) for one in refused] == [IllegalTransition, ActualLRPNotFound, NotLeader]
    rows = await scene.store.read(scene.call, "list", lambda tx: tx.actual_lrps.list_all())
    beside = [row for row in rows if row.process_guid == "one"]
    assert [(row.presence, row.state) for row in beside] == [
        (Presence.ORDINARY, ActualLRPState.UNCLAIMED),
        (Presence.SUSPECT, ActualLRPState.RUNNING),
    ]
    assert [row for row in rows if row.process_guid != "one"] == [four, three, two]
    told = await scene.store.read(scene.call, "list", lambda tx: tx.failures.list_page(Filter()))
    assert [failure.process_guid for failure in told] == ["one"]


async def test_one_that_is_asked_for_twice_steps_aside_once(scene: Scene) -> None:
    running = await scene.running()
    first, second = await step(scene, suspect(scene, running), suspect(scene, running))
    assert isinstance(first, Pair)
    assert isinstance(second, IllegalTransition)
    rows = await scene.store.read(scene.call, "list", lambda tx: tx.actual_lrps.list_all())
    assert [row.instance_guid for row in rows] == [first.new.instance_guid, running.instance_guid]


async def test_the_new_one_says_what_it_is_there_for(scene: Scene) -> None:
    """A row that a user's wish replaces has no failure; one whose cell vanished is due, and says why."""
    moved, lost = await scene.running("moved"), await scene.running("lost")
    for made in await step(scene, Aside(moved, PresenceEvent.DISPLACE, 1), suspect(scene, lost)):
        assert isinstance(made, Pair)
    rows = [
        await scene.store.read(scene.call, "get", lambda tx, guid=guid: tx.actual_lrps.get(guid, 0))
        for guid in ("moved", "lost")
    ]
    assert [row and (row.placement_error, row.next_attempt_at is not None, bool(row.failure)) for row in rows] == [
        (None, False, False),
        ("process exited with status 1", True, True),
    ]
