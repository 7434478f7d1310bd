"""The result of a workload that ended: the content of one small file of its container."""

from __future__ import annotations

import io
import tarfile
from contextlib import aclosing

from cells.executor.backend import ContainerBackend
from diego_py.call import Call
from diego_py.errors import DiegoError, Fault, ResultMissing, ResultTooLarge
from diego_py.models.task import RESULT_BYTES_MAX

HEADERS_BYTES_MAX = 64 * 1024
"""Of a tar stream of one file, beside its content: extended attributes, and zeros at the end."""


async def read(call: Call, garden: ContainerBackend, handle: str, path: str) -> str:
    """What the file holds; bytes that are no UTF-8 are replaced. Raises ResultMissing, ResultTooLarge."""
    data = bytearray()
    try:
        async with aclosing(garden.stream_out(call, handle, path)) as chunks:
            async for chunk in chunks:
                data += chunk
                if len(data) > RESULT_BYTES_MAX + HEADERS_BYTES_MAX:
                    break
    except DiegoError as failure:
        if failure.root.fault is Fault.PLATFORM:
            raise
        raise ResultMissing(f"read the result file {path}") from failure
    return _content(bytes(data), path)


def _content(data: bytes, path: str) -> str:
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            member = archive.next()
            if member is None or not member.isreg():
                raise ResultMissing(f"read the result file {path}: it is no file")
            if member.size > RESULT_BYTES_MAX:
                evidence = {"size_bytes": member.size, "limit_bytes": RESULT_BYTES_MAX}
                told = f"read the result file {path}: {member.size} bytes, at most {RESULT_BYTES_MAX} are taken"
                raise ResultTooLarge(told, evidence=evidence)
            file = archive.extractfile(member)
            assert file is not None
            return file.read().decode(errors="replace")
    except tarfile.TarError as garbled:
        raise ResultMissing(f"read the result file {path}: what came makes no sense") from garbled
