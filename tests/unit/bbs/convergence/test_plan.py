"""Convergence never starts too much, never stops what it does not own, and comes to an end."""

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given

from bbs.convergence.plan import MASS_LOSS_FRACTION, STALE_UNCLAIMED_S, STOP_PATIENCE_S, Plan, Snapshot, Step
from diego_py.models.actual_lrp import ActualLRP, ActualLRPState, Presence
from diego_py.models.desired_lrp import UpdateStrategy
from tests.unit.bbs.convergence.snapshots import (
    CELLS,
    FRESH,
    NOW,
    STALE,
    carried_out,
    desired,
    plan,
    row,
    snapshot,
    snapshots,
)

CLAIMED, CRASHED = ActualLRPState.CLAIMED, ActualLRPState.CRASHED
RUNNING, UNCLAIMED = ActualLRPState.RUNNING, ActualLRPState.UNCLAIMED


def buckets(planned: Plan) -> dict[str, list[str]]:
    """The buckets that are not empty, with the reasons."""
    names = ("suspect", "lose", "recall", "settle", "drop", "move", "recreate", "retry", "place", "stop", "held")
    told = {name: [step.reason for step in getattr(planned, name)] for name in names}
    told["create"] = [f"{item.process_guid}/{item.index}" for item in planned.create]
    return {name: reasons for name, reasons in told.items() if reasons}


def steps_of(planned: Plan) -> list[Step]:
    beside = [*planned.suspect, *planned.recall, *planned.settle, *planned.drop]
    moved = [*planned.move, *planned.recreate]
    return [*beside, *moved, *planned.lose, *planned.retry, *planned.place, *planned.stop, *planned.held]


def wanted(cluster: Snapshot, actual: ActualLRP) -> bool:
    lrp = cluster.desired.get(actual.process_guid)
    return lrp is not None and actual.index < lrp.instances


@given(snapshots())
def test_never_more_is_started_than_is_desired(cluster: Snapshot) -> None:
    planned = plan(cluster)
    moved = (*planned.move, *planned.recreate)
    placed = (*planned.suspect, *moved, *planned.lose, *planned.retry, *planned.place)
    started = [(step.row.process_guid, step.row.index) for step in placed]
    started += [(item.process_guid, item.index) for item in planned.create]
    assert len(started) == len(set(started))
    for guid, index in started:
        assert index < cluster.desired[guid].instances
    for step in placed:
        assert step.row.presence is Presence.ORDINARY


@given(snapshots())
def test_a_row_is_in_one_bucket_at_most_and_has_a_reason_there(cluster: Snapshot) -> None:
    planned = plan(cluster)
    steps = steps_of(planned)
    keys = Counter((step.row.process_guid, step.row.index, step.row.presence) for step in steps)
    assert max(keys.values(), default=1) == 1
    assert all(step.reason for step in steps)


@given(snapshots())
def test_only_the_surplus_of_fresh_domains_is_stopped(cluster: Snapshot) -> None:
    planned = plan(cluster)
    surplus = [actual for actual in cluster.actuals if not wanted(cluster, actual)]
    assert [step.row for step in planned.stop] == [a for a in surplus if a.domain in cluster.fresh_domains]
    held = [step.row for step in planned.held]
    assert all(actual in held for actual in surplus if actual.domain not in cluster.fresh_domains)


@given(snapshots())
def test_only_what_was_on_dead_cells_is_lost_and_only_while_the_valve_is_open(cluster: Snapshot) -> None:
    planned = plan(cluster)
    dead = cluster.known_cells - cluster.live_cells
    silent = dead | cluster.late_cells
    closed = len(silent) > 1 and len(silent) > MASS_LOSS_FRACTION * len(cluster.known_cells)
    closed = closed or cluster.mass_lost
    if not cluster.may_lose_cells or closed:
        assert (planned.lose, planned.suspect) == ((), ())
        assert bool(planned.valve) is bool(dead)
    else:
        assert not planned.valve
    for step in (*planned.lose, *planned.suspect):
        assert step.row.cell_id not in cluster.live_cells
        assert step.row.state in (CLAIMED, RUNNING)


