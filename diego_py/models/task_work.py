"""What BBS and cells say to each other about Tasks: work to run once, the claim before it, and how it ended."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated

import attrs

from diego_py.models.fields import (
    CellIdField,
    Count,
    DomainField,
    InstanceGuidField,
    JsonValue,
    Limits,
    Name,
    TaskGuidField,
)
from diego_py.models.task import FAILURE_REASON_BYTES_MAX, RESULT_BYTES_MAX, TaskDefinition

SEQUENCE_MAX = 2**53


class CellTaskState(StrEnum):
    """Where a Task is on its cell. Diego: executor/resources.go."""

    RESERVED = "RESERVED"
    """Its resources are taken; nothing runs."""
    CREATED = "CREATED"
    """Claimed; its container exists or is made."""
    RUNNING = "RUNNING"
    """Its process was started."""
    STOPPING = "STOPPING"
    """It ended, or was asked to; its container is removed."""
    COMPLETED = "COMPLETED"
    """Its container is gone; its end is still to be told."""


@attrs.frozen(kw_only=True)
class TaskWork:
    """Run this Task. The BBS makes the instance_guid anew for each attempt."""

    task_guid: TaskGuidField
    domain: DomainField
    instance_guid: InstanceGuidField
    definition: TaskDefinition
    epoch: Count = 0
    """Of the convergence leader that sends it; 0 from a client's request."""


@attrs.frozen(kw_only=True)
class TaskClaim:
    """The cell asks for the row of a Task that it was sent, before any process of the user runs."""

    instance_guid: InstanceGuidField
    cell_id: CellIdField
    boot_id: Name
    claim_id: Name
    """Made for this one start: the same claim may be repeated, at another BBS too, and a second start finds itself
    refused, though it has the same instance_guid."""
    sequence: Annotated[int, Limits(minimum=0, maximum=SEQUENCE_MAX)]
    """Of the cell's books. A report of this boot with a higher one knows the Task, or what became of it."""


@attrs.frozen(kw_only=True)
class TaskReport:
    """One Task that the cell has, or whose end it still has to tell."""

    task_guid: TaskGuidField
    domain: DomainField
    instance_guid: InstanceGuidField
    state: CellTaskState
    memory_mb: Count = 0
    disk_mb: Count = 0


@attrs.frozen(kw_only=True)
class TaskEnd:
    """How one attempt at a Task ended. Repeated until a BBS acknowledged it."""

    task_guid: TaskGuidField
    domain: DomainField
    instance_guid: InstanceGuidField
    cell_id: CellIdField
    claim_id: Name
    """Of the start that ended."""
    started: bool
    """Whether a process of it may have run; one that never did may be tried elsewhere."""
    failed: bool
    failure_reason: Annotated[str, Limits(bytes_max=FAILURE_REASON_BYTES_MAX)] | None = None
    failure: Mapping[str, JsonValue] | None = None
    """The failure document that the cell made."""
    result: Annotated[str, Limits(bytes_max=RESULT_BYTES_MAX)] = ""


@attrs.frozen(kw_only=True)
class TaskEndAcknowledged:
    """The end is stored, or nobody waits for it any more."""

    task_guid: TaskGuidField
    instance_guid: InstanceGuidField
