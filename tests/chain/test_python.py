"""The chain in Python: ten lines of a program, and one traceback that shows every hop."""

from __future__ import annotations

import asyncio
import sys

import pytest

import diego_py
from diego_py.clients.bbs import BbsClient
from diego_py.errors import (
    DesireFailed,
    DiegoError,
    ExecNotFound,
    GardenFailed,
    InsufficientResources,
    MountFailed,
    NoCellFits,
    PlacementFailed,
    RepFailed,
)
from tests.chain.definitions import lrp
from tests.chain.installation import Installation

pytestmark = [pytest.mark.chain, pytest.mark.kernel]

PROGRAM = """\
import sys
import diego_py

with diego_py.connect(sys.argv[1]) as bbs:
    placed = bbs.desire({
        "process_guid": "web", "domain": "shop", "rootfs": "preloaded:busybox",
        "action": {"run": {"path": "/bin/nope", "user": "root"}},
    })
    print("running on", placed.actual_lrps[0].cell_id)
"""


async def run(program: str, *arguments: str) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        program,
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(90):
        out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def test_a_traceback_shows_all_hops(one_cell: Installation) -> None:
    status, out, traceback = await run(PROGRAM, one_cell.url)
    assert (status, out) == (1, "")
    for kind in (DesireFailed, PlacementFailed, RepFailed, GardenFailed, ExecNotFound):
        assert f"diego_py.errors.{kind.__module__.rpartition('.')[2]}.{kind.__name__}: " in traceback, kind
    positions = [traceback.index(f".{kind.__name__}: ") for kind in (ExecNotFound, GardenFailed, RepFailed)]
    assert positions == sorted(positions), "innermost first, as Python does it"
    for hop in ("[bbs bbs-1]", "[auction bbs-1]", "[rep cell-1]", "[garden cell-1]", "[runc cell-1]"):
        assert hop in traceback
    assert traceback.count("The above exception was the direct cause of the following exception") >= 4
    assert "Traceback" not in traceback.split(".DesireFailed: ")[1], "the outermost comes last"


async def test_the_same_program_when_all_is_well(one_cell: Installation) -> None:
    good = PROGRAM.replace('"/bin/nope"', '"/bin/sleep", "args": ["1000"]')
    status, out, err = await run(good, one_cell.url)
    assert (status, out, err) == (0, "running on cell-1\n", "")


async def test_causes_are_found_by_their_class(two_cells: Installation) -> None:
    """`except` for the hop, `find` for a cause however far away it was."""
    async with BbsClient(two_cells.url) as bbs:
        with pytest.raises(DesireFailed) as caught:
            await bbs.desire(lrp(rootfs="preloaded:unmountable", run_user="0:0"))
        error: DiegoError = caught.value
        mount = error.find(MountFailed)
        assert mount is not None
        assert mount is error.root
        assert mount.evidence is not None
        assert mount.evidence["errno"] == "EINVAL"
        assert mount.frame is not None
        assert (mount.frame.hop, mount.frame.id) == ("garden", "cell-2")
        placement = error.find(PlacementFailed)
        assert placement is not None
        (first,) = placement.attempts
        first_mount = first.find(MountFailed)
        assert first_mount is not None
        assert first_mount.frame is not None
        assert first_mount.frame.id == "cell-1"
        assert error.problem["instance"].startswith("/v1/failures/")
        assert error.find(InsufficientResources) is None


async def test_without_asyncio(one_cell: Installation) -> None:
    def synchronous() -> None:
        with diego_py.connect(one_cell.url) as bbs:
            with pytest.raises(DesireFailed) as caught:
                bbs.desire(lrp("big", memory_mb=9_999))
            refused = caught.value.find(NoCellFits)
            assert refused is not None
            assert caught.value.retry_after_s == 1.0
            assert caught.value.placement is not None
            placed = bbs.desire(lrp())
            assert placed.actual_lrps[0].cell_id == "cell-1"
            assert bbs.delete("web").stopped == 1

    await asyncio.to_thread(synchronous)
