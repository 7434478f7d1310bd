"""The last hops, runc and the app itself: the command cannot be executed, ends, is killed, never becomes healthy."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest

from tests.chain.awaited import process_of
from tests.chain.definitions import SERVE, checked_by, lrp
from tests.chain.expected import Expected, failed
from tests.chain.installation import Installation

pytestmark = [pytest.mark.chain, pytest.mark.kernel]

TO_GARDEN = ("bbs", "auction", "rep", "garden")
TO_RUNC = (*TO_GARDEN, "runc")
TO_APP = ("bbs", "auction", "rep", "executor")

NOT_STARTED: dict[str, tuple[dict[str, Any], Expected]] = {
    "exec not found": (
        lrp(run_path="/bin/nope", run_args=[]),
        Expected(code="runtime.exec_not_found", hops=TO_RUNC, evidence=("runtime_log", "stderr")),
    ),
    "exec not executable": (
        lrp(run_path="/etc/not-executable", run_args=[]),
        Expected(code="runtime.exec_not_executable", hops=TO_RUNC, evidence=("runtime_log", "stderr")),
    ),
    "working directory": (
        lrp(run_dir="/bin/busybox"),
        Expected(code="runtime.working_directory", hops=TO_RUNC, evidence=("runtime_log", "stderr")),
    ),
    "user": (
        lrp(run_user="nobody-here"),
        Expected(code="garden.user_not_found", hops=TO_GARDEN),
    ),
}


@pytest.mark.parametrize("name", NOT_STARTED)
async def test_a_command_that_cannot_be_executed(two_cells: Installation, name: str) -> None:
    """Another cell has the same image: the first refusal of the runtime is the answer, and no crash of the app."""
    definition, expected = NOT_STARTED[name]
    document = await failed(two_cells, await two_cells.desire(definition), expected)
    assert document["fault"] == "app"
    assert document["retryable"] is False
    if "stderr" in expected.evidence:
        assert document["evidence"]["stderr"]["text"], "runc's own words"
        assert document["detail"].startswith("runtime ")


UNCHECKED: dict[str, Any] = {"ports": [8080], "check_definition": checked_by(tcp={"port": 8080})}
"""A check that nobody answers, so that only the end of the app decides."""
EXITED = Expected(
    code="app.exited",
    hops=TO_APP,
    evidence=("exit_status", "signal", "oom_killed", "app_log_tail", "cgroup"),
    state="CRASHED",
)

ENDED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "exits with a status": (
        "echo first; echo oops >&2; exit 3",
        "exited with status 3",
        {"exit_status": 3, "signal": None, "oom_killed": False, "app_log_tail": ["first", "oops"]},
    ),
    "exits with 0": ("echo done", "exited with status 0", {"exit_status": 0, "signal": None}),
    "ends by a signal of its own": (
        "trap 'exit 143' TERM; kill -TERM $$",
        "killed by signal 15",
        {"exit_status": 143, "signal": 15},
    ),
}


@pytest.mark.parametrize("name", ENDED)
async def test_an_app_that_ends_at_once(one_cell: Installation, name: str) -> None:
    script, detail, evidence = ENDED[name]
    document = await failed(one_cell, await one_cell.desire(lrp(script=script, **UNCHECKED)), EXITED)
    assert document["detail"] == detail
    assert {name: document["evidence"][name] for name in evidence} == evidence
    assert document["fault"] == "app"


async def test_a_program_for_another_machine(one_cell: Installation) -> None:
    """runc has let go by the time the kernel refuses it, so its words are the last lines of the log."""
    answer = await one_cell.desire(lrp(run_path="/bin/not-a-program", run_args=[], **UNCHECKED))
    document = await failed(one_cell, answer, EXITED)
    assert document["evidence"]["app_log_tail"] == ["exec /bin/not-a-program: exec format error"]


async def test_an_app_that_is_killed(one_cell: Installation) -> None:
    """PID 1 of a namespace cannot be killed from inside of it: the kernel, or somebody outside, does that."""
    async with asyncio.TaskGroup() as group:
        desiring = group.create_task(one_cell.desire(lrp(script="echo before; exec sleep 734521", **UNCHECKED)))
        os.kill(await process_of("sleep", "734521"), signal.SIGKILL)
    document = await failed(one_cell, desiring.result(), EXITED)
    assert document["detail"] == "killed by signal 9"
    assert document["evidence"]["signal"] == 9
    assert document["evidence"]["oom_killed"] is False
    assert document["evidence"]["app_log_tail"] == ["before"]


UNHEALTHY: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "tcp refused": (
        {"tcp": {"port": 8080, "connect_timeout_ms": 200}},
        {"kind": "tcp", "answer": "Connection refused"},
    ),
    "http wrong status": (
        {"http": {"port": 8081, "path": "/missing", "request_timeout_ms": 5_000}},
        {"kind": "http", "answer": "404"},
    ),
    "command": (
        {"command": {"path": "/bin/sh", "args": ["-c", "echo not yet; exit 7"], "user": "root"}},
        {"kind": "command", "answer": "7"},
    ),
}


@pytest.mark.parametrize("name", UNHEALTHY)
async def test_an_app_that_never_becomes_healthy(one_cell: Installation, name: str) -> None:
    check, told = UNHEALTHY[name]
    serve = "echo waiting; " + SERVE.replace("8080", "8081")
    definition = lrp(script=serve, ports=[8080, 8081], check_definition={"checks": [check]}, start_timeout_ms=1_000)
    expected = Expected(
        code="app.never_healthy", hops=TO_APP, evidence=("check", "app_log_tail"), state="CRASHED"
    )
    document = await failed(one_cell, await one_cell.desire(definition), expected)
    said = document["evidence"]["check"]
    assert said["kind"] == told["kind"]
    assert told["answer"] in said["answer"]
    assert said["attempts"] >= 2
    assert document["evidence"]["app_log_tail"] == ["waiting"]
    assert document["detail"] == "not healthy within 1 s"
    assert 1_000 <= document["elapsed_ms"] < 4_000


async def test_an_app_that_runs_out_of_memory(one_cell: Installation) -> None:
    eat = "echo eating; exec tail /dev/zero"
    definition = lrp(
        script=eat, memory_mb=16, ports=[8080], check_definition=checked_by(tcp={"port": 8080})
    )
    expected = Expected(
        code="app.out_of_memory", hops=TO_APP, evidence=("exit_status", "oom_killed", "cgroup"), state="CRASHED"
    )
    document = await failed(one_cell, await one_cell.desire(definition), expected)
    assert document["evidence"]["oom_killed"] is True
    assert document["evidence"]["signal"] == 9
    assert document["evidence"]["app_log_tail"] == ["eating"]


LIMITS: dict[str, tuple[dict[str, int], str, str, str]] = {
    "disk": (
        {"disk_mb": 4},
        "cat /dev/zero > /big || exit 9",
        "app.disk_exceeded",
        "exited with status 9 (its disk was full)",
    ),
    "pids": (
        {"max_pids": 6},
        "for i in 1 2 3 4 5 6 7 8; do sleep 60 & done; exit 9",
        "app.pids_exceeded",
        "(refused a process beyond its limit)",
    ),
}


@pytest.mark.parametrize("name", LIMITS)
async def test_an_app_that_fails_at_a_limit(one_cell: Installation, name: str) -> None:
    limit, script, code, told = LIMITS[name]
    definition = lrp(script=script, ports=[8080], check_definition=checked_by(tcp={"port": 8080}), **limit)
    evidence = ("exit_status", "cgroup", "app_log_tail", *(["disk"] if name == "disk" else []))
    expected = Expected(code=code, hops=TO_APP, evidence=evidence, state="CRASHED")
    document = await failed(one_cell, await one_cell.desire(definition), expected)
    assert told in document["detail"]
    assert any("Raise" in str(step) for step in document["next"])
    if name == "disk":
        assert document["evidence"]["disk"]["limit_bytes"] >= 4 << 20
