"""What a row becomes by each event of the state table. Pure: the time is an argument, and nothing is saved here."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from attrs import evolve

from bbs.convergence.backoff import CrashPolicy
from diego_py.errors import IllegalTransition
from diego_py.models import actual_lrp
from diego_py.models.actual_lrp import ActualLRP, ActualLRPEvent, ActualLRPState, NetInfo, PresenceEvent
from diego_py.models.identifiers import CellId, InstanceGuid
from diego_py.models.workload import ModificationTag

REASON_CHARACTERS_MAX: Final = 16 * 1024


def offered(row: ActualLRP, instance_guid: str, revision: int, now: datetime) -> ActualLRP:
    """Offered to a cell under a new name. A claim of the offer before is given up; that offer counts as tried."""
    if row.state is ActualLRPState.CLAIMED:
        row = failed(row, row.placement_error, None, now)
    return _moved(
        row,
        ActualLRPEvent.OFFER,
        now,
        instance_guid=InstanceGuid(instance_guid),
        revision=revision,
        attempts=row.attempts + (row.instance_guid is not None),
        next_attempt_at=None,
    )


def claimed(row: ActualLRP, cell_id: str, now: datetime) -> ActualLRP:
    return _moved(row, ActualLRPEvent.CLAIM, now, cell_id=CellId(cell_id), placement_error=None, next_attempt_at=None)


def started(
    row: ActualLRP, cell_id: str, net_info: NetInfo, zone: str, now: datetime, routable: bool = True
) -> ActualLRP:
    """Running; the same row if it was already, there, and as routable. What only that changes began no new life."""
    facts: dict[str, Any] = {
        "cell_id": CellId(cell_id),
        "net_info": net_info,
        "availability_zone": zone,
        "routable": routable,
    }
    if row.state is ActualLRPState.RUNNING:
        if (row.net_info, row.routable) == (net_info, routable):
            return row
        return _moved(row, ActualLRPEvent.START, row.since, **facts)
    return _moved(
        row,
        ActualLRPEvent.START,
        now,
        **facts,
        placement_error=None,
        attempts=0,
        next_attempt_at=None,
    )


def reopened(row: ActualLRP, routable: bool) -> ActualLRP:
    """Running as before, and requests may come to it or may not."""
    return evolve(row, routable=routable, modification_tag=row.modification_tag.next())


def failed(row: ActualLRP, reason: str | None, next_attempt_at: datetime | None, now: datetime) -> ActualLRP:
    """Not placed or not created, and no attempt under way any more."""
    return _moved(
        row,
        ActualLRPEvent.FAIL,
        now,
        **_NOWHERE,
        placement_error=_short(reason),
        attempts=row.attempts + 1,
        next_attempt_at=next_attempt_at,
    )


def crashed(row: ActualLRP, reason: str, now: datetime, policy: CrashPolicy) -> ActualLRP:
    """Ended by the app's own fault. Without a next attempt it crashed so often that only a user restarts it."""
    ran_s = (now - row.since).total_seconds() if row.state is ActualLRPState.RUNNING else None
    crash_count = policy.count(row.crash_count, ran_s)
    wait_s = policy.wait_s(crash_count)
    return _moved(
        row,
        ActualLRPEvent.CRASH,
        now,
        **_NOWHERE,
        crash_count=crash_count,
        crash_reason=_short(reason),
        next_attempt_at=None if wait_s is None else now + timedelta(seconds=wait_s),
    )


def lost(row: ActualLRP, reason: str, now: datetime, at: datetime | None = None) -> ActualLRP:
    """Gone with its cell, or from it; due to be placed now, or at a later time."""
    due = now if at is None else at
    return _moved(row, ActualLRPEvent.LOSE, now, **_NOWHERE, placement_error=_short(reason), next_attempt_at=due)


def retried(row: ActualLRP, now: datetime) -> ActualLRP:
    """Waited long enough after a crash; due to be placed now."""
    return _moved(row, ActualLRPEvent.RETRY, now, next_attempt_at=now)


def restarted(row: ActualLRP, instance_guid: str, revision: int, now: datetime) -> ActualLRP:
    """A new life by a user's wish, offered under a new name; what failed before is forgotten."""
    anew: dict[str, Any] = {
        **_NOWHERE,
        "instance_guid": InstanceGuid(instance_guid),
        "revision": revision,
        "crash_count": 0,
        "crash_reason": None,
        "placement_error": None,
        "attempts": 0,
        "next_attempt_at": None,
    }
    return _moved(row, ActualLRPEvent.RESTART, now, **anew)


def unclaimed(before: ActualLRP, instance_guid: str, tag_epoch: str, revision: int, now: datetime) -> ActualLRP:
    """A new row of the same index, offered under this name."""
    return ActualLRP(
        process_guid=before.process_guid,
        index=before.index,
        domain=before.domain,
        state=ActualLRPState.UNCLAIMED,
        instance_guid=InstanceGuid(instance_guid),
        since=now,
        revision=revision,
        modification_tag=ModificationTag(epoch=tag_epoch, index=0),
    )


def due(row: ActualLRP, reason: str, now: datetime) -> ActualLRP:
    """A new row that says why it is there, and that it is to be placed now."""
    return evolve(row, placement_error=_short(reason), next_attempt_at=now)


def beside(row: ActualLRP, event: PresenceEvent, failure: Mapping[str, Any] | None) -> ActualLRP:
    """The same instance, as another row of its index. Its state, and since when, stay."""
    try:
        presence = actual_lrp.presence_after(row.presence, event)
    except actual_lrp.IllegalTransition as illegal:
        evidence = {"from": str(row.presence), "event": str(event), "instance_guid": row.instance_guid}
        told = f"{event} instance {row.process_guid}/{row.index} ({row.instance_guid}) from {row.presence}"
        raise IllegalTransition(told, evidence=evidence) from illegal
    return evolve(row, presence=presence, modification_tag=row.modification_tag.next(), failure=failure)


_NOWHERE: Final[dict[str, Any]] = {
    "instance_guid": None,
    "cell_id": None,
    "net_info": None,
    "routable": False,
    "availability_zone": "",
}


def _moved(row: ActualLRP, event: ActualLRPEvent, since: datetime, **changes: Any) -> ActualLRP:
    try:
        state = actual_lrp.transition(row.state, event)
    except actual_lrp.IllegalTransition as illegal:
        told = f"{event} instance {row.process_guid}/{row.index} ({row.instance_guid}) from {row.state}"
        evidence = {"from": str(row.state), "event": str(event), "instance_guid": row.instance_guid}
        raise IllegalTransition(told, evidence=evidence) from illegal
    return evolve(row, state=state, since=since, modification_tag=row.modification_tag.next(), failure=None, **changes)


def _short(reason: str | None) -> str | None:
    """A reason as its column takes it; the whole story is in the failure document."""
    return None if reason is None else reason[:REASON_CHARACTERS_MAX]
