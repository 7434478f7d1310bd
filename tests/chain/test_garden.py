"""Garden's hop and the OCI runtime's: what the host refuses while a container is made, each time undone to the last."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from attrs import define

from cells.garden.garden import Garden
from diego_py.call import Call
from diego_py.errors import DestroyFailed
from tests.chain.awaited import until
from tests.chain.definitions import lrp
from tests.chain.expected import Expected, failed, nothing_in_books
from tests.chain.installation import Installation

pytestmark = [pytest.mark.chain, pytest.mark.kernel]

TO_GARDEN = ("bbs", "auction", "rep", "garden")
TO_RUNC = (*TO_GARDEN, "runc")
TWICE = (*TO_GARDEN, "rep", "garden")
"""Two cells tried, neither could."""


@pytest.fixture
def fleeting(image_root: Path) -> Path:
    """A rootfs that a test takes away."""
    path = image_root / "fleeting"
    path.symlink_to("busybox")
    return path


async def test_the_rootfs_is_gone_since_the_auction(two_cells: Installation, fleeting: Path) -> None:
    for node in two_cells.nodes.values():
        await node.report()
    fleeting.unlink()
    answer = await two_cells.desire(lrp(rootfs="preloaded:fleeting"))
    expected = Expected(code="garden.rootfs_not_found", hops=TWICE, evidence=("rootfs", "present"))
    document = await failed(two_cells, answer, expected)
    assert document["evidence"]["rootfs"] == "preloaded:fleeting"
    assert "busybox" in document["evidence"]["present"]
    assert [frame["attempt"] for frame in document["chain"] if "attempt" in frame] == [1, 2]


async def test_the_rootfs_is_gone_from_one_cell(
    installation: Installation, fleeting: Path, open_directory: Path
) -> None:
    own_images = open_directory / "images"
    own_images.mkdir()
    (own_images / "fleeting").symlink_to(fleeting.resolve())
    await installation.start_cell(1)
    await installation.start_cell(2, image_root=str(own_images))
    fleeting.unlink()
    answer = await installation.desire(lrp(rootfs="preloaded:fleeting"))
    assert answer.status == 201, answer.body
    assert answer.json["actual_lrps"][0]["cell_id"] == "cell-2"


UNMOUNTABLE = lrp(rootfs="preloaded:unmountable", run_user="0:0")


async def test_the_root_cannot_be_mounted(one_cell: Installation) -> None:
    expected = Expected(code="garden.mount_failed", hops=TO_GARDEN, evidence=("errno", "at"))
    document = await failed(one_cell, await one_cell.desire(UNMOUNTABLE), expected)
    assert document["evidence"]["errno"] == "EINVAL"
    assert (document["fault"], document["retryable"]) == ("platform", False)
    assert "rootfs" in [step["op"] for step in document["chain"][-1]["steps"]], "which step it was"


async def test_the_root_cannot_be_mounted_anywhere(two_cells: Installation) -> None:
    """What failed on the cells is the answer, and not that no further cell is left to try."""
    expected = Expected(code="garden.mount_failed", hops=TWICE, evidence=("errno", "at"))
    document = await failed(two_cells, await two_cells.desire(UNMOUNTABLE), expected)
    assert document["placement"]["verdicts"] == {"tried": 2}


async def test_the_network_cannot_be_connected(installation: Installation) -> None:
    """Somebody else's routes are in the way."""
    node = await installation.start_cell(1, sandboxes_ready=0)
    prefix = node.layout.network.rpartition(".")[0]
    routes = [f"{prefix}.{number}/32" for number in range(256)]
    _ip_batch(f"route add {route} dev lo" for route in routes)
    try:
        answer = await installation.desire(lrp())
    finally:
        _ip_batch(f"route del {route} dev lo" for route in routes)
    expected = Expected(code="garden.network_failed", hops=TO_GARDEN, evidence=("errno", "address"))
    document = await failed(installation, answer, expected)
    assert document["evidence"]["errno"] == "EEXIST"
    assert "sandbox" in [step["op"] for step in document["chain"][-1]["steps"]]


def _ip_batch(commands: Any) -> None:
    subprocess.run(["ip", "-batch", "-"], input="\n".join(commands), text=True, check=True, capture_output=True)


async def test_no_host_port_is_left(installation: Installation) -> None:
    await installation.start_cell(1, port_count=1)
    expected = Expected(code="garden.pool_exhausted", hops=TO_GARDEN, evidence=("pool", "size", "taken"))
    document = await failed(installation, await installation.desire(lrp(ports=[80, 81])), expected)
    assert document["fault"] == "capacity"


PROGRAMS = {"runtime_path": "runc", "conmon_path": "conmon"}


@pytest.mark.parametrize("setting", PROGRAMS)
async def test_a_program_is_missing(installation: Installation, open_directory: Path, setting: str) -> None:
    program = open_directory / PROGRAMS[setting]
    program.write_text(f'#!/bin/sh\nexec {PROGRAMS[setting]} "$@"\n')  # Of what is no script the cell has a copy.
    program.chmod(0o755)
    await installation.start_cell(1, **{setting: str(program)})
    program.unlink()
    expected = Expected(code="runtime.missing", hops=TO_RUNC, evidence=("path",))
    document = await failed(installation, await installation.desire(lrp()), expected)
    assert document["evidence"]["path"] == str(program)


BROKEN: dict[str, tuple[str, str]] = {
    "runtime_path": ("echo the moon is full >&2\nexit 1", "the moon is full"),
    "conmon_path": ("echo no monitor today >&2\nexit 1", "no monitor today"),
}


@pytest.mark.parametrize("setting", BROKEN)
async def test_a_program_fails(installation: Installation, open_directory: Path, setting: str) -> None:
    """Its own words are the detail, and evidence."""
    script, words = BROKEN[setting]
    program = open_directory / PROGRAMS[setting]
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    await installation.start_cell(1, **{setting: str(program)})
    expected = Expected(code="runtime.failed", hops=TO_RUNC, evidence=("runtime_log", "stderr"))
    document = await failed(installation, await installation.desire(lrp()), expected)
    assert words in document["detail"]
    assert words in document["evidence"]["stderr"]["text"]


@define
class Sticky:
    """A garden that removes nothing as long as it refuses."""

    garden: Garden
    refuses: bool = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self.garden, name)

    async def destroy(self, call: Call, handle: str, grace_s: float = 0.0) -> None:
        if self.refuses:
            raise DestroyFailed(f"unmount the root of {handle}")
        await self.garden.destroy(call, handle, grace_s)


async def test_what_cannot_be_undone_is_told_and_removed_later(one_cell: Installation) -> None:
    """The app's failure names the problem; that its container is still there is in outcome and evidence."""
    node = one_cell.nodes["cell-1"]
    node.cell.work.executor.garden = sticky = Sticky(node.garden)
    answer = await one_cell.desire(lrp(script="exit 4"))
    assert (answer.status, answer.json["code"], answer.json["outcome"]) == (500, "app.exited", "partial")
    (remaining,) = answer.json["evidence"]["left"]
    assert remaining["code"] == "garden.destroy_failed"
    assert remaining["handle"] == answer.json["subject"]["instance_guid"]
    assert len(node.garden.containers()) == 1
    available = node.cell.work.books.reservations.available()
    assert available.memory_mb == node.config.memory_mb - 64, "what is still there takes room"
    sticky.refuses = False

    async def gone() -> bool:
        await node.report()
        return not node.garden.containers()

    await until("the report brought the order to remove it", gone)
    nothing_in_books(one_cell)
