"""What has to be true whatever failed: at once, and as soon as faults are over and there was time to repair."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

from attrs import frozen

from tests.chain.awaited import until
from tests.chaos import audit
from tests.chaos.fleet import Fleet
from tests.chaos.load import WITNESS


@frozen
class State:
    """The rows beside what the cells' machines really have."""

    desired: Mapping[str, int]
    rows: tuple[Mapping[str, Any], ...]
    tasks: tuple[Mapping[str, Any], ...]
    """Those that are not over."""
    containers: Mapping[str, set[str]]


async def look(fleet: Fleet) -> State:
    """What is there now."""
    async with fleet.database() as connection:
        desired = await connection.fetch("SELECT process_guid, instances FROM desired_lrps")
        rows = await connection.fetch(
            "SELECT process_guid, index, presence, state, instance_guid, cell_id, placement_error, crash_reason"
            " FROM actual_lrps ORDER BY process_guid, index, presence"
        )
        tasks = await connection.fetch(
            "SELECT task_guid, state, cell_id, rejection_reason FROM tasks WHERE state IN ('PENDING', 'RUNNING')"
        )
    return State(
        {record["process_guid"]: record["instances"] for record in desired},
        tuple(dict(row) for row in rows),
        tuple(dict(row) for row in tasks),
        fleet.containers_on_host(),
    )


def unquiet(state: State, expected: Mapping[str, set[int]]) -> list[str]:
    """What is not as it should be once all is repaired: every instance RUNNING exactly once, nothing else. Pure."""
    wrong: list[str] = []
    for guid, allowed in expected.items():
        desired = state.desired.get(guid, 0)
        if desired not in allowed:
            wrong.append(f"{guid}: {desired} instances are desired, acknowledged were {sorted(allowed)}")
    wanted = {(guid, index) for guid, number in state.desired.items() for index in range(number)}
    there = {(row["process_guid"], row["index"]) for row in state.rows}
    wrong += [f"{guid}/{index} has no row" for guid, index in sorted(wanted - there)]
    wrong += [f"{guid}/{index} has a row and is not desired" for guid, index in sorted(there - wanted)]
    for row in state.rows:
        if (row["state"], row["presence"]) != ("RUNNING", "ORDINARY"):
            why = row["placement_error"] or row["crash_reason"]
            wrong.append(f"{row['process_guid']}/{row['index']} is {row['state']} ({row['presence']}): {why}")
    wrong += [f"task {row['task_guid']} is {row['state']}: {row['rejection_reason']}" for row in state.tasks]
    wrong += _containers(state)
    return wrong


def _containers(state: State) -> list[str]:
    rows = {(row["cell_id"], row["instance_guid"]) for row in state.rows if row["state"] == "RUNNING"}
    real = {(cell_id, handle) for cell_id, handles in state.containers.items() for handle in handles}
    missing = [f"{cell_id} does not have container {handle} of a row" for cell_id, handle in sorted(rows - real)]
    return missing + [f"{cell_id} has container {handle} of no row" for cell_id, handle in sorted(real - rows)]


async def quiet(fleet: Fleet, expected: Mapping[str, set[int]], limit_s: float) -> None:
    """Return as soon as nothing is left to repair. Fails with what is, when that takes longer than `limit_s`."""
    wrong: list[str] = []

    async def is_quiet() -> bool:
        nonlocal wrong
        wrong = unquiet(await look(fleet), expected)
        return not wrong

    try:
        await until("all is repaired", is_quiet, limit_s)
    except AssertionError:
        raise AssertionError(f"not repaired within {limit_s:g} s:\n" + "\n".join(wrong)) from None


def run_twice(fleet: Fleet, name: str) -> list[str]:
    """Tasks of one load whose process was there more than once."""
    seen = fleet.witnesses(WITNESS).items()
    return [f"task {guid} was run {count} times" for guid, count in seen if count > 1 and guid.startswith(f"{name}-")]


def never_run(fleet: Fleet, begun: Set[str]) -> list[str]:
    """Tasks that were acknowledged and never there."""
    witnesses = fleet.witnesses(WITNESS)
    return [f"task {guid} was acknowledged and never run" for guid in sorted(begun - set(witnesses))]


async def violated(fleet: Fleet) -> list[str]:
    """What should never have happened, and did."""
    async with fleet.database() as connection:
        wrong = audit.violations(await audit.changes(connection))
    for name, line in fleet.log_lines():
        if "defect" in str(line.get("event", "")):
            wrong.append(f"{name} met a defect of its own: {line}")
    return wrong
