"""The old and the new instance of one index side by side: the old one's row steps aside until the new one runs.

One mechanism for replacements, evacuations and vanished cells. A row beside the ordinary one is always RUNNING; the
ordinary row decides what becomes of it: once that one runs, it is removed with its container; if that one does not come
to run, it is recalled. As in the lifecycle, each method is one transaction and has no effect outside of the database.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define, field

from bbs.lifecycle import Lifecycle, Restarted
from bbs.store import desires, moves, rows
from bbs.store.asides import Aside, Pair, refused, step_aside
from bbs.store.desires import Replaced
from bbs.store.failures import document_of
from bbs.store.fence import run_fenced
from bbs.store.idempotency import IdempotencyKey
from bbs.store.together import Together
from bbs.store.transaction import Store, Transaction
from diego_py.call import Call
from diego_py.chain import Problem
from diego_py.errors import DiegoError
from diego_py.models.actual_lrp import ActualLRP, ActualLRPState, PresenceEvent
from diego_py.models.desired_lrp import DesiredLRPDefinition

IDLE = (ActualLRPState.UNCLAIMED, ActualLRPState.CRASHED)


@define
class Succession:
    """Every change of a row that is beside another one."""

    store: Store
    lifecycle: Lifecycle
    _suspects: Together[Aside, Pair] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._suspects = Together(self.store, "suspect_instance", self._step_aside)

    async def replace(
        self,
        call: Call,
        definition: DesiredLRPDefinition,
        if_match: str | None = None,
        key: IdempotencyKey | None = None,
    ) -> Replaced:
        """Replace a definition. Raises DesiredLRPNotFound, PreconditionFailed, ConflictError and what keys raise."""

        async def work(tx: Transaction) -> Replaced:
            await self.lifecycle.keep(call, tx, key)
            return await desires.replace(tx, definition, if_match, self.lifecycle.new_guid)

        return await self.store.run(call, "replace_lrp", work)

    async def displace(self, call: Call, row: ActualLRP, revision: int, epoch: int | None = None) -> Pair:
        """Let a running instance step aside for one of this revision.

        Raises IllegalTransition if the row or the LRP changed since, or another replacement of it is under way.
        """

        async def work(tx: Transaction) -> Pair:
            desired = await tx.desired_lrps.get(row.process_guid, for_update=True)
            if desired is None or desired.definition.instances <= row.index or desired.revision != revision:
                raise refused(row, "the LRP changed meanwhile")
            (made,) = await self._step_aside(tx, [Aside(row, PresenceEvent.DISPLACE, revision)])
            if isinstance(made, DiegoError):
                raise made
            return made

        return await run_fenced(self.store, call, "displace_instance", work, epoch)

    async def recreate(self, call: Call, row: ActualLRP, revision: int, epoch: int | None = None) -> Restarted:
        """The same for an LRP that never has two of an index: the old one is to be stopped first, by its old row.

        Raises IllegalTransition if the row changed since it was read.
        """

        async def work(tx: Transaction) -> Restarted:
            locked = await rows.lock(tx, row.process_guid, row.index)
            if locked.row.modification_tag != row.modification_tag:
                raise refused(row, f"it is {locked.row.state} by now")
            return await self.lifecycle.start_anew(tx, locked, revision)

        return await run_fenced(self.store, call, "recreate_instance", work, epoch)

    async def suspect(
        self, call: Call, row: ActualLRP, epoch: int | None, problem: Problem, revision: int
    ) -> ActualLRP:
        """The cell of a running instance vanished: it may serve yet, and its replacement is due now.

        Gives the row that is to be placed, offered for this revision under a name that nobody else knows yet. Raises
        IllegalTransition if the row changed since it was read.
        """
        aside = Aside(row, PresenceEvent.SUSPECT, revision, document_of(problem), epoch)
        return (await self._suspects.ask(call, aside)).new

    async def recall(
        self,
        call: Call,
        old: ActualLRP,
        attempt: str | None = None,
        problem: Problem | None = None,
        epoch: int | None = None,
        gone: bool = False,
    ) -> ActualLRP | None:
        """The replacement did not come to run: its row goes, and the old instance is the ordinary one again.

        `attempt` is the instance_guid of a replacement that is known to have failed, `gone` if its cell said that
        nothing is left of it; without an attempt, only a row that no cell has gives way. None if there was nothing to
        recall: then only the document is stored.
        """
        document = None if problem is None else document_of(problem)

        async def work(tx: Transaction) -> ActualLRP | None:
            if document is not None:
                await tx.failures.insert(document, "place", old)
            ordinary = await tx.actual_lrps.lock(old.process_guid, old.index)
            beside = await tx.actual_lrps.lock(old.process_guid, old.index, old.presence)
            if beside is None or beside.row.instance_guid != old.instance_guid:
                return None
            if beside.row.stop_asked_at is not None:  # its replacement did run, and this one ends
                return None
            if ordinary is not None:
                if ordinary.row.state not in IDLE and ordinary.row.instance_guid != attempt:
                    return None
                await tx.actual_lrps.delete(old.process_guid, old.index, ordinary.row.instance_guid)
                if not gone:
                    await rows.abandon(tx, ordinary.row)
            after = moves.beside(beside.row, PresenceEvent.RECALL, None if document is None else document.members)
            await tx.actual_lrps.move_many([(beside.row, after.presence, None if document is None else document.id)])
            return after

        return await run_fenced(self.store, call, "recall_instance", work, epoch)

    async def drop(self, call: Call, old: ActualLRP, epoch: int | None = None) -> bool:
        """Remove a row beside the ordinary one, whose cell is gone. False if there is no such row any more."""
        return await self.lifecycle.abandon(call, old, epoch)

    async def _step_aside(self, tx: Transaction, asides: Sequence[Aside]) -> Sequence[Pair | DiegoError]:
        return await step_aside(tx, asides, self.lifecycle.new_guid)
