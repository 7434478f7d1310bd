"""What the child that unpacks may do, looked at from outside while it waits for the rest of its archive."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import FileIO
from pathlib import Path

import pytest

from cells.garden import processes
from cells.garden.images.unpack import Owner, Unpacked, UnpackLimits, extract
from diego_py.errors import ArchiveTooLarge
from tests.fakes import sparse
from tests.kernel.images import member, tar, until
from tests.slowness import patient

pytestmark = pytest.mark.kernel

CAPABILITIES = {"CHOWN": 0, "DAC_OVERRIDE": 1, "FOWNER": 3, "FSETID": 4, "SETFCAP": 31}
ARCHIVE = tar(member("directory/"), member("file", b"content", mode=0o4750, uid=7, gid=8))


Child = tuple[int, asyncio.Future[list[Unpacked]], FileIO]


@asynccontextmanager
async def waiting(target: Path, limits: UnpackLimits) -> AsyncIterator[Child]:
    """A child that has seen one entry: its pid, the work it is for, and where the rest of the archive goes."""
    read, write = os.pipe()
    with open(read, "rb"), open(write, "wb", buffering=0) as rest:
        rest.write(ARCHIVE[:512])
        work = asyncio.gather(extract(read, "tar", target, limits))
        await until((target / "directory").exists)
        [pid] = processes.mentioning(f"parent={os.getpid()}")
        yield pid, work, rest


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


async def test_the_child_is_confined(host_sweep: None, tmp_path: Path) -> None:
    async with waiting(tmp_path, UnpackLimits()) as (pid, work, rest):
        status = status_of(pid)
        mask = sum(1 << number for number in CAPABILITIES.values())
        assert {name: int(status[name], 16) for name in ("CapPrm", "CapEff", "CapBnd")} == {
            "CapPrm": mask,
            "CapEff": mask,
            "CapBnd": mask,
        }
        assert {status[name] for name in ("CapInh", "CapAmb")} == {"0" * 16}
        assert status["NoNewPrivs"] == "1"
        assert os.readlink(f"/proc/{pid}/root") == str(tmp_path)
        for kind in ("net", "ipc"):
            assert os.readlink(f"/proc/{pid}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")
        inside = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
        assert {place for place in inside if place.startswith("/")} == {str(tmp_path)}
        limits = Path(f"/proc/{pid}/limits").read_text()
        for name in ("Max cpu time", "Max file size", "Max address space", "Max processes", "Max open files"):
            [line] = [line for line in limits.splitlines() if line.startswith(name)]
            assert "unlimited" not in line
        rest.write(ARCHIVE[512:])
        rest.close()
        assert (await work)[0].entries == 2
    assert not Path(f"/proc/{pid}").exists()


async def test_whoever_gives_up_leaves_no_child(host_sweep: None, tmp_path: Path) -> None:
    async with waiting(tmp_path, UnpackLimits()) as (pid, work, _):
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        assert not Path(f"/proc/{pid}").exists()


async def test_one_that_takes_too_long_is_ended(host_sweep: None, tmp_path: Path) -> None:
    async with waiting(tmp_path, UnpackLimits(wall_s=patient(1.0))) as (pid, work, _):
        with pytest.raises(ArchiveTooLarge, match=f"not done in {patient(1):.0f} s"):
            await work
        assert not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize(
    ("ids", "owner"), [(Owner(1000, 1001), (1000, 1001)), (500_000, (500_007, 500_008)), (0, (7, 8))]
)
async def test_whose_the_files_become(
    host_sweep: None, tmp_path: Path, ids: Owner | int, owner: tuple[int, int]
) -> None:
    """Also into a directory that is given by descriptor, and never with the bits that lend rights."""
    (tmp_path / "archive").write_bytes(ARCHIVE)
    target = tmp_path / "target"
    target.mkdir()
    archive, directory = os.open(tmp_path / "archive", os.O_RDONLY), os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    try:
        await extract(archive, "tar", directory, ids=ids)
    finally:
        os.close(archive)
        os.close(directory)
    status = (target / "file").stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (*owner, 0o750)
    assert (target / "file").read_bytes() == b"content"


@pytest.mark.parametrize("way", sparse.WAYS)
async def test_holes_stay_holes(host_sweep: None, tmp_path: Path, way: str) -> None:
    """They take no disk, but count as what they look like: whoever reads the file meets them."""
    packed = sparse.entry(way, [(0, 5), (3 << 20, 6)], 64 << 20, b"beginmiddle") + bytes(1024)
    (tmp_path / "archive").write_bytes(packed)
    target = tmp_path / "target"
    target.mkdir()
    with (tmp_path / "archive").open("rb") as archive:
        made = await extract(archive.fileno(), "layer", target)
    status = (target / "sparse").stat()
    assert (status.st_size, made.size_bytes, made.disk_bytes) == (64 << 20, 64 << 20, 8192)
    assert status.st_blocks * 512 < 1 << 20
    content = (target / "sparse").read_bytes()
    assert (content[:5], content[3 << 20 :][:6], content.count(0)) == (b"begin", b"middle", (64 << 20) - 11)
    for limit in (UnpackLimits(bytes_max=(64 << 20) - 1), UnpackLimits(bytes_max=1 << 20)):
        with (tmp_path / "archive").open("rb") as archive, pytest.raises(ArchiveTooLarge):
            await extract(archive.fileno(), "layer", target, limit)
