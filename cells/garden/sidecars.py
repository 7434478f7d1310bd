"""Sidecars: containers in the sandbox of another one, their main container.

They have its user, pid, network, ipc and uts namespaces, so its address, ports, name and PID 1; and mounts, a cgroup, a
volume, a log and an end of their own. They are gone before it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from itertools import count

from attrs import evolve

from cells.garden.box import Box
from cells.garden.host import Host
from cells.garden.processes import is_alive
from cells.garden.spec import ContainerSpec
from diego_py.errors import ContainerNotFound, InvalidSpec, SandboxFailed

NOT_ITS_OWN = ("ports", "egress", "hostname")
"""Fields of a spec that speak of the sandbox."""


def allocate(host: Host, boxes: Mapping[str, Box], spec: ContainerSpec, handle: str, now: datetime) -> Box:
    """A sidecar of the container `handle`. Raises InvalidSpec, ContainerNotFound, SandboxFailed."""
    _check(spec)
    main = boxes.get(handle)
    if main is None or not main.complete or main.record.phase == "destroying":
        raise ContainerNotFound(f"find container {handle}")
    if main.main is not None:
        raise InvalidSpec(f"sidecar of the sidecar {handle}", errors=[_error("sandbox_of", "a sidecar has none")])
    if spec.privileged != main.record.privileged:
        detail = f"has to be as that of {handle}, whose user namespace it shares"
        raise InvalidSpec("a sidecar is as privileged as its main container", errors=[_error("privileged", detail)])
    if not is_alive(main.holder):
        raise SandboxFailed("enter the sandbox: its holder is dead", evidence={"pid": main.holder.pid})
    taken = {each.record.part for each in of(boxes, main)}
    record = evolve(
        host.record(spec, now, main.place, main.record.ports),
        part=next(number for number in count(1) if number not in taken),
        holder_pid=main.holder.pid,
        holder_started=main.holder.started,
    )
    return host.box(record, main)


def of(boxes: Mapping[str, Box], main: Box) -> list[Box]:
    """The sidecars of a container, those that are just being created too."""
    return [box for box in boxes.values() if box.main is main]


def _check(spec: ContainerSpec) -> None:
    errors = [_error(name, "is the main container's") for name in NOT_ITS_OWN if getattr(spec, name)]
    if errors:
        raise InvalidSpec("a sidecar has the network and the name of its main container", errors=errors)


def _error(field: str, detail: str) -> dict[str, str]:
    return {"pointer": f"/{field}", "detail": detail}
