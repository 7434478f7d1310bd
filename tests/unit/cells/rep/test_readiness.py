"""Readiness: an instance that does not pass is not routable, and runs on."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from attrs import evolve

from diego_py.models.checks import Check, CheckDefinition, TCPCheck
from diego_py.models.work import CellReport, InstanceState, Work
from tests.fakes.bbs import FakeBBS
from tests.fakes.cell import call, running_cell, work
from tests.fakes.garden import FakeGarden


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number


async def listening(port: int) -> asyncio.Server:
    return await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", port)


def with_readiness(port: int) -> Work:
    checks = CheckDefinition(readiness_checks=(Check(tcp=TCPCheck(port=port, interval_ms=10)),))
    asked = work()
    return evolve(asked, definition=evolve(asked.definition, check_definition=checks))


def routable(expected: bool) -> Callable[[CellReport], bool]:
    def found(report: CellReport) -> bool:
        told = [(one.state, one.routable) for one in report.instances]
        return told == [(InstanceState.RUNNING, expected)]

    return found


async def test_it_follows_the_checks(tmp_path: Path, bbs: FakeBBS, port: int) -> None:
    garden = FakeGarden()
    async with running_cell(tmp_path, garden, bbs, unhealthy_interval_s=0.01) as cell:
        started = await cell.work.run_instance(call(), with_readiness(port))
        assert not started.routable
        await cell.sync.report()
        await bbs.report_with(routable(False))
        seen = len(bbs.reports.items)
        server = await listening(port)
        await bbs.report_with(routable(True), seen)
        seen = len(bbs.reports.items)
        server.close()
        await server.wait_closed()
        await bbs.report_with(routable(False), seen)
        assert [line.text.split(".")[0] for line in garden.log_of("i-1")] == [
            "Container passed the readiness check",
            "Container failed the readiness check",
        ]
        assert [line.source for line in garden.log_of("i-1")] == ["HEALTH", "HEALTH"]
    assert [container.state for container in garden.containers()] == ["running"]


async def test_without_checks_it_is_routable_as_soon_as_it_runs(tmp_path: Path, bbs: FakeBBS) -> None:
    async with running_cell(tmp_path, FakeGarden(), bbs) as cell:
        assert (await cell.work.run_instance(call(), work())).routable
        await cell.sync.report()
        await bbs.report_with(routable(True))


async def test_a_restart_does_not_take_a_ready_one_out(tmp_path: Path, bbs: FakeBBS, port: int) -> None:
    garden = FakeGarden()
    async with await listening(port):
        async with running_cell(tmp_path, garden, bbs) as cell:
            await cell.work.run_instance(call(), with_readiness(port))
            await bbs.report_with(routable(True))
        seen = len(bbs.reports.items)
        async with running_cell(tmp_path, garden, bbs):
            await bbs.report_with(routable(True), seen)
            later = bbs.reports.items[seen:]
            assert not any(routable(False)(report) for report in later)
