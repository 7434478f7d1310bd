"""The BBS's words about tasks into garden's. Pure."""

from __future__ import annotations

from cells.executor.plan import Plan
from cells.garden.spec import ContainerSpec
from cells.rep import task_kept, workloads
from cells.rep.asked import asked_by
from cells.rep.environment import task_env
from cells.rep.tasks import TaskIdentity
from cells.rep.translate import egress_of, limits_of
from diego_py.models.task_work import TaskWork


def identity_of(work: TaskWork) -> TaskIdentity:
    """Which attempt it is and what it takes."""
    return TaskIdentity(
        task_guid=work.task_guid,
        domain=work.domain,
        instance_guid=work.instance_guid,
        resources=work.definition.resources,
        asked=asked_by(work.definition),
    )


def plan_of(work: TaskWork, claim_id: str) -> Plan:
    """What the executor shall do for a checked work, in this one start of it."""
    definition = work.definition
    workload = workloads.task_workload(definition)
    spec = ContainerSpec(
        handle=work.instance_guid,
        rootfs=definition.rootfs,
        path="",
        env=task_env(definition.environment_variables),
        image_username=definition.image_username,
        image_password=definition.image_password or None,
        limits=limits_of(definition),
        mounts=workloads.mounts_of(definition),
        egress=tuple(egress_of(rule) for rule in definition.egress_rules),
        privileged=definition.privileged,
        properties=task_kept.properties(work, claim_id),
        network_env=workload.network_env,
    )
    return Plan(spec=workloads.with_own_process(spec, definition), workload=workload)
