"""A cell as the BBS knows it. Diego: models/cell_presence.go."""

from typing import Annotated

import attrs

from diego_py.models.fields import (
    HTTP_URL_PATTERN,
    INT32_MAX,
    TEXT_BYTES_MAX,
    CellIdField,
    Label,
    Limits,
    Megabytes,
    Name,
    RequiredText,
    Text,
)

IMAGES_TOLD_MAX = 50
"""Names of images in what a cell says of itself."""


@attrs.frozen(kw_only=True)
class CellCapacity:
    """All that a cell has for containers, used or not."""

    memory_mb: Annotated[int, Limits(minimum=1, maximum=INT32_MAX)]
    disk_mb: Megabytes
    containers: Annotated[int, Limits(minimum=1, maximum=INT32_MAX)]


@attrs.frozen(kw_only=True)
class RootfsProvider:
    """A scheme of rootfs URLs that a cell can make; with `properties`, only these (the stacks of `preloaded`)."""

    name: Name
    properties: tuple[Name, ...] = ()


@attrs.frozen(kw_only=True)
class CellPresence:
    """What a living cell says about itself, again and again."""

    cell_id: CellIdField
    url: Annotated[
        str, Limits(bytes_min=1, bytes_max=TEXT_BYTES_MAX, pattern=HTTP_URL_PATTERN, pattern_name="an http(s) URL")
    ]
    """Where the rep answers."""
    zone: Label = ""
    address: Text = ""
    """IP address of the host, the one that instances' host ports are reached at."""
    capacity: CellCapacity
    rootfs_provider_list: tuple[RootfsProvider, ...] = ()
    images: Annotated[tuple[RequiredText, ...], Limits(items_max=IMAGES_TOLD_MAX, unique=True)] = ()
    """Images that were fetched and are unpacked there, the one used last first: by tag, and by digest."""
    placement_tags: Annotated[tuple[Name, ...], Limits(unique=True)] = ()
    """A workload must ask for all of these to come here."""
    optional_placement_tags: Annotated[tuple[Name, ...], Limits(unique=True)] = ()
    """A workload may ask for these."""
    privileged: bool = False
    """Makes privileged containers."""
    volume_drivers: Annotated[tuple[Name, ...], Limits(unique=True)] = ()
    """Whose volumes it mounts."""
    disk_limits: bool = True
    """Holds containers to disk limits."""
    draining: bool = False
    """Takes no new work."""
    home_id: Label = ""
    """Of the directory that the cell keeps its state in. Two cells of one id have two of them; only one is taken."""
    boot_id: Name
    """New at each start of the cell process: work of an earlier boot is known to be gone or adopted."""
