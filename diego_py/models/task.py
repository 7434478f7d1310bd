"""What should run once: a Task, and the table of its states. Diego: models/task.go."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final

import attrs

from diego_py.models import validation
from diego_py.models.actions import Action, Environment
from diego_py.models.egress import EGRESS_RULES_MAX, SecurityGroupRule
from diego_py.models.fields import (
    ANNOTATION_BYTES_MAX,
    HTTP_URL_PATTERN,
    TEXT_BYTES_MAX,
    CellIdField,
    Count,
    DomainField,
    FieldError,
    InstanceGuidField,
    JsonValue,
    Label,
    Limits,
    Megabytes,
    TaskGuidField,
    Text,
    Url,
)
from diego_py.models.image import CachedDependency, ImageLayer, VolumeMount, VolumeMountedFile
from diego_py.models.transitions import IllegalTransition as IllegalTransition
from diego_py.models.transitions import next_state
from diego_py.models.workload import (
    CertificateProperties,
    CpuWeight,
    ImagePassword,
    LogRateLimit,
    MetricTags,
    Network,
    PlacementTags,
    Resources,
    process_rules,
    workload_rules,
)
from diego_py.secret import Secret

RESULT_BYTES_MAX: Final = 50 * 1024
"""Result file of a Task. Diego: rep generator/internal/container_delegate.go MAX_RESULT_SIZE is 50 KiB."""
FAILURE_REASON_BYTES_MAX: Final = 64 * 1024


class TaskState(StrEnum):
    """Where a Task is in its life."""

    PENDING = "PENDING"
    """No cell runs it."""
    RUNNING = "RUNNING"
    """A cell has it; from here its process may have started, so it is not tried again elsewhere."""
    COMPLETED = "COMPLETED"
    """It ended, well or not."""
    RESOLVING = "RESOLVING"
    """Its client is taking the result; then it is deleted."""


class TaskEvent(StrEnum):
    """What happens to a Task."""

    OFFER = "OFFER"
    """The BBS gives it to a cell under a new instance_guid."""
    START = "START"
    """A cell takes it, before its process runs."""
    REJECT = "REJECT"
    """Not placed or not created; it may be tried again."""
    FAIL = "FAIL"
    """Not placed or not created, and not tried again."""
    COMPLETE = "COMPLETE"
    """Its process ended."""
    CANCEL = "CANCEL"
    """Its client does not want it any more."""
    EXPIRE = "EXPIRE"
    """It was PENDING for too long."""
    LOSE = "LOSE"
    """Its cell vanished."""
    RESOLVE = "RESOLVE"
    """Somebody begins to take the result."""
    RECALL = "RECALL"
    """Who took the result vanished half-way."""


TRANSITIONS: Final[Mapping[tuple[TaskState, TaskEvent], TaskState]] = {
    (TaskState.PENDING, TaskEvent.OFFER): TaskState.PENDING,
    (TaskState.PENDING, TaskEvent.START): TaskState.RUNNING,
    (TaskState.PENDING, TaskEvent.REJECT): TaskState.PENDING,
    (TaskState.RUNNING, TaskEvent.REJECT): TaskState.PENDING,
    (TaskState.PENDING, TaskEvent.FAIL): TaskState.COMPLETED,
    (TaskState.RUNNING, TaskEvent.FAIL): TaskState.COMPLETED,
    (TaskState.RUNNING, TaskEvent.COMPLETE): TaskState.COMPLETED,
    (TaskState.PENDING, TaskEvent.CANCEL): TaskState.COMPLETED,
    (TaskState.RUNNING, TaskEvent.CANCEL): TaskState.COMPLETED,
    (TaskState.PENDING, TaskEvent.EXPIRE): TaskState.COMPLETED,
    (TaskState.RUNNING, TaskEvent.LOSE): TaskState.COMPLETED,
    (TaskState.COMPLETED, TaskEvent.RESOLVE): TaskState.RESOLVING,
    (TaskState.RESOLVING, TaskEvent.RECALL): TaskState.COMPLETED,
}


def transition(state: TaskState, event: TaskEvent) -> TaskState:
    """The state after `event`. Raises IllegalTransition, which carries both, if TRANSITIONS does not have the pair."""
    return next_state(TRANSITIONS, state, event)


@attrs.frozen(kw_only=True)
class TaskDefinition:
    """What a Task runs, as its client sends it. Fields mean what they mean in a DesiredLRPDefinition."""

    rootfs: Url
    environment_variables: Environment = ()
    action: Action
    disk_mb: Megabytes = 0
    memory_mb: Megabytes = 0
    cpu_weight: CpuWeight = 0
    privileged: bool = False
    log_source: Label = ""
    log_guid: Label = ""
    metrics_guid: Label = ""
    """Deprecated: `metric_tags["source_id"]`."""
    result_file: Text = ""
    """Path in the container whose content, at most 50 KiB, is the result."""
    completion_callback_url: Annotated[
        str, Limits(bytes_max=TEXT_BYTES_MAX, pattern=HTTP_URL_PATTERN, pattern_name="an http(s) URL")
    ] = ""
    """Gets the finished Task by POST."""
    annotation: Annotated[str, Limits(bytes_max=ANNOTATION_BYTES_MAX)] = ""
    egress_rules: Annotated[tuple[SecurityGroupRule, ...], Limits(items_max=EGRESS_RULES_MAX)] = ()
    cached_dependencies: tuple[CachedDependency, ...] = ()
    legacy_download_user: Label = ""
    trusted_system_certificates_path: Text = ""
    volume_mounts: tuple[VolumeMount, ...] = ()
    network: Network | None = None
    placement_tags: PlacementTags = ()
    max_pids: Count = 0
    certificate_properties: CertificateProperties | None = None
    image_username: Text = ""
    image_password: ImagePassword = attrs.field(default=Secret(""), repr=False)
    image_layers: tuple[ImageLayer, ...] = ()
    log_rate_limit: LogRateLimit | None = None
    metric_tags: MetricTags = attrs.field(factory=dict)
    volume_mounted_files: tuple[VolumeMountedFile, ...] = ()

    @property
    def resources(self) -> Resources:
        """What the Task takes from its cell."""
        return Resources(memory_mb=self.memory_mb, disk_mb=self.disk_mb, max_pids=self.max_pids)

    def rules(self) -> Iterator[FieldError]:
        """Rules that look at several fields."""
        yield from workload_rules(self)
        yield from process_rules(self.rootfs, {"/action": self.action})


@attrs.frozen(kw_only=True)
class TaskRequest:
    """A Task as its client sends it: what to run and under which name."""

    task_guid: TaskGuidField
    domain: DomainField
    definition: TaskDefinition


@attrs.frozen(kw_only=True)
class Task:
    """A stored Task."""

    task_guid: TaskGuidField
    domain: DomainField
    definition: TaskDefinition
    state: TaskState
    created_at: datetime
    updated_at: datetime
    first_completed_at: datetime | None = None
    cell_id: CellIdField | None = None
    """Where it runs or ran last."""
    instance_guid: InstanceGuidField | None = None
    """The attempt that was offered, runs or ran."""
    result: Annotated[str, Limits(bytes_max=RESULT_BYTES_MAX)] = ""
    failed: bool = False
    failure_reason: Annotated[str, Limits(bytes_max=FAILURE_REASON_BYTES_MAX)] | None = None
    failure: Mapping[str, JsonValue] | None = None
    """The whole problem document behind failure_reason or rejection_reason."""
    rejection_count: Count = 0
    """How often a cell could not begin with it. Want of room does not count."""
    rejection_reason: Annotated[str, Limits(bytes_max=FAILURE_REASON_BYTES_MAX)] | None = None
    attempts: Count = 0
    """Placements that failed, for whatever reason."""
    next_attempt_at: datetime | None = None
    """When the next placement is due; None if none is needed or it is due now."""


def validate(definition: TaskDefinition | TaskRequest) -> list[FieldError]:
    """Every bad field, in the order of the fields; empty if all is well."""
    return validation.validate(definition)
