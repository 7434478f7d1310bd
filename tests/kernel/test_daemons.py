"""What a process leaves behind that went to the background: it goes on where that is wanted, and ends when asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cells.executor.plan import HealthPlan, Workload
from cells.executor.steps import plan
from cells.garden.garden import Garden
from diego_py.models.actions import Action, RunAction
from tests.kernel.containers import call, shell, start
from tests.kernel.images import until
from tests.kernel.test_programs import executor, idle, running
from tests.slowness import patient

pytestmark = pytest.mark.kernel

ASKED = "trap 'echo > /asked; exit' TERM; echo > /ready; while :; do sleep 0.05; done"
DAEMON = f'setsid sh -c "{ASKED}" > /dev/null 2>&1 < /dev/null & while ! test -e /ready; do sleep 0.01; done; exit 0'


async def test_what_it_left_goes_on_over_a_restart_and_is_asked_to_end(
    new_garden: Callable[..., Any], new_config: Any
) -> None:
    config = new_config()
    garden = await new_garden(config)
    await start(garden, shell("a", DAEMON, lingers=True))
    ended = await garden.wait("a")
    assert (ended.status, ended.lingers) == (0, True)
    inside = garden._host.cgroups.processes
    assert inside("a")
    assert garden.activity("a") != "ended"
    await garden.close()
    again = await new_garden(config)
    assert await again.wait("a") == ended
    assert inside("a")
    await again.stop(call(), "a", 10.0)
    await until(lambda: inside("a") == [])
    assert again.activity("a") == "ended"
    assert [chunk async for chunk in again.stream_out(call(), "a", "/asked")]
    await again.destroy(call(), "a")


@pytest.mark.parametrize(
    ("lingers", "script"), [(False, "sleep 600 & exit 0"), (True, "sleep 600 & exit 1"), (True, "exit 0")]
)
async def test_what_ends_with_it(garden: Garden, lingers: bool, script: str) -> None:
    await start(garden, shell("a", script, lingers=lingers))
    assert not (await garden.wait("a")).lingers
    await until(lambda: garden._host.cgroups.processes("a") == [])


async def test_destroying_one_that_lingers_leaves_nothing(garden: Garden) -> None:
    await start(garden, shell("a", "trap '' TERM; sleep 600 & exit 0", lingers=True))
    assert (await garden.wait("a")).lingers
    await garden.destroy(call(), "a", 0.1)
    assert garden.containers() == []


async def test_what_an_action_in_an_idle_container_left(garden: Garden) -> None:
    container = await garden.create(call(), idle())
    action = Action(run=RunAction(path="/bin/sh", args=("-c", "sleep 600 > /dev/null 2>&1 & exit 0"), user="root"))
    workload = Workload(
        health=HealthPlan(start_timeout_s=patient(10.0)), action=plan.in_idle(action, (), "", leaves=True), goes_on=True
    )
    one = executor(garden)
    program = one.programs.begin(call(), container, workload)
    assert await program.end() is None
    assert await running(garden) == ["sleep 600"]
    await garden.destroy(call(), "a")
