"""Each kind of step: what it does, how it fails, and what it ends when it is ended."""

from __future__ import annotations

import asyncio

import pytest

from diego_py.errors import (
    ActionTimedOut,
    CodependentExited,
    DiegoError,
    ExecNotFound,
    ProcessExited,
    RuntimeFailed,
)
from diego_py.models.actions import Action, EmitProgressAction, EnvironmentVariable, TryAction
from diego_py.secret import Secret
from tests.fakes.garden import FakeGarden
from tests.unit.cells.executor.steps.site import (
    HANDLE,
    HeldClock,
    codependent,
    lines,
    parallel,
    perform,
    scripts,
    serial,
    sh,
    site,
    timeout,
)

SLEEP = sh("sleep 1000")
STUBBORN = sh("trap '' TERM; sleep 1000")


@pytest.fixture
def garden() -> FakeGarden:
    return FakeGarden()


async def failure(action: Action, garden: FakeGarden) -> DiegoError:
    with pytest.raises(DiegoError) as caught:
        await perform(action, await site(garden))
    return caught.value


async def test_run_writes_to_the_log_with_its_source_and_its_status(garden: FakeGarden) -> None:
    at = await site(garden)
    await perform(sh("echo hello; exit 0"), at)
    assert lines(garden) == [("APP", "hello"), ("APP", "Exit status 0")]
    assert at.begun.is_set()


async def test_run_of_its_own_source_and_in_silence(garden: FakeGarden) -> None:
    at = await site(garden)
    await perform(serial(sh("echo a", log_source="OWN"), sh("echo b", suppress_log_output=True)), at)
    assert lines(garden) == [("OWN", "a"), ("OWN", "Exit status 0")]


async def test_addresses_win_over_the_environment_of_an_action(garden: FakeGarden) -> None:
    given = EnvironmentVariable(name="ADDRESS", value=Secret("elsewhere"))
    await perform(sh("exit 0", env=(given,)), await site(garden))
    assert dict(garden.launched(HANDLE)[0].process.env)["ADDRESS"] == "here"


async def test_run_that_fails(garden: FakeGarden) -> None:
    error = await failure(sh("echo bad; exit 3"), garden)
    assert isinstance(error, ProcessExited)
    assert error.message == "APP: exited with status 3"
    assert error.evidence is not None
    assert (error.evidence["exit_status"], error.evidence["app_log_tail"]) == (3, ["bad"])


async def test_run_that_cannot_begin(garden: FakeGarden) -> None:
    garden.failures["launch"] = ExecNotFound("no such file")
    assert (await failure(sh("exit 0"), garden)).find(ExecNotFound) is not None


@pytest.mark.parametrize(("action", "signals"), [(SLEEP, ["signal 15"]), (STUBBORN, ["signal 15"])])
async def test_a_cancelled_run_is_asked_to_end_then_killed(
    garden: FakeGarden, action: Action, signals: list[str]
) -> None:
    at = await site(garden)
    running = asyncio.ensure_future(perform(action, at))  # noqa: TID251
    await garden.called("launch")
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()
    process = garden.launched(HANDLE)[0]
    assert (await process.wait()).signal == (9 if action is STUBBORN else 15)
    assert [op for op in garden.ops() if op.startswith("signal")] == signals
    told = "Killed: exceeded 0.05 s graceful shutdown interval"
    assert (("APP", told) in lines(garden)) is (action is STUBBORN)


async def test_serial_stops_at_the_first_failure(garden: FakeGarden) -> None:
    error = await failure(serial(sh("echo 1"), sh("exit 2"), sh("echo 3")), garden)
    assert error.message == "APP: exited with status 2"
    assert scripts(garden) == ["echo 1", "exit 2"]


async def test_parallel_waits_for_all_and_tells_all_failures(garden: FakeGarden) -> None:
    action = parallel(sh("exit 2"), SLEEP, sh("exit 4"))
    running = asyncio.ensure_future(failure(action, garden))  # noqa: TID251
    await garden.called("launch", 3)
    for _ in range(20):
        await asyncio.sleep(0)
    assert not running.done()
    garden.launched(HANDLE)[1].end(0)
    error = await running
    assert error.message == "APP: exited with status 2"
    assert error.evidence is not None
    assert error.evidence["others"] == [{"code": "app.exited", "detail": "APP: exited with status 4"}]


async def test_codependent_ends_the_others_when_one_fails(garden: FakeGarden) -> None:
    error = await failure(codependent(SLEEP, sh("exit 4")), garden)
    assert error.message == "APP: exited with status 4"
    assert [process.has_ended for process in garden.launched(HANDLE)] == [True, True]


async def test_codependent_ends_the_others_when_one_ends_well(garden: FakeGarden) -> None:
    error = await failure(codependent(SLEEP, sh("exit 0")), garden)
    assert isinstance(error, CodependentExited)
    assert error.message == "action 2 of 2 codependent ones exited"
    assert [process.has_ended for process in garden.launched(HANDLE)] == [True, True]


async def test_timeout(garden: FakeGarden) -> None:
    clock = HeldClock()
    at = await site(garden, clock)
    running = asyncio.ensure_future(perform(timeout(SLEEP, 1500), at))  # noqa: TID251
    await garden.called("launch")
    clock.goes_by.set()
    with pytest.raises(ActionTimedOut) as caught:
        await running
    assert caught.value.message == "exceeded 1.5 s timeout"
    assert clock.slept_s[0] == 1.5
    assert garden.launched(HANDLE)[0].has_ended


async def test_timeout_of_what_ends_before(garden: FakeGarden) -> None:
    at = await site(garden, HeldClock())
    await perform(timeout(sh("exit 0"), 1), at)
    with pytest.raises(ProcessExited):
        await perform(timeout(sh("exit 1"), 1), at)


async def test_try_tells_of_the_failure_and_goes_on(garden: FakeGarden) -> None:
    await perform(serial(Action(try_=TryAction(action=sh("exit 3"))), sh("echo on")), await site(garden))
    told = "Failed, which is allowed here: APP: exited with status 3"
    assert lines(garden) == [("APP", "Exit status 3"), ("APP", told), ("APP", "on"), ("APP", "Exit status 0")]


async def test_try_does_not_hide_what_is_the_platforms_fault(garden: FakeGarden) -> None:
    garden.failures["launch"] = RuntimeFailed("broken")
    error = await failure(Action(try_=TryAction(action=sh("exit 0"))), garden)
    assert error.find(RuntimeFailed) is not None


@pytest.mark.parametrize(("status", "last"), [(0, "well"), (3, "badly: APP: exited with status 3")])
async def test_progress(garden: FakeGarden, status: int, last: str) -> None:
    inner = sh(f"exit {status}", suppress_log_output=True, log_source="APP")
    told = {"start_message": "begin", "success_message": "well", "failure_message_prefix": "badly"}
    action = Action(emit_progress=EmitProgressAction(action=inner, log_source="STG", **told))
    at = await site(garden)
    if status == 0:
        await perform(action, at)
    else:
        with pytest.raises(ProcessExited):
            await perform(action, at)
    assert lines(garden) == [("STG", "begin"), ("STG", last)]


async def test_progress_without_messages_says_nothing(garden: FakeGarden) -> None:
    inner = sh("exit 0", suppress_log_output=True)
    await perform(Action(emit_progress=EmitProgressAction(action=inner)), await site(garden))
    assert lines(garden) == []
