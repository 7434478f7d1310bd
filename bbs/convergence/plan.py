"""What is not as desired, and what to do about it, as data with a reason for each. Pure: planned from one snapshot."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from attrs import frozen

from diego_py.models.actual_lrp import ActualLRP, ActualLRPState, Presence
from diego_py.models.desired_lrp import DesiredLRP
from diego_py.models.identifiers import CellId, Domain, ProcessGuid

STOP_PATIENCE_S = 30.0
"""Who deletes or scales down stops the containers himself; when a row is still there after so long, he died."""
STALE_UNCLAIMED_S = 30.0
"""An UNCLAIMED row that nobody moved for this long belongs to a BBS that died (Diego's stale time)."""
MASS_LOSS_FRACTION = 0.5
"""When more than this part of several cells vanishes at once, it is the network or ourselves: nothing is replaced."""


@frozen
class Snapshot:
    """One consistent reading of the database. An incomplete one is an error, never a smaller plan."""

    now: datetime
    desired: Mapping[ProcessGuid, DesiredLRP]
    actuals: tuple[ActualLRP, ...]
    live_cells: frozenset[CellId]
    known_cells: frozenset[CellId]
    """Live ones and those whose presence ran out and that were not removed."""
    fresh_domains: frozenset[Domain]
    may_lose_cells: bool
    """Whether this leader has watched for a whole presence TTL, so that a missing presence means something."""


@frozen
class Step:
    """One repair: the row and why."""

    row: ActualLRP
    reason: str


@frozen
class Missing:
    """An index that has no row at all."""

    desired: DesiredLRP
    index: int


@frozen
class Plan:
    """Buckets in the order in which they are applied."""

    lose: tuple[Step, ...] = ()
    retry: tuple[Step, ...] = ()
    place: tuple[Step, ...] = ()
    create: tuple[Missing, ...] = ()
    stop: tuple[Step, ...] = ()
    held: tuple[Step, ...] = ()
    """Rows that need something that is not done now, and why not."""
    valve: str = ""
    """Why no cell may be declared lost in this round, though some are gone."""

    @property
    def empty(self) -> bool:
        return not (self.lose or self.retry or self.place or self.create or self.stop)


def plan(snapshot: Snapshot) -> Plan:
    """The repairs that this snapshot calls for."""
    lose: list[Step] = []
    retry: list[Step] = []
    place: list[Step] = []
    stop: list[Step] = []
    held: list[Step] = []
    valve = _mass_loss(snapshot)
    for row in snapshot.actuals:
        desired = snapshot.desired.get(row.process_guid)
        if row.stop_asked_at is not None:
            told = f"somebody asked for its end at {row.stop_asked_at.isoformat(timespec='seconds')}"
            due = row.stop_asked_at + timedelta(seconds=STOP_PATIENCE_S) <= snapshot.now
            (stop if due else held).append(Step(row, told))
        elif desired is None or row.index >= desired.definition.instances:
            why = "no desired LRP" if desired is None else f"only {desired.definition.instances} instance(s) desired"
            fresh = row.domain in snapshot.fresh_domains
            (stop if fresh else held).append(Step(row, why if fresh else f"{why}; domain {row.domain} is not fresh"))
        elif row.presence is not Presence.ORDINARY:
            continue
        elif row.state in (ActualLRPState.CLAIMED, ActualLRPState.RUNNING):
            if row.cell_id not in snapshot.live_cells:
                reason = f"cell {row.cell_id} has no presence"
                held.append(Step(row, f"{reason}; {valve}")) if valve else lose.append(Step(row, reason))
        elif row.state is ActualLRPState.CRASHED:
            _when_due(snapshot, row, retry, held, f"crashed {row.crash_count} time(s)")
        elif row.next_attempt_at is not None:
            _when_due(snapshot, row, place, held, f"attempt {row.attempts} failed")
        elif row.since + timedelta(seconds=STALE_UNCLAIMED_S) <= snapshot.now:
            place.append(Step(row, f"unclaimed for over {STALE_UNCLAIMED_S:.0f} s"))
    return Plan(
        lose=tuple(lose),
        retry=tuple(retry),
        place=tuple(place),
        create=tuple(_missing(snapshot)),
        stop=tuple(stop),
        held=tuple(held),
        valve=valve if snapshot.known_cells - snapshot.live_cells else "",
    )


def _when_due(snapshot: Snapshot, row: ActualLRP, due: list[Step], held: list[Step], reason: str) -> None:
    if row.next_attempt_at is None:
        held.append(Step(row, f"{reason}; given up"))
    elif row.next_attempt_at <= snapshot.now:
        due.append(Step(row, reason))
    else:
        held.append(Step(row, f"{reason}; next attempt at {row.next_attempt_at.isoformat(timespec='seconds')}"))


def _missing(snapshot: Snapshot) -> list[Missing]:
    present = {(row.process_guid, row.index) for row in snapshot.actuals if row.presence is Presence.ORDINARY}
    return [
        Missing(desired, index)
        for guid, desired in snapshot.desired.items()
        for index in range(desired.definition.instances)
        if (guid, index) not in present
    ]


def _mass_loss(snapshot: Snapshot) -> str:
    """Why no cell may be declared lost now, or an empty string. reliability rule R11."""
    if not snapshot.may_lose_cells:
        return "this leader has not watched for a whole presence TTL yet"
    lost = snapshot.known_cells - snapshot.live_cells
    if len(lost) > 1 and len(lost) > MASS_LOSS_FRACTION * len(snapshot.known_cells):
        return f"{len(lost)} of {len(snapshot.known_cells)} cells vanished at once"
    return ""
