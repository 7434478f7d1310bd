"""What DesiredLRPs and Tasks have in common: small nouns and the rules that look at several fields."""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Annotated, ClassVar, Final, Protocol, TypeAlias

import attrs

from diego_py import image_reference
from diego_py.models.actions import Action, EnvironmentVariable, duplicate_names, runs_of
from diego_py.models.fields import (
    DUPLICATE,
    INT32_MAX,
    INT64_MAX,
    INVALID,
    MOUNTED_FILES_BYTES_MAX,
    REQUIRED,
    TOO_LONG,
    Count,
    FieldError,
    Label,
    Limits,
    Name,
    Text,
)
from diego_py.models.image import ImageLayer, LayerType, VolumeMountedFile
from diego_py.secret import Secret

METRIC_TAGS_MAX: Final = 100
CPU_WEIGHT_MAX: Final = 10_000
"""The largest cpu.weight of cgroup v2. Diego intends 1-100 and does not check."""
IMAGE_PASSWORD_BYTES_MAX: Final = 64 * 1024
"""Registry tokens are a few KiB."""
MAIN_PROCESS: Final = "/action/run"
"""The one process that can be the image's own."""

CpuWeight: TypeAlias = Annotated[int, Limits(minimum=0, maximum=CPU_WEIGHT_MAX)]
"""A share relative to the other containers of the cell; 0 is the cell's default."""
ImagePassword: TypeAlias = Annotated[Secret, Limits(bytes_max=IMAGE_PASSWORD_BYTES_MAX)]
PlacementTags: TypeAlias = Annotated[tuple[Name, ...], Limits(unique=True)]


class DynamicMetricTag(StrEnum):
    """A value that differs between the instances."""

    INDEX = "INDEX"
    INSTANCE_GUID = "INSTANCE_GUID"


@attrs.frozen(kw_only=True)
class MetricTagValue:
    """Exactly one of a constant and something that the cell fills in. Diego: models/metric_tags.go."""

    ONE_OF: ClassVar[bool] = True

    static: Text | None = None
    dynamic: DynamicMetricTag | None = None


MetricTags: TypeAlias = Annotated[Mapping[Name, MetricTagValue], Limits(items_max=METRIC_TAGS_MAX)]


@attrs.frozen(kw_only=True)
class LogRateLimit:
    """How much an instance may log: -1 is unlimited, 0 drops every line."""

    bytes_per_second: Annotated[int, Limits(minimum=-1, maximum=INT64_MAX)]


@attrs.frozen(kw_only=True)
class Network:
    """Properties for the network plugin, which alone reads them."""

    properties: Mapping[Name, Text] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class CertificateProperties:
    """What an instance's identity certificate says besides the instance."""

    organizational_unit: tuple[Text, ...] = ()


@attrs.frozen(kw_only=True)
class ModificationTag:
    """Which version of a row this is. A new row has a new epoch; each change adds one to the index."""

    epoch: Label
    index: Annotated[int, Limits(minimum=0, maximum=2**32 - 1)]

    def succeeded_by(self, other: "ModificationTag") -> bool:
        """Whether `other` is newer, or of another row that had the same name. Diego: models/modification_tag.go."""
        return self.epoch == "" or self.epoch != other.epoch or self.index < other.index

    def next(self) -> "ModificationTag":
        """The tag after one more change."""
        return attrs.evolve(self, index=self.index + 1)


@attrs.frozen(kw_only=True)
class Resources:
    """What one instance takes from its cell, with the one container it needs; 0 is unlimited and takes nothing."""

    memory_mb: Count
    disk_mb: Count
    max_pids: Annotated[int, Limits(minimum=0, maximum=INT32_MAX)] = 0


