"""Files with content in the container, such as service bindings. They are in memory, and in no log and no record."""

from __future__ import annotations

import io
import posixpath
import tarfile
from collections.abc import AsyncIterator

from attrs import field, frozen

from cells.executor.steps.step import Site
from diego_py.call import Call
from diego_py.secret import Secret

CHUNK_BYTES = 64 * 1024
FILE_MODE = 0o444
DIRECTORY_MODE = 0o755


@frozen
class File:
    """One file; its path is relative."""

    path: str
    content: Secret = field(repr=False)


@frozen
class MountedFiles:
    """Put files below a directory of the container, as one of its users."""

    directory: str
    files: tuple[File, ...]
    user: str

    async def perform(self, call: Call, site: Site) -> None:
        """Raises what garden's `stream_in` does."""
        await site.garden.stream_in(call, site.handle, self.directory, _chunks(_archive(self.files)), self.user)


def _archive(files: tuple[File, ...]) -> bytes:
    """A tar archive with the files, and the directories that they need."""
    packed, made = io.BytesIO(), set[str]()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for file in files:
            for directory in _above(file.path):
                if directory not in made:
                    made.add(directory)
                    member = tarfile.TarInfo(directory)
                    member.type, member.mode = tarfile.DIRTYPE, DIRECTORY_MODE
                    archive.addfile(member)
            content = file.content.reveal().encode("utf-8", "surrogatepass")
            member = tarfile.TarInfo(file.path)
            member.size, member.mode = len(content), FILE_MODE
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def _above(path: str) -> list[str]:
    steps = posixpath.dirname(path).split("/") if "/" in path else []
    return ["/".join(steps[: number + 1]) for number in range(len(steps))]


async def _chunks(archive: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(archive), CHUNK_BYTES):
        yield archive[at : at + CHUNK_BYTES]
