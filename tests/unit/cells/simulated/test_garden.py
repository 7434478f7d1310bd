"""The simulated garden keeps the contract of container backends: as it is shipped, and with what tests add to it."""

import asyncio
from random import Random

import pytest

from cells.simulated.conduct import Conduct, Latency
from cells.simulated.garden import SimulatedGarden
from diego_py.errors import SandboxFailed
from diego_py.service.clock import SystemClock
from tests.contract.backend_contract import CONTRACTS, Contract, call, shell, started
from tests.fakes.garden import FakeGarden


@pytest.mark.parametrize("kind", [SimulatedGarden, FakeGarden])
@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.__name__)
async def test_contract(contract: Contract, kind: type[SimulatedGarden]) -> None:
    garden = kind()
    await garden.start()
    await contract(garden, "h-1", "preloaded:base")
    assert garden.containers() == []


async def test_what_fails_by_chance_leaves_nothing() -> None:
    garden = SimulatedGarden(conduct=Conduct(SystemClock(), Random(1), failure_rates={"create": 1.0}))
    with pytest.raises(SandboxFailed):
        await garden.create(call(), shell("h-1", "preloaded:base", "sleep 1"))
    assert garden.containers() == []


async def test_a_program_that_is_not_understood_runs_until_it_is_stopped() -> None:
    garden = SimulatedGarden()
    await started(garden, "h-1", "preloaded:base", "make coffee; exit 1")
    assert garden.activity("h-1") == "waiting"
    assert (await garden.stop(call(), "h-1", 0.0)).signal == 15


async def test_who_follows_reads_each_line_once() -> None:
    garden = SimulatedGarden()
    await started(garden, "h-1", "preloaded:base", "echo one; sleep 1")
    read: list[str] = []

    async def follow() -> None:
        async for line in garden.logs("h-1", 10, follow=True):
            read.append(line.text)
            if line.text == "one":
                garden.write("h-1", "two")
                garden.write("h-1", "three")
                garden.end("h-1", 0)

    async with asyncio.timeout(30):
        await follow()
    assert read == ["one", "two", "three"]


def test_a_latency_has_the_percentiles_that_were_asked_for() -> None:
    random, latency = Random(7), Latency.parse("20,80")
    drawn = sorted(latency.draw_s(random) * 1000 for _ in range(4_001))
    assert 19 < drawn[2_000] < 21
    assert 65 < drawn[3_960] < 97


@pytest.mark.parametrize("text", ["", "x", "5,4", "1,2,3", "-1", "nan"])
def test_what_is_no_latency_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whatever it says
        Latency.parse(text)