@given(snapshots())
def test_what_is_as_it_should_be_is_left_alone(cluster: Snapshot) -> None:
    planned = plan(cluster)
    touched = [step.row for step in steps_of(planned) if step.row.presence is Presence.ORDINARY]
    for actual in cluster.actuals:
        if wanted(cluster, actual) and actual.state in (CLAIMED, RUNNING) and actual.cell_id in cluster.live_cells:
            drains = actual.cell_id in cluster.draining_cells and actual.presence is Presence.ORDINARY
            assert (actual in touched) is drains


@given(snapshots())
def test_what_goes_as_planned_needs_no_further_plan(cluster: Snapshot) -> None:
    for _ in range(6):
        planned = plan(cluster)
        if planned.empty:
            break
        cluster = carried_out(planned, cluster)
    assert plan(cluster).empty
    assert plan(cluster) == plan(cluster)
    for lrp in cluster.desired.values():
        indices = [
            actual.index
            for actual in cluster.actuals
            if actual.process_guid == lrp.process_guid and actual.presence is Presence.ORDINARY
        ]
        assert set(range(lrp.instances)) <= set(indices)
        assert len(indices) == len(set(indices))


WAITING = [
    (row(CRASHED, crash_count=3, next_attempt_at=NOW), {"retry": ["crashed 3 time(s)"]}),
    (
        row(CRASHED, crash_count=3, next_attempt_at=NOW + timedelta(seconds=5)),
        {"held": ["crashed 3 time(s); next attempt at 2026-01-02T03:04:10+00:00"]},
    ),
    (row(CRASHED, crash_count=200), {"held": ["crashed 200 time(s); given up"]}),
    (row(UNCLAIMED, attempts=2, next_attempt_at=NOW), {"place": ["attempt 2 failed"]}),
    (
        row(UNCLAIMED, attempts=2, next_attempt_at=NOW + timedelta(seconds=5)),
        {"held": ["attempt 2 failed; next attempt at 2026-01-02T03:04:10+00:00"]},
    ),
    (row(UNCLAIMED, seconds_ago=STALE_UNCLAIMED_S - 1), {}),
    (row(UNCLAIMED, seconds_ago=STALE_UNCLAIMED_S), {"place": ["unclaimed for over 30 s"]}),
    (row(RUNNING), {}),
    (row(RUNNING, stop_asked_at=NOW), {"held": ["somebody asked for its end at 2026-01-02T03:04:05+00:00"]}),
    (
        row(CRASHED, stop_asked_at=NOW - timedelta(seconds=STOP_PATIENCE_S)),
        {"stop": ["somebody asked for its end at 2026-01-02T03:03:35+00:00"]},
    ),
    (row(CLAIMED, seconds_ago=9_999), {}),
    (row(RUNNING, presence=Presence.EVACUATING), {"recall": ["its replacement did not come to run"]}),
]


@pytest.mark.parametrize(("actual", "expected"), WAITING, ids=lambda value: "")
def test_a_row_waits_for_its_time(actual: ActualLRP, expected: dict[str, list[str]]) -> None:
    assert buckets(plan(snapshot([actual], [desired()]))) == expected


def test_a_round_comes_when_what_was_left_out_falls_due() -> None:
    later = NOW + timedelta(seconds=STALE_UNCLAIMED_S - 1)
    since = NOW - timedelta(seconds=1)
    assert plan(snapshot(offered_since=since)).wake_at == later
    assert plan(snapshot(offered_since=since, presence_ends_at=NOW)).wake_at == NOW
    assert plan(snapshot([row(UNCLAIMED, seconds_ago=1)], [desired()])).wake_at == later


OFFERED_LONG_AGO = row(UNCLAIMED, seconds_ago=STALE_UNCLAIMED_S)


def test_what_our_own_bbs_is_having_started_is_left_to_it() -> None:
    """However long that takes: offered anew, it would be refused to the cell that has begun with it."""
    placing = {("web", 0): CELLS[0]}
    told = buckets(plan(snapshot([OFFERED_LONG_AGO], [desired()], placing=placing)))
    assert told == {"held": [f"this BBS is having it started on {CELLS[0]}"]}
    assert buckets(plan(snapshot([OFFERED_LONG_AGO], [desired()], placing={("web", 1): CELLS[0]}))).keys() == {"place"}


