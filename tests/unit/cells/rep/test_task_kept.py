"""What is stored with a task's container brings it back, shows no secret, and makes nothing run a second time."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from cells.executor.steps.own_process import OwnProcess
from cells.executor.steps.timeout import Timeout
from cells.garden.spec import Container, Limits, Network
from cells.rep import task_kept
from cells.rep.task_translate import identity_of, plan_of
from diego_py.models.actions import Action, EnvironmentVariable, ParallelAction, RunAction, TimeoutAction
from diego_py.secret import Secret
from tests.fakes.cell import task_work, work

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SECRET = (EnvironmentVariable(name="KEY", value=Secret("canary-secret")),)
RUN = Action(run=RunAction(path="/bin/a", args=("canary-argument",), user="u", env=SECRET))
TIMED = Action(timeout=TimeoutAction(action=RUN, timeout_ms=10_000, log_source="T"))
SEVERAL = Action(parallel=ParallelAction(actions=(RUN, RUN)))


def container(claim_id: str = "claim-1", ran_s: float | None = 4.0, **of_work: Any) -> Container:
    """As garden finds it: made for this work, and started so long ago, or never."""
    plan = plan_of(task_work(**of_work), claim_id)
    began = None if ran_s is None else NOW - timedelta(seconds=ran_s)
    network = Network("10.0.0.2", "192.0.2.1")
    return Container("i-1", dict(plan.spec.properties), network, "running", Limits(), NOW, started_at=began)


def adopted(made: Container) -> task_kept.Adopted:
    found = task_kept.adopted(made, NOW)
    assert found is not None
    return found


@given(
    claim_id=st.text("abcdef0123456789-", min_size=1, max_size=64),
    memory_mb=st.integers(0, 2**40),
    disk_mb=st.integers(0, 2**40),
    result_file=st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=200),
    log_source=st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=30),
)
def test_whatever_is_stored_comes_back(claim_id: str, **fields: Any) -> None:
    found = adopted(container(claim_id, action=RUN, **fields))
    assert found.identity == identity_of(task_work(action=RUN, **fields))
    assert (found.claim_id, found.result_file) == (claim_id, fields["result_file"])
    assert (found.workload.action, found.workload.lost) == (OwnProcess(begun=True), False)


@pytest.mark.parametrize("action", [RUN, TIMED, SEVERAL], ids=["one", "timed", "several"])
def test_no_secret_is_stored(action: Action) -> None:
    made = container(action=action)
    assert "canary" not in str(made.properties)


@pytest.mark.parametrize(("ran_s", "spent_s"), [(4.0, 4.0), (None, 0.0)])
def test_a_timeout_comes_back_less_the_time_that_passed(ran_s: float | None, spent_s: float) -> None:
    found = adopted(container(action=TIMED, ran_s=ran_s))
    assert found.workload.action == Timeout(OwnProcess(begun=True), 10.0, spent_s=spent_s)


def test_several_processes_are_lost() -> None:
    """What was at which step of them nobody knows any more; the process that is begun already is none of them."""
    found = adopted(container(action=SEVERAL))
    assert found.workload.lost
    assert found.workload.action == OwnProcess(begun=True)


def test_containers_of_others() -> None:
    made = container()
    assert task_kept.adopted(evolve(made, properties={}), NOW) is None
    assert task_kept.adopted(evolve(made, properties={"diego.lrp": "{}"}), NOW) is None


@pytest.mark.parametrize("cut", [0, 1, 40, -1])
def test_what_cannot_be_read_is_nobodys(cut: int) -> None:
    """Half of a property, or of another version."""
    made = container()
    text = made.properties[task_kept.TASK_PROPERTY]
    assert task_kept.adopted(evolve(made, properties={task_kept.TASK_PROPERTY: text[:cut]}), NOW) is None
    older = {**json.loads(text), "colour": "red"}
    assert task_kept.adopted(evolve(made, properties={task_kept.TASK_PROPERTY: json.dumps(older)}), NOW) is None
    del older["colour"], older["claim_id"]
    assert task_kept.adopted(evolve(made, properties={task_kept.TASK_PROPERTY: json.dumps(older)}), NOW) is None


def test_an_lrps_container_is_no_tasks() -> None:
    from tests.fakes.cell import plan_of as plan_of_lrp

    properties = dict(plan_of_lrp(work(), 60.0).spec.properties)
    assert task_kept.adopted(evolve(container(), properties=properties), NOW) is None
