"""Snapshots of small clusters, and a model of what becomes of one when a plan is carried out."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from attrs import evolve
from hypothesis import strategies as st

from bbs.convergence.plan import Plan, Snapshot, in_pieces
from diego_py.models.actual_lrp import ActualLRP, ActualLRPState, NetInfo, Presence
from diego_py.models.desired_lrp import SchedulingInfo, UpdateStrategy
from diego_py.models.identifiers import CellId, Domain, InstanceGuid, ProcessGuid
from diego_py.models.workload import ModificationTag

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
FRESH, STALE = Domain("fresh"), Domain("stale")
CELLS = [CellId(f"cell-{n}") for n in range(5)]
GUIDS = [ProcessGuid(name) for name in ("web", "worker", "cron")]


def desired(
    guid: str = "web",
    instances: int = 1,
    domain: Domain = FRESH,
    strategy: UpdateStrategy = UpdateStrategy.ROLLING,
) -> SchedulingInfo:
    return SchedulingInfo(
        process_guid=ProcessGuid(guid),
        domain=domain,
        instances=instances,
        memory_mb=0,
        disk_mb=0,
        rootfs="preloaded:x",
        placement_tags=(),
        revision=0,
        modification_tag=ModificationTag(epoch="e", index=0),
        update_strategy=strategy,
    )


def row(
    state: ActualLRPState, guid: str = "web", index: int = 0, cell_id: CellId = CELLS[0], **other: Any
) -> ActualLRP:
    """A row whose fields agree with its state; `seconds_ago` says since when."""
    placed = state in (ActualLRPState.CLAIMED, ActualLRPState.RUNNING)
    told: dict[str, Any] = {
        "process_guid": ProcessGuid(guid),
        "index": index,
        "domain": FRESH,
        "state": state,
        "since": NOW - timedelta(seconds=other.pop("seconds_ago", 0)),
        "instance_guid": InstanceGuid("i") if placed else None,
        "cell_id": cell_id if placed else None,
        "net_info": NetInfo(address="10.0.0.1") if state is ActualLRPState.RUNNING else None,
        "routable": state is ActualLRPState.RUNNING,
        "modification_tag": ModificationTag(epoch="e", index=0),
    }
    return ActualLRP(**(told | other))


def snapshot(rows: Sequence[ActualLRP] = (), wanted: Sequence[SchedulingInfo] = (), **other: Any) -> Snapshot:
    """A reading of a cluster whose cells are all live and whose leader may lose cells."""
    told: dict[str, Any] = {
        "now": NOW,
        "desired": {lrp.process_guid: lrp for lrp in wanted},
        "actuals": tuple(rows),
        "live_cells": frozenset(CELLS),
        "known_cells": frozenset(CELLS),
        "fresh_domains": frozenset({FRESH}),
        "may_lose_cells": True,
    }
    return Snapshot(**(told | other))


@st.composite
def rows(draw: st.DrawFn) -> ActualLRP:
    state = draw(st.sampled_from(ActualLRPState))
    offset_s = draw(st.none() | st.integers(-60, 60))
    return row(
        state,
        draw(st.sampled_from(GUIDS)),
        draw(st.integers(0, 3)),
        draw(st.sampled_from(CELLS)),
        domain=draw(st.sampled_from([FRESH, STALE])),
        presence=Presence.ORDINARY if state is not ActualLRPState.RUNNING else draw(st.sampled_from(Presence)),
        seconds_ago=draw(st.integers(0, 60)),
        crash_count=draw(st.integers(0, 5)),
        next_attempt_at=None if offset_s is None else NOW + timedelta(seconds=offset_s),
    )


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    """Any reading of a small cluster: cells dead, removed or live, rows of all states, desired and not."""
    known = draw(st.frozensets(st.sampled_from(CELLS)))
    live = draw(st.frozensets(st.sampled_from(sorted(known)))) if known else frozenset()
    return snapshot(
        draw(st.lists(rows(), max_size=10, unique_by=lambda row: (row.process_guid, row.index, row.presence))),
        [
            desired(
                guid,
                draw(st.integers(0, 3)),
                draw(st.sampled_from([FRESH, STALE])),
                draw(st.sampled_from(UpdateStrategy)),
            )
            for guid in draw(st.sets(st.sampled_from(GUIDS)))
        ],
        known_cells=known,
        live_cells=live,
        late_cells=draw(st.frozensets(st.sampled_from(sorted(live)))) if live else frozenset(),
        fresh_domains=draw(st.frozensets(st.sampled_from([FRESH, STALE]))),
        may_lose_cells=draw(st.booleans()),
        mass_lost=draw(st.booleans()),
        draining_cells=draw(st.frozensets(st.sampled_from(CELLS))),
    )


def carried_out(plan: Plan, before: Snapshot) -> Snapshot:
    """The same cluster after every step of `plan` went as it should: placed on a live cell, or put off without one."""
    beside = (*plan.suspect, *plan.recall, *plan.settle, *plan.drop)
    moved = (*plan.move, *plan.recreate)
    gone = {_key(step.row) for step in (*plan.stop, *plan.lose, *plan.retry, *plan.place, *beside, *moved)}
    gone |= {(step.row.process_guid, step.row.index, Presence.ORDINARY) for step in plan.recall}
    placed = (*plan.suspect, *plan.lose, *plan.move, *plan.recreate, *plan.retry, *plan.place)
    again = [_started(before, step.row) for step in placed]
    again += [evolve(step.row, presence=Presence.EVACUATING) for step in plan.move]
    again += [evolve(step.row, presence=Presence.SUSPECT) for step in plan.suspect]
    again += [evolve(step.row, presence=Presence.ORDINARY) for step in plan.recall]
    new = [
        _started(before, row(ActualLRPState.UNCLAIMED, item.process_guid, item.index)) for item in plan.create
    ]
    kept = [actual for actual in before.actuals if _key(actual) not in gone]
    return evolve(before, actuals=(*kept, *again, *new))


def _started(cluster: Snapshot, before: ActualLRP) -> ActualLRP:
    where = {"domain": before.domain, "crash_count": before.crash_count}
    if open_cells := cluster.live_cells - cluster.draining_cells:
        cell_id = min(open_cells)
        return row(ActualLRPState.RUNNING, before.process_guid, before.index, cell_id, **where)
    at = cluster.now + timedelta(seconds=2)
    return row(ActualLRPState.UNCLAIMED, before.process_guid, before.index, next_attempt_at=at, attempts=1, **where)


def _key(actual: ActualLRP) -> tuple[str, int, Presence]:
    return (actual.process_guid, actual.index, actual.presence)


def plan(snapshot: Snapshot) -> Plan:
    """All pieces of the plan, at once."""
    planning = in_pieces(snapshot)
    while True:
        try:
            next(planning)
        except StopIteration as planned:
            plan: Plan = planned.value
            return plan