@pytest.mark.parametrize("silent", [{"late_cells": frozenset(CELLS[:1])}, {"live_cells": frozenset(CELLS[1:])}])
def test_a_cell_that_reports_no_more_has_begun_nothing(silent: dict[str, Any]) -> None:
    told = buckets(plan(snapshot([OFFERED_LONG_AGO], [desired()], placing={("web", 0): CELLS[0]}, **silent)))
    assert told == {"place": ["unclaimed for over 30 s"]}


def test_what_runs_on_a_draining_cell_is_moved() -> None:
    rows = [row(RUNNING, index=0), row(CLAIMED, index=1), row(RUNNING, index=2, cell_id=CELLS[1])]
    planned = plan(snapshot(rows, [desired(instances=3)], draining_cells=frozenset(CELLS[:1])))
    assert buckets(planned) == {
        "move": ["cell cell-0 drains"],
        "held": ["cell cell-0 drains; it is moved when it runs"],
    }


def test_recreated_are_one_at_a_time_and_only_while_all_others_run() -> None:
    lrp, draining = desired(instances=2, strategy=UpdateStrategy.RECREATE), frozenset(CELLS[:1])
    both = [row(RUNNING, index=0), row(RUNNING, index=1)]
    waits = "cell cell-0 drains; RECREATE, and another instance does not run"
    told = buckets(plan(snapshot(both, [lrp], draining_cells=draining)))
    assert told == {"recreate": ["cell cell-0 drains"], "held": [waits]}
    one = [row(RUNNING, index=0), row(UNCLAIMED, index=1, next_attempt_at=NOW)]
    assert buckets(plan(snapshot(one, [lrp], draining_cells=draining))) == {
        "held": [waits],
        "place": ["attempt 0 failed"],
    }


@given(snapshots())
def test_nothing_stays_on_a_draining_cell_without_a_reason(cluster: Snapshot) -> None:
    told = [step.row for step in steps_of(plan(cluster))]
    ordinary = {(r.process_guid, r.index): r for r in cluster.actuals if r.presence is Presence.ORDINARY}
    for actual in cluster.actuals:
        if actual.cell_id not in cluster.draining_cells & cluster.live_cells or actual in told:
            continue
        replacement = ordinary[actual.process_guid, actual.index]
        assert actual.presence is Presence.EVACUATING
        assert replacement.state is RUNNING, "and it is stopped soon: its replacement runs"


def test_an_instance_of_a_dead_cell_is_lost() -> None:
    rows = [row(RUNNING, index=0), row(CLAIMED, index=1), row(RUNNING, index=2, cell_id=CELLS[1])]
    planned = plan(snapshot(rows, [desired(instances=3)], live_cells=frozenset(CELLS[1:])))
    gone = ["cell cell-0 has no presence"]
    assert buckets(planned) == {"suspect": gone, "lose": gone}, "one that runs may serve yet"


def test_one_cell_of_one_is_lost_and_two_of_three_are_not() -> None:
    alone = snapshot([row(RUNNING)], [desired()], known_cells=frozenset(CELLS[:1]), live_cells=frozenset())
    assert len(plan(alone).suspect) == 1
    most = snapshot([row(RUNNING)], [desired()], known_cells=frozenset(CELLS[:3]), live_cells=frozenset(CELLS[2:3]))
    assert buckets(plan(most)) == {"held": ["cell cell-0 has no presence; 2 of 3 cells vanished at once"]}
    first = {"known_cells": frozenset(CELLS[:2]), "live_cells": frozenset(CELLS[1:2])}
    assert len(plan(snapshot([row(RUNNING)], [desired()], **first)).suspect) == 1
    next_one = snapshot([row(RUNNING)], [desired()], **first, late_cells=frozenset(CELLS[1:2]))
    assert buckets(plan(next_one)) == {"held": ["cell cell-0 has no presence; 2 of 2 cells vanished at once"]}
    half = snapshot([row(RUNNING)], [desired()], known_cells=frozenset(CELLS[:4]), live_cells=frozenset(CELLS[2:4]))
    assert len(plan(half).suspect) == 1


