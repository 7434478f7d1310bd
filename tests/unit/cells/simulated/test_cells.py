"""Many cells behind one socket: each reports, takes work, refuses what does not fit, and may be lost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from io import StringIO

import pytest

from cells.simulated.app import SimulatedCells
from cells.simulated.config import SimulationConfig
from diego_py.clients.cell import CellClient
from diego_py.errors import CellNotFound, ConnectionLost, InsufficientResources
from diego_py.http.client import HopClient, Peer
from diego_py.models.checks import Check, HTTPCheck
from diego_py.models.identifiers import CellId, InstanceGuid
from diego_py.service.clock import SystemClock
from diego_py.service.config import ConfigError
from diego_py.service.log import logger
from tests.fakes.bbs import FakeBBS
from tests.fakes.cell import call, client_of, work

CELLS = 5


def defect() -> None:
    raise AssertionError("a part met a defect")


@pytest.fixture
async def bbs() -> AsyncIterator[FakeBBS]:
    async with FakeBBS() as bbs:
        yield bbs


@pytest.fixture
async def cells(bbs: FakeBBS) -> AsyncIterator[SimulatedCells]:
    config = SimulationConfig(cells=CELLS, bbs_urls=(bbs.url,), containers_max=2, report_interval_s=0.2)
    cells = SimulatedCells(config, SystemClock(), logger("cells", "sim", StringIO()), defect)
    await cells.start()
    yield cells
    await cells.stop()


def url_of(cells: SimulatedCells, name: str) -> str:
    return cells.listeners[name].url


async def test_each_cell_reports_under_its_own_name(bbs: FakeBBS, cells: SimulatedCells) -> None:
    told = {report.presence.cell_id: report.presence for report in bbs.reports.items}
    assert sorted(told) == [f"sim-{number:05d}" for number in range(1, CELLS + 1)]
    assert {presence.zone for presence in told.values()} == {"z1", "z2", "z3"}
    assert all(presence.url == url_of(cells, name) for name, presence in told.items())
    assert len({presence.home_id for presence in told.values()}) == CELLS


async def test_a_cell_runs_what_it_has_room_for(bbs: FakeBBS, cells: SimulatedCells) -> None:
    name = CellId("sim-00002")
    checks = (Check(http=HTTPCheck(port=8080)),)
    async with client_of() as client:
        for guid in ("i-1", "i-2"):
            told = work(guid, index=int(guid[-1]), checks=checks, ports=(8080,))
            await client.run(call(), name, url_of(cells, name), told, 1)
        with pytest.raises(InsufficientResources) as refused:
            await client.run(call(), name, url_of(cells, name), work("i-3", index=3), 1)
        assert refused.value.frame is not None
        assert (refused.value.frame.hop, refused.value.frame.id) == ("rep", name)
        state = await client.state(call(), name, url_of(cells, name))
        assert {instance.instance_guid for instance in state.instances} == {"i-1", "i-2"}
        await client.stop(call(), name, url_of(cells, name), InstanceGuid("i-1"))
    assert len(cells.cells[name].sync.books.instances) == 1
    assert all(len(cell.sync.books.instances) == 0 for other, cell in cells.cells.items() if other != name)


async def test_a_cell_tells_which_image_it_fetched(cells: SimulatedCells) -> None:
    name = CellId("sim-00003")
    async with client_of() as client:
        await client.run(call(), name, url_of(cells, name), work("i-1", rootfs="docker://registry.test/app#v1"), 1)
        state = await client.state(call(), name, url_of(cells, name))
        assert state.presence.images == ("docker://registry.test/app:v1",)
        other = await client.state(call(), CellId("sim-00001"), url_of(cells, "sim-00001"))
        assert other.presence.images == ()


async def test_what_is_no_cell_is_told_so(cells: SimulatedCells) -> None:
    async with client_of() as client:
        with pytest.raises(CellNotFound):
            await client.state(call(), CellId("sim-9"), f"http://127.0.0.1:{cells.port}/cells/sim-9")


async def test_a_lost_cell_neither_answers_nor_reports_until_it_is_back(bbs: FakeBBS, cells: SimulatedCells) -> None:
    name = CellId("sim-00001")
    http = HopClient()
    here = Peer("simulation", "sim", f"http://127.0.0.1:{cells.port}")
    client = CellClient(http)
    try:
        await http.request(call(), here, "PUT", "/v1/simulation/lost", b'{"cells": ["sim-00001"]}')
        with pytest.raises(ConnectionLost):
            await client.state(call(), name, url_of(cells, name))
        since = len(bbs.reports.items)
        for _ in range(3):
            seen = await bbs.report_with(lambda report: report.presence.cell_id == "sim-00002", since)
            since = bbs.reports.items.index(seen, since) + 1
        told = [report.presence.cell_id for report in bbs.reports.items[since:]]
        assert name not in told
        await http.request(call(), here, "PUT", "/v1/simulation/lost", b'{"cells": []}')
        await bbs.report_with(lambda report: report.presence.cell_id == name, since)
        assert (await client.state(call(), name, url_of(cells, name))).presence.cell_id == name
    finally:
        await http.close()


def test_what_cannot_be_simulated_is_refused() -> None:
    latencies = [{"latencies": {"fly": "1"}}, {"latencies": {"run": "x"}}]
    for wrong in ({"cells": 0}, *latencies, {"failure_rates": {"run": 2}}):
        with pytest.raises(ConfigError):
            SimulationConfig(bbs_urls=(), **wrong)  # type: ignore[arg-type]
