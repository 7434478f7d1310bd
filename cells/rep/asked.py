"""What a workload asked the auction for besides room. Kept for who looks at the cell; nothing here is decided by it."""

from __future__ import annotations

from typing import Final

from attrs import frozen

from diego_py.models.desired_lrp import DesiredLRPDefinition
from diego_py.models.task import TaskDefinition


@frozen(kw_only=True)
class Asked:
    """What it needs of its cell, and what it may run beside."""

    rootfs: str = ""
    placement_tags: tuple[str, ...] = ()
    volume_drivers: tuple[str, ...] = ()


NOTHING: Final = Asked()
"""Of a container that an older release made: it is not known."""


def asked_by(definition: DesiredLRPDefinition | TaskDefinition) -> Asked:
    """What a definition asks for."""
    return Asked(
        rootfs=definition.rootfs,
        placement_tags=definition.placement_tags,
        volume_drivers=tuple(mount.driver for mount in definition.volume_mounts),
    )