def test_what_is_beside_a_suspect_waits_while_most_cells_are_missing() -> None:
    """Its cell's presence ran out before the others were late: when it is back it is recalled."""
    rows = [row(RUNNING, presence=Presence.SUSPECT), row(UNCLAIMED, attempts=1, next_attempt_at=NOW)]
    gone: dict[str, Any] = {"live_cells": frozenset(CELLS[1:2]), "known_cells": frozenset(CELLS[:2])}
    for missing in ({"late_cells": frozenset(CELLS[1:2])}, {"mass_lost": True}):
        assert [step.row for step in plan(snapshot(rows, [desired()], **gone, **missing)).held] == rows
    assert [step.row for step in plan(snapshot(rows, [desired()], **gone)).place] == rows[1:]
    back = plan(snapshot(rows, [desired()], known_cells=frozenset(CELLS[:2]), mass_lost=True))
    assert [step.row for step in back.recall] == rows[:1]


def test_one_that_is_closed_is_not_waited_for() -> None:
    """Its replacement ran and crashed before it was stopped: the crash is tried again, and it is stopped in time."""
    rows = [row(RUNNING, presence=Presence.EVACUATING, stop_asked_at=NOW), row(CRASHED, next_attempt_at=NOW)]
    planned = plan(snapshot(rows, [desired()]))
    assert [step.row for step in planned.retry] == rows[1:]
    assert [step.row for step in planned.held] == rows[:1]


def test_a_new_leader_waits_before_it_takes_a_cell_for_dead() -> None:
    cluster = snapshot([row(RUNNING)], [desired()], live_cells=frozenset(CELLS[1:]), may_lose_cells=False)
    told = "cell cell-0 has no presence; this leader has not watched for a whole presence TTL yet"
    assert buckets(plan(cluster)) == {"held": [told]}


def test_surplus_is_stopped_unless_its_domain_is_not_fresh() -> None:
    rows = [row(RUNNING, index=0), row(RUNNING, index=1), row(RUNNING, "gone", domain=STALE)]
    assert buckets(plan(snapshot(rows, [desired()]))) == {
        "stop": ["only 1 instance(s) desired"],
        "held": ["no desired LRP; domain stale is not fresh"],
    }
    assert buckets(plan(snapshot(rows, [desired()], fresh_domains=frozenset({FRESH, STALE})))) == {
        "stop": ["only 1 instance(s) desired", "no desired LRP"]
    }


def test_missing_indices_are_created_also_in_domains_that_are_not_fresh() -> None:
    cluster = snapshot([row(RUNNING, index=1)], [desired(instances=3, domain=STALE)])
    assert buckets(plan(cluster)) == {"create": ["web/0", "web/2"]}


def test_nothing_wanted_nothing_there_nothing_planned() -> None:
    assert plan(snapshot()) == Plan()
    assert plan(snapshot()).empty


