"""What is stored with a container, so that a later boot of the cell knows whose it is and how to keep it. Pure."""

from __future__ import annotations

from datetime import datetime

import attrs

from cells.executor.plan import HealthPlan, Workload
from cells.executor.steps import plan
from cells.executor.steps.own_process import OwnProcess
from cells.garden.spec import Container
from cells.rep import workloads
from cells.rep.environment import network_env
from cells.rep.instances import Identity
from diego_py import wire
from diego_py.models.actions import Action
from diego_py.models.work import Work
from diego_py.models.workload import Resources

LRP_PROPERTY = "diego.lrp"
"""All that adoption needs, as JSON. It has no secrets in it."""


@attrs.frozen(kw_only=True)
class Kept:
    """The value of LRP_PROPERTY."""

    process_guid: str
    index: int
    domain: str
    instance_guid: str
    memory_mb: int
    disk_mb: int
    health: HealthPlan
    log_source: str = ""
    action: Action | None = None
    """Of a workload of one process: less what the process itself was given."""
    several: bool = False
    """It has several processes, or none that is the container's own."""


def properties(work: Work, health: HealthPlan) -> dict[str, str]:
    """What the container of a work is given."""
    definition = work.definition
    single = workloads.own_process(definition) is not None
    kept = Kept(
        process_guid=work.process_guid,
        index=work.index,
        domain=work.domain,
        instance_guid=work.instance_guid,
        memory_mb=definition.memory_mb,
        disk_mb=definition.disk_mb,
        health=health,
        log_source=definition.log_source,
        action=plan.without_secrets(definition.action) if single else None,
        several=not single,
    )
    return {LRP_PROPERTY: wire.encode(kept).decode()}


def adopted(container: Container, now: datetime) -> tuple[Identity, Workload] | None:
    """Whose container this is and how it goes on; None for one that no LRP of ours made."""
    text = container.properties.get(LRP_PROPERTY)
    if text is None:
        return None
    try:
        kept = wire.decode(Kept, text.encode())
    except (wire.MalformedJSON, wire.InvalidFields):
        return None
    workload = Workload(
        health=kept.health, action=OwnProcess(begun=True), network_env=network_env, lost=kept.several
    )
    if kept.action is not None:
        ran_s = 0.0 if container.started_at is None else (now - container.started_at).total_seconds()
        workload = attrs.evolve(workload, action=plan.resumed(kept.action, kept.log_source, ran_s))
    resources = Resources(memory_mb=kept.memory_mb, disk_mb=kept.disk_mb)
    named = {name: getattr(kept, name) for name in ("process_guid", "index", "domain", "instance_guid")}
    return Identity(**named, resources=resources), workload
