"""What should run for as long as it is wanted: a DesiredLRP. Diego: models/desired_lrp.go."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final

import attrs

from diego_py.models import validation
from diego_py.models.actions import Action, Environment
from diego_py.models.checks import CheckDefinition
from diego_py.models.egress import EGRESS_RULES_MAX, SecurityGroupRule
from diego_py.models.fields import (
    ANNOTATION_BYTES_MAX,
    REQUIRED,
    ROUTES_BYTES_MAX,
    Count,
    DomainField,
    DurationMs,
    FieldError,
    JsonValue,
    Label,
    Limits,
    Megabytes,
    NetworkPort,
    ProcessGuidField,
    Text,
    Url,
)
from diego_py.models.image import CachedDependency, ImageLayer, VolumeMount, VolumeMountedFile
from diego_py.models.workload import (
    CertificateProperties,
    CpuWeight,
    ImagePassword,
    LogRateLimit,
    MetricTags,
    ModificationTag,
    Network,
    PlacementTags,
    Resources,
    image_credential_rules,
    process_rules,
    user_rule,
    workload_rules,
)
from diego_py.secret import Secret

INSTANCES_MAX: Final = 100_000
"""Instances of one DesiredLRP. Diego: int32; the largest known installation runs 250,000 in all."""
PORTS_MAX: Final = 100
"""Container ports of one instance."""
SIDECARS_MAX: Final = 50


class UpdateStrategy(StrEnum):
    """Whether a new instance may run beside the old one while a cell is evacuated."""

    ROLLING = "ROLLING"
    RECREATE = "RECREATE"


@attrs.frozen(kw_only=True)
class Sidecar:
    """A process beside the main action; its memory and disk are part of the LRP's and only informational."""

    action: Action
    disk_mb: Megabytes = 0
    memory_mb: Megabytes = 0


Instances = Annotated[int, Limits(minimum=0, maximum=INSTANCES_MAX)]
Routes = Annotated[Mapping[str, JsonValue], Limits(bytes_max=ROUTES_BYTES_MAX)]
"""Payloads by router name, such as `cf-router`; not read by the scheduler, and at most 128 KiB of JSON."""
Annotation = Annotated[str, Limits(bytes_max=ANNOTATION_BYTES_MAX)]


@attrs.frozen(kw_only=True)
class DesiredLRPDefinition:
    """A DesiredLRP as its client sends it. `validate` and `supported.unsupported` say whether it can be run."""

    process_guid: ProcessGuidField
    domain: DomainField
    rootfs: Url
    """`preloaded:STACK`, `docker://HOST/REPOSITORY:TAG`, `oci:/DIR:TAG`, or another scheme that cells provide."""
    instances: Instances = 1
    environment_variables: Environment = ()
    """For every process of the container; a process's own `env` wins."""
    setup: Action | None = None
    """Runs before `action`; when it fails, `action` never starts."""
    action: Action
    monitor: Action | None = None
    """Health check of old clients, used if there are no `check_definition.checks`."""
    start_timeout_ms: DurationMs = 0
    """From the start of `action` to the first healthy check; 0 is the cell's default (a request must end)."""
    disk_mb: Megabytes = 0
    """0 is unlimited."""
    memory_mb: Megabytes = 0
    """0 is unlimited."""
    cpu_weight: CpuWeight = 0
    privileged: bool = False
    """Without a user namespace; cells refuse it unless they allow it."""
    ports: Annotated[tuple[NetworkPort, ...], Limits(items_max=PORTS_MAX, unique=True)] = ()
    """Ports of the container that get a host port."""
    routes: Routes = attrs.field(factory=dict, repr=False)
    """Not printed: `diego-ssh` routes hold a private key."""
    log_source: Label = ""
    log_guid: Label = ""
    metrics_guid: Label = ""
    """Deprecated: `metric_tags["source_id"]`."""
    annotation: Annotation = ""
    egress_rules: Annotated[tuple[SecurityGroupRule, ...], Limits(items_max=EGRESS_RULES_MAX)] = ()
    cached_dependencies: tuple[CachedDependency, ...] = ()
    legacy_download_user: Label = ""
    trusted_system_certificates_path: Text = ""
    volume_mounts: tuple[VolumeMount, ...] = ()
    network: Network | None = None
    placement_tags: PlacementTags = ()
    max_pids: Count = 0
    """0 is the cell's default limit."""
    certificate_properties: CertificateProperties | None = None
    image_username: Text = ""
    image_password: ImagePassword = attrs.field(default=Secret(""), repr=False)
    check_definition: CheckDefinition | None = None
    image_layers: tuple[ImageLayer, ...] = ()
    metric_tags: MetricTags = attrs.field(factory=dict)
    sidecars: Annotated[tuple[Sidecar, ...], Limits(items_max=SIDECARS_MAX)] = ()
    log_rate_limit: LogRateLimit | None = None
    """None is unlimited."""
    volume_mounted_files: tuple[VolumeMountedFile, ...] = ()
    update_strategy: UpdateStrategy = UpdateStrategy.ROLLING

    @property
    def resources(self) -> Resources:
        """What one instance takes from its cell."""
        return Resources(memory_mb=self.memory_mb, disk_mb=self.disk_mb, max_pids=self.max_pids)

    def rules(self) -> Iterator[FieldError]:
        """Rules that look at several fields."""
        yield from workload_rules(self)
        sidecars = {f"/sidecars/{number}/action": sidecar.action for number, sidecar in enumerate(self.sidecars)}
        trees = {"/setup": self.setup, "/action": self.action, "/monitor": self.monitor, **sidecars}
        yield from process_rules(self.rootfs, trees)
        yield from self._check_rules()

    def _check_rules(self) -> Iterator[FieldError]:
        checks = self.check_definition or CheckDefinition()
        for kind in ("checks", "readiness_checks"):
            for number, check in enumerate(getattr(checks, kind)):
                if check.command is not None:
                    at = f"/check_definition/{kind}/{number}/command"
                    yield from user_rule(self.rootfs, check.command.user, at)


