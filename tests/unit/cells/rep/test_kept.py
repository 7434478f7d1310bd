"""What is stored with a container brings its workload back, and shows no secret."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from attrs import evolve

from cells.executor.steps.emit_progress import EmitProgress
from cells.executor.steps.own_process import OwnProcess
from cells.executor.steps.run import Run
from cells.executor.steps.timeout import Timeout
from cells.garden.spec import Container, Limits, Network
from cells.rep import kept
from cells.rep.translate import identity_of
from diego_py.models.actions import (
    Action,
    EmitProgressAction,
    EnvironmentVariable,
    ParallelAction,
    RunAction,
    TimeoutAction,
)
from diego_py.models.checks import Check, HTTPCheck
from diego_py.models.desired_lrp import Sidecar
from diego_py.secret import Secret
from tests.fakes.cell import plan_of, work

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CHECK = Check(http=HTTPCheck(port=8080, path="/health"))
SECRET = (EnvironmentVariable(name="KEY", value=Secret("canary-secret")),)
RUN = Action(run=RunAction(path="/bin/a", args=("canary-argument",), user="u", env=SECRET))
WRAPPED = Action(
    timeout=TimeoutAction(
        action=Action(emit_progress=EmitProgressAction(action=RUN, start_message="begin", success_message="end")),
        timeout_ms=10_000,
        log_source="T",
    )
)


def container(**of_work: Any) -> Container:
    plan = plan_of(work(**of_work), 60.0)
    started = NOW - timedelta(seconds=4)
    network = Network("10.0.0.2", "192.0.2.1")
    return Container("i-1", dict(plan.spec.properties), network, "running", Limits(), started, started_at=started)


def test_a_plain_process_comes_back() -> None:
    asked = {"memory_mb": 64, "max_pids": 9, "placement_tags": ("gpu",)}
    found = kept.adopted(container(checks=(CHECK,), **asked), NOW)
    assert found is not None
    identity, workload = found
    assert identity == identity_of(work(**asked))
    assert workload.health == plan_of(work(checks=(CHECK,)), 60.0).workload.health
    assert (workload.action, workload.setup, workload.lost) == (OwnProcess(begun=True), None, False)


def test_what_is_around_a_single_process_comes_back_less_the_time_that_passed_and_without_its_begin() -> None:
    found = kept.adopted(container(action=WRAPPED), NOW)
    assert found is not None
    inner = EmitProgress(OwnProcess(begun=True), "T", "", "end", "")
    assert found[1].action == Timeout(inner, 10.0, spent_s=4.0)


def test_several_processes_are_lost() -> None:
    for more in ({"action": Action(parallel=ParallelAction(actions=(RUN, RUN)))}, {"sidecars": (Sidecar(action=RUN),)}):
        found = kept.adopted(container(**more), NOW)
        assert found is not None
        assert found[1].lost


def test_the_monitor_comes_back_and_is_shown_to_nobody() -> None:
    made = container(monitor=RUN, action=RUN)
    shown = str(kept.shown(made.properties))
    assert "canary" not in shown
    assert "diego.lrp" in shown
    found = kept.adopted(made, NOW)
    assert found is not None
    assert isinstance(found[1].monitor, Run)
    assert found[1].monitor.process.env == (("KEY", "canary-secret"),)
    assert not found[1].lost


def test_checks_come_before_the_monitor() -> None:
    found = kept.adopted(container(monitor=RUN, checks=(CHECK,)), NOW)
    assert found is not None
    assert (found[1].lost, found[1].monitor) == (False, None)


def test_containers_of_others() -> None:
    assert kept.adopted(evolve(container(), properties={}), NOW) is None
    assert kept.adopted(evolve(container(), properties={"diego.lrp": "{}"}), NOW) is None
