"""`diego up --simulated` as a user starts it: from nothing to an LRP that runs, and away again without a trace."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from attrs import define

from tests.chain.definitions import lrp

RUN = "import sys; from diego_py.cli.main import run; sys.exit(run(sys.argv[1:]))"
PATIENCE_S = 120.0


@define
class Up:
    """The command, while it runs, and what it said first."""

    process: asyncio.subprocess.Process
    greeting: str

    @property
    def url(self) -> str:
        return self._found(r"✓ (http://\S+)")

    @property
    def directory(self) -> Path:
        return Path(self._found(r"logs: (\S+)/logs"))

    @property
    def pids(self) -> list[int]:
        return [int(pid) for pid in re.findall(r"\(pid (\d+)\)", self.greeting)]

    async def end(self) -> int:
        self.process.send_signal(signal.SIGINT)
        async with asyncio.timeout(PATIENCE_S):
            return await self.process.wait()

    def _found(self, pattern: str) -> str:
        match = re.search(pattern, self.greeting)
        assert match is not None, self.greeting
        return match[1]


@pytest.fixture
async def up() -> AsyncIterator[Up]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", RUN, "up", "--simulated", "--cells", "3", "--bbs-port", "0"),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE_S):
        greeting = await process.stdout.readuntil(b"Ctrl-C ends all of it\n")
    up = Up(process, greeting.decode())
    try:
        yield up
    finally:
        if process.returncode is None:
            await up.end()


async def test_from_nothing_to_an_lrp_that_runs_and_away_again(up: Up) -> None:
    async with aiohttp.ClientSession(up.url) as session:
        async with session.post("/v1/desired_lrps", json=lrp(instances=3)) as answer:
            assert answer.status == 201
            cells = {actual["cell_id"] for actual in (await answer.json())["actual_lrps"]}
        async with session.post("/v1/desired_lrps", json=lrp("huge", memory_mb=99_999)) as answer:
            assert answer.status == 503
            assert (await answer.json())["code"] == "auction.no_cell_fits"
    assert cells == {"sim-00001", "sim-00002", "sim-00003"}
    directory, pids = up.directory, up.pids
    assert directory.is_dir()
    assert len(pids) == 2
    assert await up.end() == 0
    assert not directory.exists()
    assert not any(Path("/proc", str(pid)).exists() for pid in pids)


@pytest.mark.parametrize("option", ["--keep", "--image-root=/tmp"])
async def test_what_says_nothing_of_simulated_cells_is_refused(option: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", RUN, "up", "--simulated", option, stderr=asyncio.subprocess.PIPE
    )
    _, said = await process.communicate()
    assert process.returncode == 2
    assert b"says nothing of simulated cells" in said
