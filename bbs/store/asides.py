"""Rows that step aside, many at once: each serves on beside a new row of its index, until that one runs or fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set

from attrs import frozen

from bbs.store import fence, moves
from bbs.store.actual_lrps import Key, Locked
from bbs.store.failures import Document
from bbs.store.transaction import Transaction
from diego_py.errors import ActualLRPNotFound, DiegoError, IllegalTransition
from diego_py.models.actual_lrp import ActualLRP, ActualLRPState, Presence, PresenceEvent, presence_after


@frozen
class Pair:
    """One index with two rows."""

    old: ActualLRP
    """RUNNING, beside the ordinary row."""
    new: ActualLRP
    """UNCLAIMED, with the instance_guid that it is offered under."""


@frozen
class Aside:
    """A row that is to step aside, as it was read, for one of this revision."""

    row: ActualLRP
    event: PresenceEvent
    revision: int
    document: Document | None = None
    """Why, if that is a failure: then the new row says so, too, and that it is to be placed now."""
    epoch: int | None = None
    """Only as the convergence leader of this epoch."""


async def step_aside(tx: Transaction, asides: Sequence[Aside], new_guid: Callable[[], str]) -> list[Pair | DiegoError]:
    """Let each serve beside a new row, offered under a name that nobody else knows yet.

    Each may be IllegalTransition (it changed since it was read, or another one is beside it already),
    ActualLRPNotFound or NotLeader.
    """
    not_leading = await fence.refusals(tx, [aside.epoch for aside in asides])
    keys = sorted({_key(aside.row) for aside in asides})
    locked = {_key(found.row): found for found in await tx.actual_lrps.lock_many(keys)}
    taken = {(*_key(row), row.presence) for row in await tx.actual_lrps.list_of_keys(keys)}
    outcomes: list[Pair | DiegoError] = []
    made: list[tuple[Aside, Pair]] = []
    for aside, refusal in zip(asides, not_leading, strict=True):
        outcome = refusal or _paired(aside, locked.get(_key(aside.row)), taken, new_guid)
        outcomes.append(outcome)
        if isinstance(outcome, Pair):
            made.append((aside, outcome))
            taken.add((*_key(outcome.old), outcome.old.presence))
    if made:
        await _save(tx, made)
    return outcomes


def _paired(
    aside: Aside, locked: Locked | None, taken: Set[tuple[str, int, Presence]], new_guid: Callable[[], str]
) -> Pair | DiegoError:
    """What a row is to become, and the new one beside it."""
    row, document = aside.row, aside.document
    if locked is None:
        return ActualLRPNotFound(f"no instance {row.process_guid}/{row.index}")
    if locked.row.modification_tag != row.modification_tag or locked.row.state is not ActualLRPState.RUNNING:
        return refused(row, f"it is {locked.row.state} by now")
    if (*_key(row), presence_after(row.presence, aside.event)) in taken:
        return refused(row, "an earlier one is still beside it")
    new = moves.unclaimed(row, new_guid(), new_guid(), aside.revision, locked.now)
    old = moves.beside(locked.row, aside.event, None if document is None else document.members)
    return Pair(old, new if document is None else moves.due(new, document.detail, locked.now))


async def _save(tx: Transaction, made: Sequence[tuple[Aside, Pair]]) -> None:
    if documents := [(aside.document, "run", aside.row) for aside, _ in made if aside.document is not None]:
        await tx.failures.insert_many(documents)
    await tx.actual_lrps.move_many([(aside.row, pair.old.presence, _id(aside)) for aside, pair in made])
    await tx.actual_lrps.insert_many([(pair.new, _id(aside)) for aside, pair in made])


def _id(aside: Aside) -> str | None:
    return None if aside.document is None else aside.document.id


def refused(row: ActualLRP, why: str) -> IllegalTransition:
    """Why a row does not give way."""
    evidence = {"from": str(row.state), "presence": str(row.presence), "instance_guid": row.instance_guid}
    return IllegalTransition(f"replace instance {row.process_guid}/{row.index}: {why}", evidence=evidence)


def _key(row: ActualLRP) -> Key:
    return row.process_guid, row.index
