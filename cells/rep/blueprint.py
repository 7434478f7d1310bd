"""What all instances of a definition have in common, made once for many of them. Pure."""

from __future__ import annotations

from attrs import evolve, frozen

from cells.executor.plan import Plan, Workload
from cells.garden.spec import ContainerSpec
from cells.rep import kept, workloads
from cells.rep.environment import container_env
from cells.rep.kept import Stored
from cells.rep.translate import egress_of, limits_of
from diego_py.models.desired_lrp import DesiredLRPDefinition
from diego_py.models.work import Work


@frozen
class Blueprint:
    """Whatever is done for an instance, less what makes it this one."""

    definition: DesiredLRPDefinition
    spec: ContainerSpec
    workload: Workload
    stored: Stored

    def plan(self, work: Work) -> Plan:
        """What the executor shall do for a checked work of this definition."""
        spec = evolve(
            self.spec,
            handle=work.instance_guid,
            env=container_env(work.instance_guid, work.index, self.definition.environment_variables),
            properties=self.stored.properties(work),
        )
        return Plan(spec=spec, workload=self.workload)


def blueprint_of(definition: DesiredLRPDefinition, start_timeout_default_s: float) -> Blueprint:
    """Of a checked definition. Raises VolumeDriverMissing."""
    workload = workloads.workload_of(definition, start_timeout_default_s)
    spec = ContainerSpec(
        handle="",
        rootfs=definition.rootfs,
        path="",
        image_username=definition.image_username,
        image_password=definition.image_password or None,
        limits=limits_of(definition),
        ports=definition.ports,
        mounts=workloads.mounts_of(definition),
        egress=tuple(egress_of(rule) for rule in definition.egress_rules),
        privileged=definition.privileged,
        network_env=workload.network_env,
        lingers=workloads.lingers(definition),
    )
    spec = workloads.with_own_process(spec, definition)
    return Blueprint(definition, spec, workload, kept.stored_of(definition, workload.health))
