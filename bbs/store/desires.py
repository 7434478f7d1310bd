"""What is desired, brought into rows: each function is the whole of one transaction but for the idempotency key."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from attrs import frozen

from bbs.labels import labels_of
from bbs.store.transaction import Transaction
from diego_py.errors import ConflictError, DesiredLRPNotFound, PreconditionFailed
from diego_py.models.actual_lrp import ActualLRP, ActualLRPState, Presence
from diego_py.models.desired_lrp import DesiredLRP, DesiredLRPDefinition, DesiredLRPUpdate, same_containers
from diego_py.models.workload import ModificationTag


@frozen
class Desired:
    """A new desired LRP and its rows, all UNCLAIMED."""

    desired: DesiredLRP
    actuals: tuple[ActualLRP, ...]
    """To be placed; each has the instance_guid that it is offered under."""


@frozen
class Updated:
    """A desired LRP after a change, and what the change asks of its rows."""

    before: DesiredLRP
    desired: DesiredLRP
    added: tuple[ActualLRP, ...]
    """UNCLAIMED, to be placed."""
    surplus: tuple[ActualLRP, ...]
    """Rows and abandoned attempts with index >= instances; still there, for the caller to stop and then `remove`."""
    staying: tuple[ActualLRP, ...]
    """The other rows that were there."""


@frozen
class Replaced:
    """A desired LRP after its definition was replaced, and what that asks of its rows."""

    before: DesiredLRP
    desired: DesiredLRP
    added: tuple[ActualLRP, ...]
    """UNCLAIMED, to be placed."""
    surplus: tuple[ActualLRP, ...]
    """Rows and abandoned attempts with index >= instances; still there, for the caller to stop and then `remove`."""
    current: tuple[ActualLRP, ...]
    """Rows that run with this definition already."""
    outdated: tuple[ActualLRP, ...]
    """The other ordinary rows, in order: of an older definition, or not RUNNING."""
    beside: tuple[ActualLRP, ...]
    """Rows beside ordinary ones: what an earlier replacement or evacuation left."""


def etag(desired: DesiredLRP) -> str:
    """The ETag of a desired LRP, quoted, as If-Match brings it back.

    With the moment of the change: after the database was restored, a tag comes again with another content.
    """
    tag, changed = desired.modification_tag, desired.updated_at
    return f'"{tag.epoch}.{tag.index}.{round(changed.timestamp() * 1e6):x}"'


async def desire(tx: Transaction, definition: DesiredLRPDefinition, new_guid: Callable[[], str]) -> Desired:
    """Store it with an UNCLAIMED row for each instance: one statement. Raises AlreadyExists, StillBeingDeleted."""
    names, epochs = ([new_guid() for _ in range(definition.instances)] for _ in range(2))
    desired, actuals = await tx.lrps.desire(definition, new_guid(), names, epochs)
    return Desired(desired, tuple(actuals))


async def take_up(tx: Transaction, process_guid: str) -> Desired:
    """What a first request stored, for whoever goes on in its place. Raises DesiredLRPNotFound.

    Its tag rises: the first one may only have been frozen, and rolls back nothing but what has the tag that it knows.
    """
    before = await _locked(tx, process_guid, None)
    desired = await _updated(tx, before.definition, before.revision)
    return Desired(desired, tuple(await tx.actual_lrps.list_of(process_guid)))


async def update(
    tx: Transaction,
    process_guid: str,
    change: DesiredLRPUpdate,
    if_match: str | None,
    new_guid: Callable[[], str],
) -> Updated:
    """Change it and add the rows that are missing. Raises DesiredLRPNotFound, PreconditionFailed."""
    before = await _locked(tx, process_guid, if_match)
    after = await _updated(tx, change.apply_to(before.definition), before.revision)
    instances = after.definition.instances
    await _tell_labels(tx, before, after)
    await tx.actual_lrps.ask_stop(process_guid, instances)
    existing = await tx.actual_lrps.list_of(process_guid)
    return Updated(
        before=before,
        desired=after,
        added=await _insert(tx, after, _missing(instances, existing), new_guid),
        surplus=await _surplus(tx, process_guid, instances, existing),
        staying=tuple(row for row in existing if row.index < instances),
    )


async def replace(
    tx: Transaction, definition: DesiredLRPDefinition, if_match: str | None, new_guid: Callable[[], str]
) -> Replaced:
    """Replace the whole definition and add the rows that are missing. The same one again finds what is still old.

    Raises DesiredLRPNotFound, PreconditionFailed, ConflictError.
    """
    before = await _locked(tx, definition.process_guid, if_match)
    if before.definition.domain != definition.domain:
        raise ConflictError(f"desired LRP {definition.process_guid} is of another domain, which never changes")
    after = before
    if definition != before.definition:
        newer = not same_containers(before.definition, definition)
        after = await _updated(tx, definition, before.revision + newer)
        await _tell_labels(tx, before, after)
    await tx.actual_lrps.ask_stop(definition.process_guid, definition.instances)
    existing = await tx.actual_lrps.list_of(definition.process_guid)
    staying = [row for row in existing if row.index < definition.instances]
    ordinary = [row for row in staying if row.presence is Presence.ORDINARY]
    return Replaced(
        before=before,
        desired=after,
        added=await _insert(tx, after, _missing(definition.instances, existing), new_guid),
        surplus=await _surplus(tx, definition.process_guid, definition.instances, existing),
        current=tuple(row for row in ordinary if _runs(row, after)),
        outdated=tuple(row for row in ordinary if not _runs(row, after)),
        beside=tuple(row for row in staying if row.presence is not Presence.ORDINARY),
    )


async def _locked(tx: Transaction, process_guid: str, if_match: str | None) -> DesiredLRP:
    desired = await tx.desired_lrps.get(process_guid, for_update=True)
    if desired is None:
        raise DesiredLRPNotFound(f"no desired LRP {process_guid}")
    if if_match is not None and not _matches(if_match, desired):
        raise PreconditionFailed(f"desired LRP {process_guid} is now {etag(desired)}")
    return desired


async def _updated(tx: Transaction, definition: DesiredLRPDefinition, revision: int) -> DesiredLRP:
    after = await tx.desired_lrps.update(definition, revision)
    if after is None:
        raise DesiredLRPNotFound(f"no desired LRP {definition.process_guid}")
    return after


async def _tell_labels(tx: Transaction, before: DesiredLRP, after: DesiredLRP) -> None:
    """Who knows instances by their tags looks again when they are told with other labels."""
    if labels_of(before.definition) != labels_of(after.definition):
        await tx.labels.changed(after.definition.process_guid)


async def undesire(tx: Transaction, process_guid: str, only: ModificationTag | None = None) -> tuple[ActualLRP, ...]:
    """Remove it, and the rows that no cell has: a claim of such a row comes too late. One statement.

    Gives CLAIMED and RUNNING rows and abandoned attempts, for the caller to stop and then `remove`. With `only`, just
    that revision of it: another one is somebody else's wish. Raises DesiredLRPNotFound, PreconditionFailed.
    """
    if only is not None:
        present = await tx.desired_lrps.get(process_guid, for_update=True)
        if present is not None and present.modification_tag != only:
            raise PreconditionFailed(f"desired LRP {process_guid} is now {etag(present)}")
    return tuple(await tx.lrps.undesire(process_guid))


async def everything_of(tx: Transaction, process_guid: str) -> tuple[ActualLRP, ...]:
    """All rows of an LRP, and its abandoned attempts."""
    return *await tx.actual_lrps.list_of(process_guid), *await tx.abandoned.list_of(process_guid)


async def add_missing(tx: Transaction, process_guid: str, new_guid: Callable[[], str]) -> tuple[ActualLRP, ...]:
    """Add rows for the indices that have none; nothing if it is no longer desired. They are offered to nobody yet."""
    desired = await tx.desired_lrps.get(process_guid, for_update=True)
    if desired is None:
        return ()
    missing = _missing(desired.definition.instances, await tx.actual_lrps.list_of(process_guid))
    return await _insert(tx, desired, missing, new_guid, offered=False)


async def _surplus(
    tx: Transaction, process_guid: str, instances: int, existing: Iterable[ActualLRP]
) -> tuple[ActualLRP, ...]:
    """What is to end of an LRP of so many instances."""
    rows = [row for row in existing if row.index >= instances]
    return *rows, *await tx.abandoned.list_of(process_guid, instances)


async def _insert(
    tx: Transaction,
    desired: DesiredLRP,
    indices: list[int],
    new_guid: Callable[[], str],
    *,
    offered: bool = True,
) -> tuple[ActualLRP, ...]:
    if not indices:
        return ()
    guids = [new_guid() if offered else None for _ in indices]
    epochs = [new_guid() for _ in indices]
    key = (desired.definition.process_guid, desired.definition.domain)
    return tuple(await tx.actual_lrps.insert_unclaimed(*key, indices, guids, epochs, desired.revision))


def _runs(row: ActualLRP, desired: DesiredLRP) -> bool:
    return row.state is ActualLRPState.RUNNING and row.revision == desired.revision


def _missing(instances: int, existing: Iterable[ActualLRP]) -> list[int]:
    present = {row.index for row in existing if row.presence is Presence.ORDINARY}
    return [index for index in range(instances) if index not in present]


def _matches(if_match: str, desired: DesiredLRP) -> bool:
    """Whether an If-Match header names this revision, alone, in a list, or as `*`."""
    return if_match.strip() == "*" or etag(desired) in [entry.strip() for entry in if_match.split(",")]
