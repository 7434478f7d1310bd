"""What BBS and cells say to each other: work to run, claims, and one report that is heartbeat and bulk sync at once."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated

import attrs

from diego_py.models.actual_lrp import NetInfo
from diego_py.models.cell import CellPresence
from diego_py.models.desired_lrp import DesiredLRPDefinition
from diego_py.models.egress import EGRESS_RULES_MAX, SecurityGroupRule
from diego_py.models.fields import (
    INT32_MAX,
    CellIdField,
    Count,
    DomainField,
    InstanceGuidField,
    JsonValue,
    Limits,
    Name,
    ProcessGuidField,
)
from diego_py.models.task_work import TaskReport

INSTANCES_PER_CELL_MAX = 10_000
WORKS_MAX = 256
"""Instances in one request, to a cell or of one."""
Digest = Annotated[str, Limits(bytes_max=64)]


class InstanceState(StrEnum):
    """Where an instance is on its cell. Diego: executor/resources.go."""

    RESERVED = "RESERVED"
    """Its resources are taken; nothing runs."""
    CREATED = "CREATED"
    """Claimed; its container exists or its process starts; not yet healthy."""
    RUNNING = "RUNNING"
    """Healthy once, or without a check."""
    STOPPING = "STOPPING"
    """Asked to end."""


@attrs.frozen(kw_only=True)
class AvailableResources:
    """What a cell has left: its capacity less every reservation. Megabytes, and a number of containers."""

    memory_mb: Annotated[int, Limits(minimum=-INT32_MAX, maximum=INT32_MAX)]
    disk_mb: Annotated[int, Limits(minimum=-INT32_MAX, maximum=INT32_MAX)]
    containers: Annotated[int, Limits(minimum=-INT32_MAX, maximum=INT32_MAX)]


@attrs.frozen(kw_only=True)
class Work:
    """Run this instance. The BBS makes the instance_guid, so that a repeated request finds the same container."""

    process_guid: ProcessGuidField
    index: Count
    domain: DomainField
    instance_guid: InstanceGuidField
    definition: DesiredLRPDefinition
    epoch: Count = 0
    """Of the convergence leader that sends it; 0 from a client's request."""


@attrs.frozen(kw_only=True)
class InstanceWork:
    """One of several instances to run, and the request that it is run for."""

    process_guid: ProcessGuidField
    index: Count
    domain: DomainField
    instance_guid: InstanceGuidField
    definition: Count
    """Which of the definitions is its own."""
    request_id: Name
    trace_id: Name
    budget_ms: Count
    """How long this one may take."""
    epoch: Count = 0


@attrs.frozen(kw_only=True)
class Works:
    """Run these instances; each is answered in a line of its own, as soon as it is decided."""

    definitions: Annotated[tuple[JsonValue, ...], Limits(items_max=WORKS_MAX)]
    """Each a DesiredLRPDefinition, once for all of its instances. A bad one fails its own instances only."""
    instances: Annotated[tuple[InstanceWork, ...], Limits(items_max=WORKS_MAX)]


@attrs.frozen(kw_only=True)
class Started:
    """The instance is RUNNING."""

    instance_guid: InstanceGuidField
    net_info: NetInfo
    available: AvailableResources
    sequence: Count
    """Of the cell's books when it answered, as in CellReport."""
    routable: bool = True
    """False while its readiness checks have not passed."""


@attrs.frozen(kw_only=True)
class TaskStarted:
    """A process of the Task was started. It may have ended since."""

    instance_guid: InstanceGuidField
    available: AvailableResources
    sequence: Count
    """Of the cell's books when it answered, as in CellReport."""


@attrs.frozen(kw_only=True)
class Stopped:
    """The instance's container is gone from the cell."""

    instance_guid: InstanceGuidField
    existed: bool


@attrs.frozen(kw_only=True)
class EgressChange:
    """What an instance may reach from now on, in place of what it might before."""

    egress_rules: Annotated[tuple[SecurityGroupRule, ...], Limits(items_max=EGRESS_RULES_MAX)] = ()
    version: Count = 0
    """Of the LRP that has these rules; a change that comes late never undoes one of a higher version."""


@attrs.frozen(kw_only=True)
class ClaimGranted:
    """The row is the cell's. No process of the user begins before what has changed since the work was sent holds."""

    egress: EgressChange | None = None
    """What the instance may reach by now; None: what it was sent."""


@attrs.frozen(kw_only=True)
class InstanceClaim:
    """The row of one instance that the cell was sent, and the request that it was sent for."""

    process_guid: ProcessGuidField
    index: Count
    instance_guid: InstanceGuidField
    request_id: Name
    trace_id: Name


