"""I3, I4: whatever is called in whatever order, rows only make moves of the table, and their tags only rise."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from itertools import count

import pytest
from attrs import define, evolve, field

from bbs.store.attempts import Claim, Start
from diego_py.errors import DiegoError, InternalError
from diego_py.models.actual_lrp import TRANSITIONS, ActualLRP, ActualLRPEvent, ActualLRPState
from diego_py.models.desired_lrp import DesiredLRPUpdate
from tests.contract.store.conftest import NET_INFO, Scene, definition, problem, report, reported
from tests.contract.store.test_report import ended

CELLS = ("cell-1", "cell-2")
INSTANCES = 3
STEPS = 60

MOVES = {(before, after) for (before, _), after in TRANSITIONS.items()} | {
    # An offer that gives up a claim is two moves in one transaction: FAIL, then OFFER.
    (before, TRANSITIONS[(middle, ActualLRPEvent.OFFER)])
    for (before, event), middle in TRANSITIONS.items()
    if event is ActualLRPEvent.FAIL
}


@define
class Actor:
    """Somebody who does anything to anything, with rows that may be long out of date."""

    scene: Scene
    random: random.Random
    sequences: Callable[[], int]
    seen: list[ActualLRP] = field(factory=list)

    async def step(self) -> None:
        """One random call. Refusals are fine, defects are not."""
        rows = await self.scene.store.read(self.scene.call, "list", lambda tx: tx.actual_lrps.list_all())
        self.seen = [*self.seen[-10:], *rows]
        known = rows if rows and self.random.random() < 0.8 else self.seen
        row = self.random.choice(known) if known else None
        try:
            await self.random.choice(self._calls(row))()
        except DiegoError as error:
            if error.find(InternalError) is not None:
                raise

    def _calls(self, row: ActualLRP | None) -> list[Callable[[], Awaitable[object]]]:
        lifecycle, call = self.scene.lifecycle, self.scene.call
        always: list[Callable[[], Awaitable[object]]] = [
            lambda: lifecycle.desire(call, definition(instances=INSTANCES)),
            lambda: lifecycle.update(call, "app", DesiredLRPUpdate(instances=self.random.randint(0, INSTANCES))),
            lambda: lifecycle.add_missing(call, "app", None),
            self.report,
        ]
        if row is None:
            return always
        known = row
        cell = known.cell_id if known.cell_id and self.random.random() < 0.9 else self.random.choice(CELLS)
        guid = known.instance_guid or "none"
        key = (known.process_guid, known.index)
        document = problem(call, f"f{self.sequences()}")
        common: list[Callable[[], Awaitable[object]]] = [
            lambda: lifecycle.offer(call, known),
            lambda: lifecycle.claim(call, Claim(*key, guid, cell, "boot-1")),
            lambda: lifecycle.start(call, Start(*key, guid, cell, NET_INFO, "z1")),
            lambda: lifecycle.fail(call, known, document),
            lambda: lifecycle.crash(call, *key, guid, cell, document),
            lambda: lifecycle.retry(call, known, None),
        ]
        rare: list[Callable[[], Awaitable[object]]] = [
            lambda: lifecycle.lose(call, known, None, document),
            lambda: lifecycle.restart(call, *key),
            lambda: lifecycle.remove(call, *key, guid),
        ]
        if self.random.random() < 0.02:
            rare.append(lambda: lifecycle.undesire(call, "app"))
        return [*always, *common * 4, *rare]

    async def report(self) -> None:
        """A cell says anything about anything."""
        named = [row for row in self.seen if row.instance_guid is not None]
        chosen = {row.instance_guid: row for row in self.random.sample(named, min(len(named), 3))}
        rows = list(chosen.values())
        cut = self.random.randint(0, len(rows))
        told = report(
            self.random.choice(CELLS),
            sequence=self.sequences(),
            instances=[reported(row) for row in rows[:cut]],
            ended=[ended(self.scene, row) for row in rows[cut:]],
        )
        if self.random.random() < 0.3:
            await self.scene.age(10)
        await self.scene.lifecycle.report(self.scene.call, told)


@pytest.mark.parametrize("seed", range(8))
async def test_one_call_after_another_makes_only_moves_of_the_table(scene: Scene, seed: int) -> None:
    actor = Actor(scene, random.Random(seed), count(1).__next__)
    for cell in CELLS:
        await scene.cell(cell)
    before: dict[tuple[str, int, str], ActualLRP] = {}
    for _ in range(STEPS):
        await actor.step()
        rows = await scene.store.read(scene.call, "list", lambda tx: tx.actual_lrps.list_all())
        after = {(row.process_guid, row.index, row.modification_tag.epoch): row for row in rows}
        for key in before.keys() & after.keys():
            check_move(before[key], after[key])
        for key in after.keys() - before.keys():
            assert after[key].state is ActualLRPState.UNCLAIMED
        for row in rows:
            assert list(row.rules()) == []
        before = after


def check_move(before: ActualLRP, after: ActualLRP) -> None:
    aged = evolve(after, since=before.since)
    if before.modification_tag == after.modification_tag:
        assert aged == before
        return
    assert before.modification_tag.succeeded_by(after.modification_tag)
    assert (before.state, after.state) in MOVES
    assert after.crash_count - before.crash_count in (0, 1, 1 - before.crash_count, -before.crash_count)


async def test_many_actors_at_once_make_only_moves_of_the_table(scene: Scene) -> None:
    """Every version of every row is written down by a trigger, because nobody can read in between."""
    await scene.tampering.audit()
    for cell in CELLS:
        await scene.cell(cell)
    with_numbers = count(1).__next__
    actors = [Actor(scene, random.Random(100 + number), with_numbers) for number in range(6)]

    async def act(actor: Actor) -> None:
        for _ in range(STEPS):
            await actor.step()

    async with asyncio.TaskGroup() as group:
        for actor in actors:
            group.create_task(act(actor))
    audit = await scene.tampering.audited()
    assert {row.new_state for row in audit} == set(ActualLRPState)
    assert len(audit) > STEPS
    cells_of: dict[str, set[str]] = {}
    for row in audit:
        asked_to_end = row.old_state == row.new_state
        assert asked_to_end or (ActualLRPState(row.old_state), ActualLRPState(row.new_state)) in MOVES
        assert row.new_tag == row.old_tag + 1 or (row.old_state, row.new_tag) == ("CLAIMED", row.old_tag + 2)
        if row.instance_guid is not None and row.cell_id is not None:
            cells_of.setdefault(row.instance_guid, set()).add(row.cell_id)
    assert all(len(cells) == 1 for cells in cells_of.values()), "one instance_guid, one cell"
