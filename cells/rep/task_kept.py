"""What is stored with a task's container, so that a later boot of the cell knows how it goes on. Pure."""

from __future__ import annotations

from datetime import datetime

import attrs

from cells.executor.plan import Workload
from cells.executor.steps import plan
from cells.executor.steps.own_process import OwnProcess
from cells.garden.spec import Container
from cells.rep import workloads
from cells.rep.asked import NOTHING, Asked, asked_by
from cells.rep.environment import network_env
from cells.rep.tasks import TaskIdentity
from diego_py import wire
from diego_py.models.actions import Action
from diego_py.models.identifiers import Domain, InstanceGuid, TaskGuid
from diego_py.models.task_work import TaskWork
from diego_py.models.workload import Resources

TASK_PROPERTY = "diego.task"
"""All that adoption needs, as JSON. It has no secrets in it."""


@attrs.frozen(kw_only=True)
class KeptTask:
    """The value of TASK_PROPERTY."""

    task_guid: TaskGuid
    domain: Domain
    instance_guid: InstanceGuid
    claim_id: str
    memory_mb: int
    disk_mb: int
    max_pids: int = 0
    asked: Asked = NOTHING
    result_file: str = ""
    log_source: str = ""
    action: Action | None = None
    """Of a task of one process: less what the process itself was given. None of one that cannot be taken up."""


@attrs.frozen(kw_only=True)
class Adopted:
    """Whose container it is, and how it goes on."""

    identity: TaskIdentity
    claim_id: str
    workload: Workload
    result_file: str


def properties(work: TaskWork, claim_id: str) -> dict[str, str]:
    """What the container of a work is given."""
    definition = work.definition
    single = workloads.own_process(definition) is not None
    kept = KeptTask(
        task_guid=work.task_guid,
        domain=work.domain,
        instance_guid=work.instance_guid,
        claim_id=claim_id,
        memory_mb=definition.memory_mb,
        disk_mb=definition.disk_mb,
        max_pids=definition.max_pids,
        asked=asked_by(definition),
        result_file=definition.result_file,
        log_source=definition.log_source,
        action=plan.without_secrets(definition.action) if single else None,
    )
    return {TASK_PROPERTY: wire.encode(kept).decode()}


def adopted(container: Container, now: datetime) -> Adopted | None:
    """What an earlier boot stored; None for a container that no task of ours made."""
    text = container.properties.get(TASK_PROPERTY)
    if text is None:
        return None
    try:
        kept = wire.decode(KeptTask, text.encode())
    except (wire.MalformedJSON, wire.InvalidFields):
        return None
    action = OwnProcess(begun=True)
    workload = Workload(
        health=workloads.NEVER_ASKED, action=action, network_env=network_env, lost=kept.action is None
    )
    if kept.action is not None:
        resumed = plan.resumed(kept.action, kept.log_source, container.ran_s(now))
        workload = attrs.evolve(workload, action=resumed)
    identity = TaskIdentity(
        task_guid=kept.task_guid,
        domain=kept.domain,
        instance_guid=kept.instance_guid,
        resources=Resources(memory_mb=kept.memory_mb, disk_mb=kept.disk_mb, max_pids=kept.max_pids),
        asked=kept.asked,
    )
    return Adopted(identity=identity, claim_id=kept.claim_id, workload=workload, result_file=kept.result_file)