@attrs.frozen(kw_only=True)
class Claims:
    """The cell asks for the rows of instances that it was sent, before any process of their users runs."""

    cell_id: CellIdField
    boot_id: Name
    instances: Annotated[tuple[InstanceClaim, ...], Limits(items_max=WORKS_MAX)]


@attrs.frozen(kw_only=True)
class ClaimResult:
    """What became of one claim: one of the two."""

    granted: ClaimGranted | None = None
    failure: Mapping[str, JsonValue] | None = None
    """The failure document of the BBS."""


@attrs.frozen(kw_only=True)
class ClaimResults:
    """What became of each claim, in the order of the claims."""

    results: Annotated[tuple[ClaimResult, ...], Limits(items_max=WORKS_MAX)]


@attrs.frozen(kw_only=True)
class Drain:
    """Whether the cell shall take no new work."""

    draining: bool


@attrs.frozen(kw_only=True)
class Evacuate:
    """How long moving the instances of a cell elsewhere may take, in seconds."""

    timeout_s: Annotated[int, Limits(minimum=1, maximum=3_000)] = 600


@attrs.frozen(kw_only=True)
class EvacuatedCell:
    """A cell that has nothing any more, and takes no work."""

    cell_id: CellIdField
    moved: Count
    """Instances that run elsewhere now."""


@attrs.frozen(kw_only=True)
class Draining:
    """What the cell does now, and how many instances and tasks it still has."""

    draining: bool
    instances: Count
    tasks: Count = 0


@attrs.frozen(kw_only=True)
class InstanceReport:
    """One instance that the cell has."""

    process_guid: ProcessGuidField
    index: Count
    domain: DomainField
    instance_guid: InstanceGuidField
    state: InstanceState
    memory_mb: Count = 0
    disk_mb: Count = 0
    net_info: NetInfo | None = None
    routable: bool = True
    """False while it is not RUNNING, or its readiness checks do not pass."""


@attrs.frozen(kw_only=True)
class EndedReport:
    """One instance that ran and ended on its own. Repeated until a BBS acknowledged it."""

    process_guid: ProcessGuidField
    index: Count
    domain: DomainField
    instance_guid: InstanceGuidField
    failure: Mapping[str, JsonValue]
    """The failure document that the cell made."""


@attrs.frozen(kw_only=True)
class CellReport:
    """Presence, resources, all instances and all Tasks of a cell: heartbeat and bulk sync in one call."""

    presence: CellPresence
    sequence: Annotated[int, Limits(minimum=0, maximum=2**53)]
    """Rises with every report of one boot, so that an older one never overwrites a newer one."""
    digest: Digest = ""
    """Of all else in the report. As long as that stays, heartbeats may say so by this. Empty: there will be none."""
    available: AvailableResources
    instances: Annotated[tuple[InstanceReport, ...], Limits(items_max=INSTANCES_PER_CELL_MAX)] = ()
    ended: Annotated[tuple[EndedReport, ...], Limits(items_max=INSTANCES_PER_CELL_MAX)] = ()
    tasks: Annotated[tuple[TaskReport, ...], Limits(items_max=2 * INSTANCES_PER_CELL_MAX)] = ()


@attrs.frozen(kw_only=True)
class ReportAnswer:
    """What the cell must do now."""

    stop: tuple[InstanceGuidField, ...] = ()
    """Instances, and attempts at Tasks, whose rows are gone or belong to others."""
    acknowledged: tuple[InstanceGuidField, ...] = ()
    """Ended instances whose failure is stored."""
    presence_ttl_ms: Count = 15_000
    """How long the presence lasts without another report, by the database's clock."""
    pause_ms: Count = 0
    """As long as nothing changes the next word may come so late, and shall: there are so many cells."""
    settled: bool = False
    """The BBS wants exactly what the cell has: heartbeats do until the cell changes."""


@attrs.frozen(kw_only=True)
class Heartbeat:
    """The cell is as its last whole report said: all of it, again."""

    boot_id: Name
    sequence: Annotated[int, Limits(minimum=0, maximum=2**53)]
    """As of a report, and of the same count."""
    digest: Digest
    """Of that report."""


@attrs.frozen(kw_only=True)
class HeartbeatAnswer:
    """Whether the presence was renewed, and whether a whole report is wanted now."""

    taken: bool
    """False: nothing was renewed. The BBS does not know that report, or wants something else since."""
    whole: bool
    """Send a whole report soon."""
    presence_ttl_ms: Count = 15_000
    """As in ReportAnswer."""
    pause_ms: Count = 0
    """As in ReportAnswer."""