DEAD = {"live_cells": frozenset(CELLS[1:])}
"""cell-0 has no presence."""
E, S = Presence.EVACUATING, Presence.SUSPECT
BESIDE: list[tuple[str, ActualLRP, ActualLRP | None, dict[str, object], dict[str, list[str]]]] = [
    ("the new one is young", row(RUNNING, presence=E), row(RUNNING, cell_id=CELLS[1]), {}, {}),
    (
        "whoever should have stopped it died",
        row(RUNNING, presence=E),
        row(RUNNING, cell_id=CELLS[1], seconds_ago=30),
        {},
        {"settle": ["its replacement runs on cell-1"]},
    ),
    (
        "the cell is back too late",
        row(RUNNING, presence=S),
        row(RUNNING, cell_id=CELLS[1]),
        {},
        {"settle": ["its replacement runs on cell-1"]},
    ),
    (
        "it does not come back",
        row(RUNNING, presence=S),
        row(RUNNING, cell_id=CELLS[1]),
        DEAD,
        {"drop": ["its replacement runs on cell-1"]},
    ),
    (
        "not ready yet",
        row(RUNNING, presence=E),
        row(RUNNING, cell_id=CELLS[1], seconds_ago=99, routable=False),
        {},
        {"held": ["it serves until its replacement runs"]},
    ),
    (
        "the cell is back in time",
        row(RUNNING, presence=S),
        row(UNCLAIMED, next_attempt_at=NOW),
        {},
        {
            "recall": ["cell cell-0 is back"],
            "held": ["instance i serves on cell-0 and is recalled"],
        },
    ),
    (
        "it is away, and its replacement is due",
        row(RUNNING, presence=S),
        row(UNCLAIMED, next_attempt_at=NOW),
        DEAD,
        {
            "place": ["attempt 0 failed"],
            "held": ["cell cell-0 has no presence; it may serve until its replacement runs"],
        },
    ),
    (
        "a replacement whose BBS died",
        row(RUNNING, presence=E),
        row(UNCLAIMED, seconds_ago=30),
        {},
        {
            "recall": ["its replacement did not come to run"],
            "held": ["instance i serves on cell-0 and is recalled"],
        },
    ),
    (
        "a replacement under way",
        row(RUNNING, presence=E),
        row(UNCLAIMED, seconds_ago=3),
        {},
        {"held": ["instance i serves on cell-0 and is recalled"]},
    ),
    (
        "an evacuation goes on without its BBS",
        row(RUNNING, presence=E),
        row(UNCLAIMED, seconds_ago=30),
        {"draining_cells": frozenset(CELLS[:1])},
        {
            "place": ["unclaimed for over 30 s"],
            "held": ["cell cell-0 drains; it serves until its replacement runs"],
        },
    ),
    (
        "an evacuating cell dies",
        row(RUNNING, presence=E),
        row(UNCLAIMED, next_attempt_at=NOW),
        DEAD,
        {"place": ["attempt 0 failed"], "drop": ["cell cell-0 has no presence"]},
    ),
    (
        "the replacement's cell dies, too",
        row(RUNNING, presence=S),
        row(RUNNING, cell_id=CELLS[1]),
        {"live_cells": frozenset(CELLS[2:])},
        {
            "lose": ["cell cell-1 has no presence"],
            "held": ["cell cell-0 has no presence; it may serve until its replacement runs"],
        },
    ),
]


@pytest.mark.parametrize(("old", "new", "other", "expected"), [case[1:] for case in BESIDE], ids=[c[0] for c in BESIDE])
def test_what_serves_beside_another_one(
    old: ActualLRP, new: ActualLRP | None, other: dict[str, Any], expected: dict[str, list[str]]
) -> None:
    rows = [old] if new is None else [old, new]
    assert buckets(plan(snapshot(rows, [desired()], **other))) == expected


@given(snapshots())
def test_no_index_is_left_without_whoever_serves_it(cluster: Snapshot) -> None:
    """What is stopped or dropped beside another row has a replacement that serves, or its cell is gone."""
    planned = plan(cluster)
    serving = {
        (actual.process_guid, actual.index)
        for actual in cluster.actuals
        if actual.presence is Presence.ORDINARY and actual.state is RUNNING and actual.cell_id in cluster.live_cells
    }
    for step in planned.settle:
        assert (step.row.process_guid, step.row.index) in serving
    for step in planned.drop:
        assert step.row.cell_id not in cluster.live_cells
    for step in planned.recall:
        assert step.row.cell_id in cluster.live_cells
        assert (step.row.process_guid, step.row.index) not in serving


@given(snapshots())
def test_the_leader_wakes_when_the_next_thing_falls_due(cluster: Snapshot) -> None:
    """At that time, and not before, there is something else to be done."""
    planned = plan(cluster)
    if planned.wake_at is None:
        return
    assert planned.wake_at > cluster.now
    waiting = [actual for actual in cluster.actuals if actual.presence is Presence.ORDINARY]
    told = {id(step.row) for step in planned.held if "next attempt at" in step.reason}
    for actual in waiting:
        if id(actual) in told:
            assert actual.next_attempt_at is not None
            assert planned.wake_at <= actual.next_attempt_at


def test_the_leader_wakes_when_the_first_presence_runs_out() -> None:
    ends_at = NOW + timedelta(seconds=3)
    assert plan(snapshot([row(RUNNING)], [desired()], presence_ends_at=ends_at)).wake_at == ends_at
