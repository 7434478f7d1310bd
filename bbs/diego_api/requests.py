"""What requests of Diego's wire have in common: names that must be there, and fields that may be left out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, TypeVar

import attrs

from bbs.diego_api.errors import invalid
from diego_py.models.desired_lrp import DesiredLRPDefinition
from diego_py.models.identifiers import ProcessGuid, TaskGuid, is_guid
from diego_py.models.task import TaskDefinition
from diego_py.models.workload import MetricTagValue

D = TypeVar("D", DesiredLRPDefinition, TaskDefinition)

INDEX_MAX: Final = 2**31 - 1


def text_of(text: str, field: str) -> str:
    """Any text that can be asked for. Postgres stores no NUL."""
    if "\0" in text:
        raise invalid(field)
    return text


def guid_of(request: Any) -> ProcessGuid:
    """The process_guid that a request is about."""
    if not is_guid(request.process_guid):
        raise invalid("process_guid")
    return ProcessGuid(request.process_guid)


def task_guid_of(request: Any) -> TaskGuid:
    """The task_guid that a request is about."""
    if not is_guid(request.task_guid):
        raise invalid("task_guid")
    return TaskGuid(request.task_guid)


def guids_of(guids: Iterable[str]) -> list[str]:
    """Names, or beginnings of names; those that nothing can have are left out by the search itself."""
    return [text_of(guid, "process_guids") for guid in guids]


def index_of(index: int) -> int:
    """The index of an instance."""
    if not 0 <= index <= INDEX_MAX:
        raise invalid("index")
    return index


def accepted_fields(definition: D, ignored: frozenset[str]) -> D:
    """The definition without the fields that this installation ignores, and with its old names in the new place."""
    attributes = attrs.fields_dict(type(definition))
    dropped: dict[str, Any] = {name: attributes[name].default for name in ignored if name in attributes}
    if definition.metrics_guid and "metrics_guid" not in dropped:
        source = MetricTagValue(static=definition.metrics_guid)
        if definition.metric_tags.get("source_id", source) == source:
            tags = {**definition.metric_tags, "source_id": source}
            dropped |= {"metrics_guid": "", "metric_tags": tags}
    return attrs.evolve(definition, **dropped) if dropped else definition
