"""What a definition has done in its container: setup, action, sidecars, monitor. Pure."""

from __future__ import annotations

from attrs import evolve

from cells.executor.plan import HealthPlan, Workload
from cells.executor.steps import plan
from cells.garden.spec import ContainerSpec
from cells.rep.environment import network_env
from diego_py.models.actions import RunAction
from diego_py.models.checks import CheckDefinition
from diego_py.models.desired_lrp import DesiredLRPDefinition
from diego_py.models.task import TaskDefinition

NEVER_ASKED = HealthPlan(start_timeout_s=0.0)
"""Of a workload that shall end."""


def own_process(definition: DesiredLRPDefinition | TaskDefinition) -> tuple[RunAction, str] | None:
    """The process that is the container's own, and what marks its lines; None when there are several, or none."""
    beside = isinstance(definition, DesiredLRPDefinition) and definition.sidecars
    return None if beside else plan.own_process(definition.action)


def with_own_process(spec: ContainerSpec, definition: DesiredLRPDefinition | TaskDefinition) -> ContainerSpec:
    """The container of the definition with its own process; an idle one when the definition has several."""
    found = own_process(definition)
    if found is None:
        return evolve(spec, idle=True)
    run, source = found
    process = plan.process_of(run, source or definition.log_source)
    return evolve(
        spec,
        path=process.path,
        args=process.args,
        own_env=process.env,
        cwd=process.cwd,
        user=process.user,
        limits=evolve(spec.limits, nofile=process.nofile),
        log_source=process.log_source,
        silent=process.silent,
    )


def workload_of(definition: DesiredLRPDefinition, start_timeout_default_s: float) -> Workload:
    """What is done, and how it is kept."""
    told = definition.check_definition or CheckDefinition()
    checks = told.checks
    start_timeout_s = definition.start_timeout_ms / 1000 or start_timeout_default_s
    source, setup, monitor = definition.log_source, definition.setup, definition.monitor
    if own_process(definition) is not None:
        action = plan.alone(definition.action, source)
    else:
        action = plan.in_idle(definition.action, tuple(sidecar.action for sidecar in definition.sidecars), source)
    return Workload(
        health=HealthPlan(
            checks=checks,
            start_timeout_s=start_timeout_s,
            readiness=told.readiness_checks,
            log_source=told.log_source,
        ),
        setup=None if setup is None else plan.beside(setup, source),
        action=action,
        monitor=None if monitor is None or checks else plan.beside(monitor, source),
        network_env=network_env,
    )


def task_workload(definition: TaskDefinition) -> Workload:
    """What is done once. It has nothing to be asked whether it is healthy."""
    single = own_process(definition) is not None
    action, source = definition.action, definition.log_source
    return Workload(
        health=NEVER_ASKED,
        action=plan.alone(action, source) if single else plan.in_idle(action, (), source),
        network_env=network_env,
    )
