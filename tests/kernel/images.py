"""Images made in memory: layers out of a few words, and a source of them that can be held and made to fail."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Sequence
from itertools import repeat
from pathlib import Path

from attrs import define, field

from cells.garden.images.source import Image, ImageConfig, Layer
from diego_py.call import Call

GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"


def member(name: str, content: bytes = b"", **more: object) -> tuple[tarfile.TarInfo, bytes]:
    """An entry: a file unless `type` says otherwise; a directory when its name ends with a slash."""
    info = tarfile.TarInfo(name.rstrip("/") if name != "/" else "./")
    info.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
    info.mode = 0o755
    info.size = len(content)
    for key, value in more.items():
        setattr(info, key, value)
    return info, content


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=kind, linkname=target)


def tar(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def busybox() -> list[tuple[tarfile.TarInfo, bytes]]:
    """What a base layer needs to run a shell."""
    program = Path(shutil.which("busybox") or "busybox").read_bytes()
    applets = subprocess.run(["busybox", "--list"], check=True, capture_output=True, text=True).stdout.split()
    return [
        *(member(name) for name in ("bin/", "etc/", "root/", "dev/", "proc/", "sys/")),
        member("tmp/", mode=0o1777),
        member("bin/busybox", program),
        *(link(f"bin/{applet}", "busybox") for applet in applets if applet != "busybox"),
        member("etc/passwd", b"root:x:0:0::/root:/bin/sh\nalice:x:1001:1001::/home/alice:/bin/sh\n", mode=0o644),
    ]


async def until(condition: Callable[[], bool]) -> None:
    """Return as soon as it is true; it is looked at whenever the event loop has nothing else to do."""
    for _ in repeat(None):
        if condition():
            return
        await asyncio.sleep(0)


@define
class MemorySource:
    """One image. `hold` stops every fetch until it is set; `failures` are raised by layer number."""

    blobs: Sequence[bytes]
    """Tar archives, the lowest first."""
    config: ImageConfig = field(factory=ImageConfig)
    hold: asyncio.Event | None = None
    failures: dict[int, Exception] = field(factory=dict)
    fetched: list[int] = field(factory=list)
    ended: list[int] = field(factory=list)
    diff_ids: dict[int, str] = field(factory=dict)
    """What the configuration says, where that is not the truth."""
    announced_bytes: int | None = None
    raw: bool = False
    """The blobs are as they are transferred."""

    async def resolve(self, call: Call) -> Image:
        layers = [
            Layer(
                _digest(blob),
                self.diff_ids.get(number, _digest(blob)),
                self.announced_bytes or len(self._packed(blob)),
                GZIP,
            )
            for number, blob in enumerate(self.blobs)
        ]
        return Image("test", _digest(b"".join(self.blobs)), self.config, tuple(layers))

    async def fetch(self, call: Call, layer: Layer, into: Path) -> None:
        number = next(n for n, blob in enumerate(self.blobs) if _digest(blob) == layer.digest)
        self.fetched.append(number)
        try:
            if self.hold is not None:
                await self.hold.wait()
            if number in self.failures:
                raise self.failures[number]
            into.write_bytes(self._packed(self.blobs[number]))
        finally:
            self.ended.append(number)

    def _packed(self, blob: bytes) -> bytes:
        return blob if self.raw else gzip.compress(blob, 1)


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()
