"""What is in a container besides its rootfs. Diego: models/{image_layer,cached_dependency,volume_mount}.go."""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Annotated, Final

import attrs

from diego_py.models.actions import ChecksumAlgorithm, checksum_pair
from diego_py.models.fields import (
    INVALID,
    MOUNTED_FILES_BYTES_MAX,
    REQUIRED,
    FieldError,
    HttpUrl,
    JsonValue,
    Label,
    Limits,
    Name,
    RequiredText,
    Text,
)
from diego_py.secret import Secret

MOUNT_CONFIG_BYTES_MAX: Final = 64 * 1024
"""JSON of one volume's mount_config."""


class LayerType(StrEnum):
    """Whether a layer is shared by containers or unpacked for one."""

    SHARED = "SHARED"
    EXCLUSIVE = "EXCLUSIVE"


class MediaType(StrEnum):
    """How a layer is packed."""

    TGZ = "TGZ"
    TAR = "TAR"
    ZIP = "ZIP"


class DigestAlgorithm(StrEnum):
    """How a layer is checked."""

    SHA256 = "SHA256"
    SHA512 = "SHA512"
    """Deprecated, and refused by Diego's cells."""


LOCAL_DRIVER: Final = "local"
"""The driver of directories and files of the cells: `volume_id` is the path, below one of their `bind_source_dirs`."""


class VolumeMode(StrEnum):
    """How a volume is mounted."""

    READ_ONLY = "r"
    READ_WRITE = "rw"


@attrs.frozen(kw_only=True)
class CachedDependency:
    """A download that containers of a cell share, mounted read-only."""

    name: Label = ""
    from_: HttpUrl
    """On the wire `from`."""
    to: RequiredText
    cache_key: Text = ""
    log_source: Label = ""
    checksum_algorithm: ChecksumAlgorithm | None = None
    checksum_value: Label = ""

    def rules(self) -> Iterator[FieldError]:
        """Checksum fields go together."""
        yield from checksum_pair(self.checksum_algorithm, self.checksum_value)


@attrs.frozen(kw_only=True)
class ImageLayer:
    """An archive that is laid over the rootfs."""

    name: Label = ""
    url: HttpUrl
    destination_path: RequiredText
    layer_type: LayerType
    media_type: MediaType
    digest_algorithm: DigestAlgorithm | None = None
    digest_value: Label = ""

    def rules(self) -> Iterator[FieldError]:
        """Digest fields go together, and an exclusive layer has them. Diego: models/image_layer.go."""
        needed = self.layer_type is LayerType.EXCLUSIVE
        if not self.digest_value and (needed or self.digest_algorithm is not None):
            yield FieldError("/digest_value", REQUIRED, "an EXCLUSIVE layer or a digest_algorithm needs it")
        if self.digest_algorithm is None and (needed or self.digest_value):
            yield FieldError("/digest_algorithm", REQUIRED, "an EXCLUSIVE layer or a digest_value needs it")


@attrs.frozen(kw_only=True)
class SharedDevice:
    """A volume that its driver can mount on any cell."""

    volume_id: RequiredText
    mount_config: Annotated[Mapping[str, JsonValue], Limits(bytes_max=MOUNT_CONFIG_BYTES_MAX)] = attrs.field(
        factory=dict, repr=False
    )
    """For the driver; may hold credentials, so it never prints."""


@attrs.frozen(kw_only=True)
class VolumeMount:
    """A volume in a container."""

    driver: Name
    container_dir: RequiredText
    mode: VolumeMode
    shared: SharedDevice


@attrs.frozen(kw_only=True)
class VolumeMountedFile:
    """A small file, such as a service binding, below one fixed directory of the container."""

    path: RequiredText
    """Relative; no step may be `..`."""
    content: Annotated[Secret, Limits(bytes_max=MOUNTED_FILES_BYTES_MAX)] = attrs.field(default=Secret(""), repr=False)

    def rules(self) -> Iterator[FieldError]:
        """The path stays below its directory."""
        if self.path.startswith("/") or any(step in ("..", ".", "") for step in self.path.split("/")):
            yield FieldError("/path", INVALID, "must be relative, without empty, '.' or '..' steps")
