"""Instances as rows of a table: no state without its reason, since when, and when the next attempt is. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from diego_py.cli import table
from diego_py.models.actual_lrp import ActualLRP, ActualLRPState, NetInfo, Presence
from diego_py.models.desired_lrp import DesiredLRP

TITLES = ("PROCESS_GUID", "INDEX", "STATE", "SINCE", "CELL", "ADDRESS", "REASON")
REASON_CHARACTERS_MAX = 72
BESIDE = {
    Presence.EVACUATING: "serves until its replacement runs",
    Presence.SUSPECT: "its cell does not answer; may serve until its replacement runs",
}
"""Why there is a second row of an index."""


def lines(instances: Sequence[ActualLRP], now: datetime) -> list[str]:
    """A table of instances, in the order of their names."""
    ordered = sorted(instances, key=lambda instance: (instance.process_guid, instance.index, instance.presence))
    return table.align(TITLES, [row(instance, now) for instance in ordered])


def row(instance: ActualLRP, now: datetime) -> list[str]:
    """One instance."""
    state = str(instance.state)
    if instance.presence != "ORDINARY":
        state += f" ({instance.presence})"
    return [
        instance.process_guid,
        str(instance.index),
        state,
        ago(instance.since, now),
        instance.cell_id or "-",
        addresses(instance.net_info),
        reason(instance, now),
    ]


def reason(instance: ActualLRP, now: datetime, characters: int = REASON_CHARACTERS_MAX) -> str:
    """Why it is not RUNNING and when it is tried again; where a reason is cut it says where the whole is."""
    if instance.presence is not Presence.ORDINARY:
        return BESIDE[instance.presence]
    if instance.state is ActualLRPState.RUNNING:
        return f"crashed {instance.crash_count} time(s) before" if instance.crash_count else ""
    told = " ".join((instance.placement_error or instance.crash_reason or "").split())
    if len(told) > characters:
        told = f"{told[:characters]}… (diego explain {instance.process_guid})"
    if instance.state is ActualLRPState.CRASHED and instance.next_attempt_at is None:
        again = f"diego restart {instance.process_guid} {instance.index}"
        told = f"{told}; given up after {instance.crash_count} crashes: {again}"
    if instance.next_attempt_at is not None:
        told = f"{told}; next attempt {until(instance.next_attempt_at, now)}" if told else "waits"
    return told


def outdated(instance: ActualLRP, desired: DesiredLRP) -> str:
    """Why it runs an old definition, if it does, and what to do about it."""
    if instance.revision == desired.revision or instance.state is not ActualLRPState.RUNNING:
        return ""
    told = f"runs revision {instance.revision} of the definition, {desired.revision} is desired"
    if instance.presence is not Presence.ORDINARY:
        return told
    why = str((instance.failure or {}).get("detail") or "a replacement was not finished")
    return f"{told}: {why}; diego deploy it again"


def addresses(net_info: NetInfo | None) -> str:
    """The container's own address and where its host leads to it: `10.254.0.2:8080 = 192.0.2.1:61001`."""
    if net_info is None:
        return "-"
    if not net_info.ports:
        return net_info.instance_address or net_info.address
    told = []
    for port in net_info.ports:
        inside = f"{net_info.instance_address}:{port.container_port}"
        told.append(f"{inside} = {net_info.address}:{port.host_port}" if port.host_port else inside)
    return ", ".join(told)


def ago(moment: datetime, now: datetime) -> str:
    """How long since: 12s, 3m, 5h, 2d."""
    return f"{span((now - moment).total_seconds())} ago"


def until(moment: datetime, now: datetime) -> str:
    """How long until, or that it is due."""
    seconds = (moment - now).total_seconds()
    return f"in {span(seconds)}" if seconds > 0 else "is due"


def span(seconds: float) -> str:
    """A length of time in its largest unit."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f}{unit}"
    return f"{max(0, seconds):.0f}s"
