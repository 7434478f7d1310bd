"""What the executor is told to bring to life and keep alive. Pure."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from cells.executor.steps.own_process import OwnProcess
from cells.executor.steps.step import Step
from cells.garden.spec import ContainerSpec, Env, Network
from diego_py.models.checks import Check


@attrs.frozen(kw_only=True)
class HealthPlan:
    """When a workload counts as healthy. Kept with the container as JSON, so that an adopted one is watched alike."""

    checks: tuple[Check, ...] = ()
    """All must pass; without any, a process that waits for something, or survives the settle time, is healthy."""
    start_timeout_s: float
    """From the start of the process to the first round in which all checks pass."""
    readiness: tuple[Check, ...] = ()
    """While one fails nothing shall be routed to the workload; it goes on running."""
    log_source: str = ""
    """Marks the lines about readiness."""


def _nothing(_: Network) -> Env:
    return ()


@attrs.frozen(kw_only=True)
class Workload:
    """What is done in a container, and how it is kept."""

    health: HealthPlan
    setup: Step | None = None
    """Before the action, in the container whose own process has not begun."""
    action: Step = attrs.field(factory=OwnProcess)
    monitor: Step | None = None
    """Asks whether it is healthy, when there are no checks."""
    goes_on: bool = False
    """When all of the action was done well, its checks say how it goes on: it went to the background, as in Diego."""
    lost: bool = False
    """It was begun by an earlier cell process, and nobody can take it up."""
    network_env: Callable[[Network], Env] = attrs.field(default=_nothing, repr=False)
    """What each process is told of the container's addresses."""


@attrs.frozen(kw_only=True)
class Plan:
    """One workload and its container."""

    spec: ContainerSpec
    workload: Workload