class Workload(Protocol):
    """The fields that the rules below read."""

    @property
    def rootfs(self) -> str: ...
    @property
    def environment_variables(self) -> tuple[EnvironmentVariable, ...]: ...
    @property
    def image_username(self) -> str: ...
    @property
    def image_password(self) -> Secret: ...
    @property
    def image_layers(self) -> tuple[ImageLayer, ...]: ...
    @property
    def legacy_download_user(self) -> str: ...
    @property
    def metrics_guid(self) -> str: ...
    @property
    def metric_tags(self) -> Mapping[str, MetricTagValue]: ...
    @property
    def volume_mounted_files(self) -> tuple[VolumeMountedFile, ...]: ...


def workload_rules(workload: Workload) -> Iterator[FieldError]:
    """Every rule that looks at several fields of a definition. Diego: models/{desired_lrp,task}.go Validate."""
    yield from duplicate_names(workload.environment_variables, "/environment_variables")
    yield from _rootfs_rules(workload.rootfs)
    yield from image_credential_rules(workload.image_username, workload.image_password)
    yield from _layer_rules(workload)
    yield from _metric_rules(workload)
    yield from _mounted_file_rules(workload.volume_mounted_files)


def _rootfs_rules(rootfs: str) -> Iterator[FieldError]:
    """A reference to an image has the form of one. Whether a cell has what it names is the auction's to say."""
    if _is_image(rootfs):
        try:
            image_reference.parse(rootfs)
        except image_reference.BadReference as bad:
            yield FieldError("/rootfs", INVALID, str(bad))


def process_rules(rootfs: str, trees: Mapping[str, Action | None]) -> Iterator[FieldError]:
    """Who says what the processes are: an image may; a directory of the cell's cannot. `trees`: actions by pointer."""
    for at, action in trees.items():
        for pointer, run in runs_of(action, at) if action is not None else ():
            if not run.path and not (pointer == MAIN_PROCESS and _is_image(rootfs)):
                detail = "is needed, but for `action.run` of an image: that may leave it to the image's entry point"
                yield FieldError(f"{pointer}/path", REQUIRED, detail)
            yield from user_rule(rootfs, run.user, pointer)


def user_rule(rootfs: str, user: str, at: str) -> Iterator[FieldError]:
    """Only an image can name a user instead."""
    if not user and not _is_image(rootfs):
        yield FieldError(f"{at}/user", REQUIRED, "is needed; only with the rootfs docker: or oci: may the image say it")


def _is_image(rootfs: str) -> bool:
    return rootfs.partition(":")[0] in image_reference.IMAGE_SCHEMES


def image_credential_rules(username: str | None, password: Secret | None) -> Iterator[FieldError]:
    """Both or neither."""
    if username and not password:
        yield FieldError("/image_password", REQUIRED, "image_username needs an image_password")
    if password and not username:
        yield FieldError("/image_username", REQUIRED, "image_password needs an image_username")


def _layer_rules(workload: Workload) -> Iterator[FieldError]:
    exclusive = any(layer.layer_type is LayerType.EXCLUSIVE for layer in workload.image_layers)
    if exclusive and not workload.legacy_download_user:
        yield FieldError("/legacy_download_user", REQUIRED, "EXCLUSIVE image_layers need the user that owns them")


def _metric_rules(workload: Workload) -> Iterator[FieldError]:
    source = workload.metric_tags.get("source_id")
    if workload.metrics_guid and source is not None and source.static != workload.metrics_guid:
        yield FieldError("/metrics_guid", INVALID, "must equal metric_tags.source_id; set only metric_tags.source_id")


def _mounted_file_rules(files: tuple[VolumeMountedFile, ...]) -> Iterator[FieldError]:
    seen: set[str] = set()
    for position, file in enumerate(files):
        if file.path in seen:
            yield FieldError(f"/volume_mounted_files/{position}/path", DUPLICATE, "another file has this path")
        seen.add(file.path)
    size = sum(len(file.content.reveal().encode("utf-8", "surrogatepass")) for file in files)
    if size > MOUNTED_FILES_BYTES_MAX:
        detail = f"contents are {size} bytes together, at most {MOUNTED_FILES_BYTES_MAX} are allowed"
        yield FieldError("/volume_mounted_files", TOO_LONG, detail)
