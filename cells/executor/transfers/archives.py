"""From an archive nobody trusts to the tar stream that a container takes: unpacked in between by garden's own child."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import IO, Final

from cells.executor.transfers.disk import disk_errors
from cells.garden import children
from cells.garden.children import in_thread
from cells.garden.images.unpack import Kind, Owner, UnpackLimits, extract
from diego_py.errors import TransfersBroken

READ_BYTES: Final = 256 * 1024
GZIP: Final = b"\x1f\x8b"
ZIP: Final = (b"PK\x03\x04", b"PK\x05\x06")
PREFIX: Final = "unpacked-"
PACK: Final = ("tar", "--create", "--file=-", "--format=pax", "--hard-dereference", "--numeric-owner", ".")


def kind_of(file: IO[bytes]) -> Kind:
    """What an archive is by its first bytes; a tar where they say nothing else."""
    first = os.pread(file.fileno(), 4, 0)
    if first.startswith(GZIP):
        return "tgz"
    return "zip" if first in ZIP else "tar"


@asynccontextmanager
async def unpacked(file: IO[bytes], directory: Path, limits: UnpackLimits) -> AsyncIterator[AsyncIterator[bytes]]:
    """The tar stream of what is in an archive. Raises ArchiveUnsafe and its like, NoSpace, TransfersBroken."""
    with disk_errors(directory):
        staging = Path(tempfile.mkdtemp(prefix=PREFIX, dir=directory))
    try:
        with disk_errors(directory):
            file.seek(0)
            os.lseek(file.fileno(), 0, os.SEEK_SET)
            await extract(file.fileno(), kind_of(file), staging, limits, Owner(0, 0))
        async with aclosing(_packed(staging)) as stream:
            yield stream
    finally:
        await in_thread(shutil.rmtree, staging)


async def _packed(directory: Path) -> AsyncGenerator[bytes, None]:
    child = await children.spawn(
        children.bound_to_us(PACK),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        cwd=directory,
    )
    assert child.stdout is not None
    try:
        while chunk := await child.stdout.read(READ_BYTES):
            yield chunk
        status = await child.wait()
    finally:
        if child.returncode is None:
            child.kill()
            await children.uninterrupted(child.wait())
    if status != 0:
        raise TransfersBroken("pack what was unpacked", evidence={"status": status})
