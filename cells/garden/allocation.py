"""What a new container gets before anything of it is made: its handle, and numbers or a place beside another one."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from cells.garden import binds, recovery, sidecars
from cells.garden.box import Box
from cells.garden.host import Host
from cells.garden.spec import ContainerSpec
from diego_py.errors import HandleTaken, PoolExhausted


def allocate(host: Host, boxes: Mapping[str, Box], spec: ContainerSpec, now: datetime) -> Box:
    """A box that is in nobody's list yet, and complete for nobody.

    Raises InvalidSpec, HandleTaken, PoolExhausted; for a sidecar also ContainerNotFound, SandboxFailed.
    """
    recovery.check_handle(spec.handle)
    binds.check(spec)
    if spec.handle in boxes:
        raise HandleTaken(f"create container {spec.handle}")
    if len(boxes) >= host.config.containers_max:
        raise PoolExhausted(
            f"the cell has its {host.config.containers_max} containers", evidence={"pool": "containers"}
        )
    if spec.sandbox_of is None:
        return host.allocate(spec, now)
    return sidecars.allocate(host, boxes, spec, spec.sandbox_of, now)