@attrs.frozen(kw_only=True)
class DesiredLRP:
    """A stored DesiredLRP: what the client sent, and what the server adds."""

    definition: DesiredLRPDefinition
    revision: Count = 0
    """Rises when the definition is replaced by one that needs other containers."""
    modification_tag: ModificationTag
    created_at: datetime
    updated_at: datetime


@attrs.frozen(kw_only=True)
class SchedulingInfo:
    """What decisions need of a desired LRP; read without its definition. Diego: DesiredLRPSchedulingInfo."""

    process_guid: ProcessGuidField
    domain: DomainField
    instances: Instances
    memory_mb: Megabytes
    disk_mb: Megabytes
    rootfs: Url
    placement_tags: PlacementTags
    revision: Count
    modification_tag: ModificationTag
    update_strategy: UpdateStrategy = UpdateStrategy.ROLLING


@attrs.frozen(kw_only=True)
class DesiredLRPUpdate:
    """What may change without a new process_guid. None leaves the field as it is. Diego: models/desired_lrp.go."""

    instances: Instances | None = None
    routes: Routes | None = attrs.field(default=None, repr=False)
    annotation: Annotation | None = None
    metric_tags: MetricTags | None = None
    image_username: Text | None = None
    image_password: ImagePassword | None = attrs.field(default=None, repr=False)
    egress_rules: Annotated[tuple[SecurityGroupRule, ...], Limits(items_max=EGRESS_RULES_MAX)] | None = None
    """Changed in the containers that run."""

    def rules(self) -> Iterator[FieldError]:
        """Image credentials change together."""
        if (self.image_username is None) != (self.image_password is None):
            absent = "image_username" if self.image_username is None else "image_password"
            yield FieldError(f"/{absent}", REQUIRED, "image_username and image_password change together")
            return
        yield from image_credential_rules(self.image_username, self.image_password)

    def apply_to(self, definition: DesiredLRPDefinition) -> DesiredLRPDefinition:
        """The definition with the fields that are set here."""
        changes = {
            field.name: value
            for field in attrs.fields(DesiredLRPUpdate)
            if (value := getattr(self, field.name)) is not None
        }
        return attrs.evolve(definition, **changes)


LIVE_FIELDS: Final = frozenset(field.name for field in attrs.fields(DesiredLRPUpdate)) | {"update_strategy"}
"""What changes without another container."""


def same_containers(one: DesiredLRPDefinition, other: DesiredLRPDefinition) -> bool:
    """Whether containers made from either definition are alike."""
    return attrs.evolve(one, **{name: getattr(other, name) for name in LIVE_FIELDS}) == other


def validate(definition: DesiredLRPDefinition | DesiredLRPUpdate) -> list[FieldError]:
    """Every bad field, in the order of the fields; empty if all is well."""
    return validation.validate(definition)
