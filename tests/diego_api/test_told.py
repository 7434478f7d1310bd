"""Instances and tasks through their messages: what a client reads is what is stored."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import msgspec
from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bbs.diego_api import codec, tasks, words
from bbs.diego_api.descriptors import MESSAGES
from bbs.diego_api.instances import groups, instance
from bbs.labels import Labels
from bbs.store.told_instances import ToldInstance
from diego_py import wire
from diego_py.models.actual_lrp import ActualLRP, ActualLRPState, Presence
from diego_py.models.task import Task, TaskDefinition, TaskState
from diego_py.models.workload import DynamicMetricTag, MetricTagValue
from tests import strategies
from tests.diego_api.protobuf import SCHEMA, decode, encode
from tests.diego_api.test_codec import through_json
from tests.simulation.memory_store.told_instances import told

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


def message(row: ToldInstance) -> bytes:
    encoded: bytes = MESSAGES["ActualLRP"](**instance(row)).SerializeToString()
    return encoded


@QUICK
@given(strategies.actual_lrps())
def test_an_instance_is_the_same_after_the_way_through_its_message(row: ActualLRP) -> None:
    row = evolve(row, **UNSEEN, since=min(row.since, LATEST), crash_reason=row.crash_reason or None)
    row = evolve(row, placement_error=row.placement_error or None)
    read = read_instance(decode("ActualLRP", message(told(row))))
    assert read == row


DYNAMIC = [MetricTagValue(dynamic=each) for each in DynamicMetricTag]
LABELS = st.none() | st.builds(
    Labels,
    internal_routes=st.none() | strategies.json_values | st.just([{"hostname": "a"}, {"hostname": "b"}, {"other": 1}]),
    metric_tags=st.dictionaries(
        st.sampled_from("abc"),
        st.sampled_from([MetricTagValue(static="s"), MetricTagValue(static=""), *DYNAMIC]),
    ),
)
DOCUMENTS = st.none() | st.sampled_from(
    [
        {"code": "app.exited", "evidence": {"exit_status": 7}},
        {"code": "auction.no_cells"},
        {"code": "app.never_healthy", "evidence": {"check": {"answer": "no", "elapsed_ms": 1000}}},
        {},
    ]
)


@settings(QUICK, max_examples=100)
@given(strategies.actual_lrps(), LABELS, st.none() | st.lists(st.sampled_from("abc"), max_size=3), DOCUMENTS)
def test_an_instance_is_told_as_its_model_would_be(
    row: ActualLRP, labels: Labels | None, tags: list[str] | None, document: dict[str, Any] | None
) -> None:
    """Byte for byte."""
    row = evolve(row, since=min(row.since, LATEST), failure=document)
    stored = told(row, labels, tags, None if document is None else msgspec.json.encode(document))
    expected = MESSAGES["ActualLRP"](**told_by_model(row, labels, tags or ()))
    ours = MESSAGES["ActualLRP"](**instance(stored))
    assert ours.SerializeToString(deterministic=True) == expected.SerializeToString(deterministic=True)


def told_by_model(row: ActualLRP, labels: Labels | None, tags: Sequence[str]) -> dict[str, Any]:
    """What a message of an instance is made from, said of its model."""
    placed = row.state in (ActualLRPState.CLAIMED, ActualLRPState.RUNNING)
    told: dict[str, Any] = {
        "key": attrs.asdict(row.key),
        "instance_key": {"instance_guid": row.instance_guid, "cell_id": row.cell_id} if placed else {},
        "net_info": {} if row.net_info is None else wire.to_builtins(row.net_info),
        "crash_count": row.crash_count,
        "crash_reason": words.crash_reason(row.crash_reason, row.failure),
        "state": row.state.value,
        "placement_error": words.placement_error(row.placement_error, row.failure, tags),
        "since": codec.nanoseconds(row.since),
        "modification_tag": {"epoch": row.modification_tag.epoch, "index": row.modification_tag.index},
        "presence": list(Presence).index(row.presence),
        "routable": row.routable,
        "availability_zone": row.availability_zone,
    }
    if labels is not None and row.state is ActualLRPState.RUNNING:
        told["internal_routes"] = [{"hostname": name} for name in labels.hostnames()]
        told["metric_tags"] = labels.tags(row.index, str(row.instance_guid))
    return told


@QUICK
@given(st.lists(strategies.actual_lrps(), max_size=4, unique_by=lambda row: row.presence))
def test_of_an_index_each_row_but_the_suspect_or_the_ordinary_one_is_in_its_group(rows: list[ActualLRP]) -> None:
    rows = [evolve(row, process_guid=rows[0].process_guid, index=0, since=EPOCH) for row in rows]
    by_presence = {row.presence: row for row in rows}
    encode = codec.encoder("ActualLRPsResponse", "actual_lrps")
    found = groups([(told(row).mark, encode(instance(told(row)))) for row in rows])
    answer = decode("ActualLRPGroupsResponse", codec.repeated("ActualLRPGroupsResponse", "actual_lrp_groups", found))
    assert len(answer["actual_lrp_groups"]) == (1 if rows else 0)
    for group in answer["actual_lrp_groups"]:
        ordinary, suspect = by_presence.get(Presence.ORDINARY), by_presence.get(Presence.SUSPECT)
        runs = ordinary is not None and ordinary.state is ActualLRPState.RUNNING
        shown = {
            "evacuating": by_presence.get(Presence.EVACUATING),
            "instance": ordinary if suspect is None or runs else suspect,
        }
        assert group == {name: row and decode("ActualLRP", message(told(row))) for name, row in shown.items()}


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
