"""Convergence never starts too much, never stops what it does not own, and comes to an end."""

from collections import Counter
from datetime import timedelta

import pytest
from hypothesis import given

from bbs.convergence.plan import MASS_LOSS_FRACTION, STALE_UNCLAIMED_S, STOP_PATIENCE_S, Plan, Snapshot, plan
from diego_py.models.actual_lrp import ActualLRP, ActualLRPState, Presence
from tests.unit.bbs.convergence.snapshots import (
    CELLS,
    FRESH,
    NOW,
    STALE,
    carried_out,
    desired,
    row,
    snapshot,
    snapshots,
)

CLAIMED, CRASHED = ActualLRPState.CLAIMED, ActualLRPState.CRASHED
RUNNING, UNCLAIMED = ActualLRPState.RUNNING, ActualLRPState.UNCLAIMED


def buckets(planned: Plan) -> dict[str, list[str]]:
    """The buckets that are not empty, with the reasons."""
    names = ("lose", "retry", "place", "stop", "held")
    told = {name: [step.reason for step in getattr(planned, name)] for name in names}
    told["create"] = [f"{item.desired.definition.process_guid}/{item.index}" for item in planned.create]
    return {name: reasons for name, reasons in told.items() if reasons}


def wanted(cluster: Snapshot, actual: ActualLRP) -> bool:
    lrp = cluster.desired.get(actual.process_guid)
    return lrp is not None and actual.index < lrp.definition.instances


@given(snapshots())
def test_never_more_is_started_than_is_desired(cluster: Snapshot) -> None:
    planned = plan(cluster)
    started = [(step.row.process_guid, step.row.index) for step in (*planned.lose, *planned.retry, *planned.place)]
    started += [(item.desired.definition.process_guid, item.index) for item in planned.create]
    assert len(started) == len(set(started))
    for guid, index in started:
        assert index < cluster.desired[guid].definition.instances
    for step in (*planned.lose, *planned.retry, *planned.place):
        assert step.row.presence is Presence.ORDINARY


@given(snapshots())
def test_a_row_is_in_one_bucket_at_most_and_has_a_reason_there(cluster: Snapshot) -> None:
    planned = plan(cluster)
    steps = [*planned.lose, *planned.retry, *planned.place, *planned.stop, *planned.held]
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
    closed = len(dead) > 1 and len(dead) > MASS_LOSS_FRACTION * len(cluster.known_cells)
    if not cluster.may_lose_cells or closed:
        assert planned.lose == ()
        assert bool(planned.valve) is bool(dead)
    else:
        assert not planned.valve
    for step in planned.lose:
        assert step.row.cell_id not in cluster.live_cells
        assert step.row.state in (CLAIMED, RUNNING)


@given(snapshots())
def test_what_is_as_it_should_be_is_left_alone(cluster: Snapshot) -> None:
    planned = plan(cluster)
    touched = [step.row for step in (*planned.lose, *planned.retry, *planned.place, *planned.stop, *planned.held)]
    for actual in cluster.actuals:
        if wanted(cluster, actual) and actual.state in (CLAIMED, RUNNING) and actual.cell_id in cluster.live_cells:
            assert actual not in touched


@given(snapshots())
def test_what_goes_as_planned_needs_no_further_plan(cluster: Snapshot) -> None:
    for _ in range(3):
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
            if actual.process_guid == lrp.definition.process_guid and actual.presence is Presence.ORDINARY
        ]
        assert set(range(lrp.definition.instances)) <= set(indices)
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
    (row(RUNNING, presence=Presence.EVACUATING), {"create": ["web/0"]}),
]


@pytest.mark.parametrize(("actual", "expected"), WAITING, ids=lambda value: "")
def test_a_row_waits_for_its_time(actual: ActualLRP, expected: dict[str, list[str]]) -> None:
    assert buckets(plan(snapshot([actual], [desired()]))) == expected


def test_an_instance_of_a_dead_cell_is_lost() -> None:
    rows = [row(RUNNING, index=0), row(CLAIMED, index=1), row(RUNNING, index=2, cell_id=CELLS[1])]
    planned = plan(snapshot(rows, [desired(instances=3)], live_cells=frozenset(CELLS[1:])))
    assert buckets(planned) == {"lose": ["cell cell-0 has no presence"] * 2}


def test_one_cell_of_one_is_lost_and_two_of_three_are_not() -> None:
    alone = snapshot([row(RUNNING)], [desired()], known_cells=frozenset(CELLS[:1]), live_cells=frozenset())
    assert len(plan(alone).lose) == 1
    most = snapshot([row(RUNNING)], [desired()], known_cells=frozenset(CELLS[:3]), live_cells=frozenset(CELLS[2:3]))
    assert buckets(plan(most)) == {"held": ["cell cell-0 has no presence; 2 of 3 cells vanished at once"]}
    half = snapshot([row(RUNNING)], [desired()], known_cells=frozenset(CELLS[:4]), live_cells=frozenset(CELLS[2:4]))
    assert len(plan(half).lose) == 1


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
