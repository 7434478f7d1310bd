"""What is stored with a container, so that a later boot of the cell knows whose it is and how to keep it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import attrs
import msgspec

from cells.executor.plan import HealthPlan, Workload
from cells.executor.steps import plan
from cells.executor.steps.own_process import OwnProcess
from cells.garden.spec import Container
from cells.rep import workloads
from cells.rep.asked import NOTHING, Asked, asked_by
from cells.rep.environment import network_env
from cells.rep.instances import Identity
from diego_py import wire
from diego_py.models.actions import Action
from diego_py.models.desired_lrp import DesiredLRPDefinition
from diego_py.models.work import Work
from diego_py.models.workload import Resources

LRP_PROPERTY = "diego.lrp"
"""All that adoption needs but for what may hold secrets, as JSON."""
MONITOR_PROPERTY = "diego.monitor"
"""The monitor action, as JSON. It has secrets in it: it is never shown."""


@attrs.frozen(kw_only=True)
class Kept:
    """The value of LRP_PROPERTY."""

    process_guid: str
    index: int
    domain: str
    instance_guid: str
    memory_mb: int
    disk_mb: int
    max_pids: int = 0
    asked: Asked = NOTHING
    health: HealthPlan
    log_source: str = ""
    action: Action | None = None
    """Of a workload of one process: less what the process itself was given."""
    several: bool = False
    """It has several processes, or none that is the container's own."""


@attrs.frozen
class Stored:
    """What the containers of all instances of a definition are given."""

    kept: Mapping[str, Any]
    """The JSON of Kept, of no instance yet."""
    monitor: str | None

    def properties(self, work: Work) -> dict[str, str]:
        """What the container of a work is given."""
        which = {
            "process_guid": work.process_guid,
            "index": work.index,
            "domain": work.domain,
            "instance_guid": work.instance_guid,
        }
        given = {LRP_PROPERTY: msgspec.json.encode({**self.kept, **which}).decode()}
        return given if self.monitor is None else {**given, MONITOR_PROPERTY: self.monitor}


def stored_of(definition: DesiredLRPDefinition, health: HealthPlan) -> Stored:
    """What is stored of a definition."""
    single = workloads.own_process(definition) is not None
    kept = Kept(
        process_guid="",
        index=0,
        domain="",
        instance_guid="",
        memory_mb=definition.memory_mb,
        disk_mb=definition.disk_mb,
        max_pids=definition.max_pids,
        asked=asked_by(definition),
        health=health,
        log_source=definition.log_source,
        action=plan.without_secrets(definition.action) if single else None,
        several=not single,
    )
    monitor = definition.monitor if single and workloads.is_monitored(definition) else None
    told = wire.to_builtins(kept)
    assert isinstance(told, dict)
    return Stored(told, None if monitor is None else wire.encode_revealed(monitor).decode())


def shown(properties: Mapping[str, str]) -> dict[str, str]:
    """The properties that anybody may see."""
    return {name: value for name, value in properties.items() if name != MONITOR_PROPERTY}


def adopted(container: Container, now: datetime) -> tuple[Identity, Workload] | None:
    """Whose container this is and how it goes on; None for one that no LRP of ours made."""
    text = container.properties.get(LRP_PROPERTY)
    if text is None:
        return None
    monitor = container.properties.get(MONITOR_PROPERTY)
    try:
        kept = wire.decode(Kept, text.encode())
        asked = None if monitor is None else plan.beside(wire.decode(Action, monitor.encode()), kept.log_source)
    except (wire.MalformedJSON, wire.InvalidFields):
        return None
    workload = Workload(
        health=kept.health, action=OwnProcess(begun=True), monitor=asked, network_env=network_env, lost=kept.several
    )
    if kept.action is not None:
        resumed = plan.resumed(kept.action, kept.log_source, container.ran_s(now))
        workload = attrs.evolve(workload, action=resumed)
    resources = Resources(memory_mb=kept.memory_mb, disk_mb=kept.disk_mb, max_pids=kept.max_pids)
    named = {name: getattr(kept, name) for name in ("process_guid", "index", "domain", "instance_guid", "asked")}
    return Identity(**named, resources=resources), workload
