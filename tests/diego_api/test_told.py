"""Instances and tasks through their messages: what a client reads is what is stored."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bbs.diego_api import codec, tasks
from bbs.diego_api.descriptors import MESSAGES
from bbs.diego_api.instances import Besides, groups, instance
from bbs.labels import Labels
from diego_py import wire
from diego_py.models.actual_lrp import ActualLRP, ActualLRPState, Presence
from diego_py.models.task import Task, TaskDefinition, TaskState
from diego_py.models.workload import MetricTagValue
from tests import strategies
from tests.diego_api.protobuf import SCHEMA, decode, encode
from tests.diego_api.test_codec import through_json

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LATEST = datetime(2262, 1, 1, tzinfo=UTC)
"""Nanoseconds of later times are more than 64 bits hold."""
UNSEEN: dict[str, Any] = {"failure": None, "attempts": 0, "next_attempt_at": None, "stop_asked_at": None, "revision": 0}
"""What of an instance has no place in its message."""


def told_time(moment: datetime | None) -> datetime | None:
    return moment and min(moment, LATEST)


def read_time(nanoseconds: int) -> datetime | None:
    return EPOCH + timedelta(microseconds=nanoseconds // 1000) if nanoseconds else None


def name_of(message: str, enumeration: str, number: int) -> str:
    return next(name for name, known in SCHEMA[message].enums[enumeration].items() if known == number)


def read_instance(told: dict[str, Any]) -> ActualLRP:
    """The instance that a client knows from its message, as the native API would read it."""
    key, names, net_info = (told[f"actual_lrp_{part}"] for part in ("key", "instance_key", "net_info"))
    reasons = {name: told[name] or None for name in ("crash_reason", "placement_error")}
    same = {name: told[name] for name in ("state", "crash_count", "routable", "availability_zone")}
    if told["state"] == "RUNNING":
        preferred = name_of("ActualLRPNetInfo", "PreferredAddress", net_info["preferred_address"])
        ports = [{name: port[name] for name in ("container_port", "host_port")} for port in net_info["ports"]]
        net_info = {**net_info, "preferred_address": preferred, "ports": ports}
    read = {
        **key,
        **{name: value or None for name, value in names.items()},
        **reasons,
        **same,
        "net_info": net_info if told["state"] == "RUNNING" else None,
        "presence": name_of("ActualLRP", "Presence", told["presence"]),
        "since": wire.to_builtins(EPOCH + timedelta(microseconds=told["since"] // 1000)),
        "modification_tag": told["modification_tag"],
    }
    return wire.convert(ActualLRP, read)


def read_task(told: dict[str, Any]) -> Task:
    """The task that a client knows from its message."""
    body = encode("TaskDefinition", told["task_definition"])
    times = {name: read_time(told[name]) for name in ("created_at", "updated_at", "first_completed_at")}
    same = {name: told[name] for name in ("task_guid", "domain", "result", "failed", "rejection_count")}
    words = {name: told[name] or None for name in ("cell_id", "failure_reason", "rejection_reason")}
    state = TaskState[name_of("Task", "State", told["state"]).upper()]
    definition = codec.model(TaskDefinition, codec.parse("TaskDefinition", body))
    return Task(definition=definition, state=state, **times, **same, **words)


@QUICK
@given(strategies.actual_lrps())
def test_an_instance_is_the_same_after_the_way_through_its_message(row: ActualLRP) -> None:
    row = evolve(row, **UNSEEN, since=min(row.since, LATEST), crash_reason=row.crash_reason or None)
    row = evolve(row, placement_error=row.placement_error or None)
    read = read_instance(decode("ActualLRP", MESSAGES["ActualLRP"](**instance(row, Besides())).SerializeToString()))
    assert read == row


@QUICK
@given(strategies.actual_lrps(), st.booleans())
def test_labels_are_told_while_it_runs_and_those_of_the_rep_count(row: ActualLRP, told_by_rep: bool) -> None:
    of_lrp = Labels(internal_routes=[{"hostname": "lrp"}], metric_tags={"a": MetricTagValue(static="lrp")})
    of_rep = Labels(internal_routes=[{"hostname": "rep"}], metric_tags={"a": MetricTagValue(static="rep")})
    row = evolve(row, since=EPOCH)
    told = {str(row.instance_guid): of_rep} if told_by_rep else {}
    besides = Besides(of_lrps={row.process_guid: of_lrp}, told=told)
    read = decode("ActualLRP", MESSAGES["ActualLRP"](**instance(row, besides)).SerializeToString())
    word = "rep" if told_by_rep else "lrp"
    running = row.state is ActualLRPState.RUNNING
    assert read["metric_tags"] == ({"a": word} if running else {})
    assert read["actual_lrp_internal_routes"] == ([{"hostname": word}] if running else [])


@QUICK
@given(st.lists(strategies.actual_lrps(), max_size=4, unique_by=lambda row: row.presence))
def test_of_an_index_each_row_but_the_suspect_or_the_ordinary_one_is_in_its_group(rows: list[ActualLRP]) -> None:
    rows = [evolve(row, process_guid=rows[0].process_guid, index=0, since=EPOCH) for row in rows]
    by_presence = {row.presence: row for row in rows}
    found = groups(rows, Besides())
    assert len(found) == (1 if rows else 0)
    for group in found:
        evacuating = by_presence.get(Presence.EVACUATING)
        assert ("evacuating" in group) == (evacuating is not None)
        ordinary, suspect = by_presence.get(Presence.ORDINARY), by_presence.get(Presence.SUSPECT)
        runs = ordinary is not None and ordinary.state is ActualLRPState.RUNNING
        shown = ordinary if suspect is None or runs else suspect
        assert group.get("instance") == (None if shown is None else instance(shown, Besides()))


@QUICK
@given(strategies.tasks, st.sampled_from(TaskState))
def test_a_task_is_the_same_after_the_way_through_its_message(task: Task, state: TaskState) -> None:
    times = {name: told_time(getattr(task, name)) for name in ("created_at", "updated_at", "first_completed_at")}
    reasons = {name: getattr(task, name) or None for name in ("failure_reason", "rejection_reason")}
    tags = {name: tag for name, tag in task.definition.metric_tags.items() if tag.static != ""}
    definition = through_json(evolve(task.definition, metric_tags=tags))
    times = {name: None if moment == EPOCH else moment for name, moment in times.items()}
    task = Task(
        task_guid=task.task_guid,
        domain=task.domain,
        definition=definition,
        state=state,
        **times,
        **reasons,
        cell_id=task.cell_id,
        result=task.result,
        failed=task.failed,
        rejection_count=task.rejection_count,
    )
    read = read_task(decode("Task", MESSAGES["Task"](**tasks.told(task)).SerializeToString()))
    assert evolve(read, definition=through_json(read.definition)) == task
