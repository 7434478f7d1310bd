"""Actions of several processes in real containers: their logs, limits, ends, and what a restart of the cell leaves."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cells.executor.executor import Executor
from cells.executor.pace import Pace
from cells.executor.plan import HealthPlan, Workload
from cells.executor.steps import plan
from cells.executor.transfers.settings import TransferSettings
from cells.garden.garden import Garden
from cells.garden.spec import ContainerSpec, Limits, ProcessSpec
from diego_py.errors import ActionTimedOut, DiegoError, OutOfMemory, ResultTooLarge
from diego_py.models.actions import (
    Action,
    ChecksumAlgorithm,
    DownloadAction,
    ParallelAction,
    RunAction,
    SerialAction,
    TimeoutAction,
    UploadAction,
)
from diego_py.service.clock import SystemClock
from tests.fakes.cell import executor_of
from tests.kernel.containers import IMAGE, SOON_S, call, until_printed
from tests.slowness import patient
from tests.unit.cells.executor.transfers.file_server import Answer, FileServer, tgz

pytestmark = pytest.mark.kernel

PACE = Pace(settle_s=0.05, startup_interval_max_s=1.0, liveness_interval_s=1.0, graceful_stop_s=1.0)
HEALTH = HealthPlan(start_timeout_s=patient(10.0))


def sh(script: str, source: str = "", user: str = "root") -> Action:
    return Action(run=RunAction(path="/bin/sh", args=("-c", script), user=user, log_source=source))


def parallel(*actions: Action) -> Action:
    return Action(parallel=ParallelAction(actions=actions))


def executor(garden: Garden) -> Executor:
    return executor_of(garden, SystemClock(), PACE)  # type: ignore[arg-type]


def idle(handle: str = "a", **more: Any) -> ContainerSpec:
    return ContainerSpec(handle=handle, rootfs=IMAGE, path="", idle=True, **more)


async def running(garden: Garden, handle: str = "a") -> list[str]:
    told = await garden.exec(call(), handle, ProcessSpec("/bin/ps", ("-o", "args")), SOON_S)
    return [line for line in told.output.splitlines() if "sleep" in line]


async def to_end(garden: Garden, action: Action, result_file: str = "", **more: Any) -> str:
    container = await garden.create(call(), idle(**more))
    workload = Workload(health=HEALTH, action=plan.in_idle(action, (), "APP"))
    return await executor(garden).run_to_end(call(), container, workload, result_file)


async def test_run_to_end_gives_the_result(garden: Garden) -> None:
    steps = (sh("id -u > /tmp/result; echo first"), sh("id -u >> /tmp/result; echo second", "OTHER", "vcap"))
    made = (sh("mkdir -m 777 /tmp/x; touch /tmp/result; chmod 666 /tmp/result"), *steps)
    assert await to_end(garden, Action(serial=SerialAction(actions=made)), "/tmp/result") == "0\n1000\n"
    told = [(line.source, line.text) async for line in garden.logs("a") if "Exit" not in line.text]
    assert told == [("APP", "first"), ("OTHER", "second")]


async def test_a_result_that_is_too_large(garden: Garden) -> None:
    with pytest.raises(DiegoError) as caught:
        await to_end(garden, parallel(sh("head -c 51201 /dev/zero > /result")), "/result")
    assert isinstance(caught.value.root, ResultTooLarge)


async def test_a_timeout_ends_a_process_with_its_children(garden: Garden) -> None:
    script = "trap '' TERM; sleep 600 & sleep 600 & wait"
    action = Action(timeout=TimeoutAction(action=parallel(sh(script), sh("sleep 601")), timeout_ms=300))
    with pytest.raises(DiegoError) as caught:
        await to_end(garden, action)
    assert isinstance(caught.value.root, ActionTimedOut)
    assert await running(garden) == []


async def test_who_met_the_memory_limit_is_told_and_the_others_are_not(garden: Garden) -> None:
    eat = sh("sleep 0.1; head -c 200m /dev/zero | tail", "EATER")
    with pytest.raises(DiegoError) as caught:
        await to_end(garden, Action(serial=SerialAction(actions=(eat,))), limits=Limits(memory_bytes=32 << 20))
    assert isinstance(caught.value.root, OutOfMemory)
    process = await garden.launch(call(), "a", ProcessSpec("/bin/sh", ("-c", "exit 3")))
    ended = await process.wait()
    await process.close()
    assert (ended.status, ended.oom_killed) == (3, False)


async def test_a_log_does_not_grow_beyond_its_limit(new_garden: Callable[..., Any]) -> None:
    garden = await new_garden(log_bytes_max=100_000)
    await to_end(garden, parallel(sh("seq 1 30000"), sh("seq 40001 70000")))
    log = garden._host.depot.log("a")
    assert 0 < log.stat().st_size <= 100_000
    lines = [line.text async for line in garden.logs("a")]
    assert {"30000", "70000"} & set(lines)
    assert all(text.isdigit() or text.startswith("Exit") for text in lines)


async def test_downloads_and_uploads(garden: Garden, tmp_path: Path) -> None:
    async with FileServer(answers={"/put": Answer()}) as server:
        archive = tgz({"app/run": b"#!/bin/sh\ncat data; id -u", "app/data": b"downloaded\n"})
        server.answers["/droplet"] = Answer(archive, headers={"ETag": '"1"'})
        sha256, value = ChecksumAlgorithm.SHA256, hashlib.sha256(archive).hexdigest()
        download = DownloadAction(
            from_=server.url("/droplet"),
            to=".",
            user="vcap",
            cache_key="droplet",
            checksum_algorithm=sha256,
            checksum_value=value,
        )
        run = sh("cd app; sh run > ../out; stat -c %U data >> ../out", user="vcap")
        upload = UploadAction(from_="out", to=server.url("/put"), user="vcap")
        steps = (Action(download=download), run, Action(upload=upload))
        container = await garden.create(call(), idle())
        workload = Workload(health=HEALTH, action=plan.in_idle(Action(serial=SerialAction(actions=steps)), (), "APP"))
        settings = TransferSettings(directory=tmp_path, hosts=(server.host,))
        one = executor_of(garden, SystemClock(), PACE, settings)  # type: ignore[arg-type]
        await one.run_to_end(call(), container, workload, "")
        assert server.taken[-1] == b"downloaded\n1000\nvcap\n"


async def test_stop_asks_each_process_and_a_restart_ends_all(new_garden: Callable[..., Any], new_config: Any) -> None:
    config = new_config()
    garden = await new_garden(config)
    one = executor(garden)
    container = await garden.create(call(), idle())
    script = "trap 'echo asked; exit 0' TERM; echo ready; while :; do sleep 0.05; done"
    workload = Workload(health=HEALTH, action=plan.in_idle(parallel(sh(script), sh("sleep 600")), (), ""))
    await one.start(call(), container, workload, asyncio.Future())
    await until_printed(garden, "a", "ready")
    await one.programs.end("a")
    assert "asked" in [line.text async for line in garden.logs("a")]
    assert await running(garden) == []
    await garden.launch(call(), "a", ProcessSpec("/bin/sleep", ("602",)))
    inside = garden._host.cgroups.processes("a")
    await garden.close()
    again = await new_garden(config)
    assert [container.state for container in again.containers()] == ["running"]
    assert await running(again) == []
    assert len(again._host.cgroups.processes("a")) == 1 < len(inside)
    os.kill(again._host.cgroups.processes("a")[0], signal.SIGKILL)
    assert (await again.wait("a")).signal == 9
