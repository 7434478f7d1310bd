"""A blob while it comes: written beside its place, hashed on the way, moved there when its digest fits. Blocking."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from attrs import define, field

from cells.garden.images.image import Layer
from diego_py.errors import ImageCorrupt

if TYPE_CHECKING:
    from hashlib import _Hash

SUFFIX = ".part"
READ_BYTES = 4 * 1024 * 1024


@define
class PartialBlob:
    """The bytes of one layer that are there already. `open` it first; every method may raise OSError."""

    layer: Layer
    into: Path
    size: int = field(default=0, init=False)
    """Bytes that are there."""
    most: int = field(default=0, init=False)
    """The most that ever were there since it was opened: starting over is no progress."""
    pieced: bool = field(default=False, init=False)
    """Whether the bytes came in more than one piece, perhaps of different blobs."""
    _fd: int = field(default=-1, init=False)
    _hash: _Hash = field(factory=hashlib.sha256, init=False)

    def open(self) -> PartialBlob:
        """Take up what an earlier fetch left."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._fd = os.open(self.path, flags, 0o600)
        if os.fstat(self._fd).st_size > self.layer.size:
            self.discard()
        while content := os.pread(self._fd, READ_BYTES, self.size):
            self._hash.update(content)
            self.size += len(content)
            self.pieced = True
        self.most = self.size
        if self.size == self.layer.size and not self.fits():
            self.discard()
        return self

    @property
    def path(self) -> Path:
        return self.into.with_name(self.into.name + SUFFIX)

    def write(self, content: bytes) -> None:
        """Add bytes. Raises ImageCorrupt when they are more than the layer has."""
        if self.size + len(content) > self.layer.size:
            raise ImageCorrupt(
                f"layer {self.layer.digest} is longer than it was announced", evidence={"announced": self.layer.size}
            )
        view = memoryview(content)
        while view:
            written = os.pwrite(self._fd, view, self.size)
            self._hash.update(view[:written])
            self.size += written
            view = view[written:]
        self.most = max(self.most, self.size)

    def restart(self) -> None:
        """Begin again because the server does; `most` stays, so that going in circles is no progress."""
        os.ftruncate(self._fd, 0)
        self._hash, self.size, self.pieced = hashlib.sha256(), 0, False

    def discard(self) -> None:
        """Begin again because the bytes are wrong."""
        self.restart()
        self.most = 0

    def fits(self) -> bool:
        """Whether the layer is there, whole and right."""
        return self.size == self.layer.size and self.digest == self.layer.digest

    def finish(self) -> None:
        """Move the blob to its place, so that it survives a loss of power. Raises ImageCorrupt when it does not fit."""
        if not self.fits():
            evidence = {"wanted": self.layer.digest, "got": self.digest, "bytes": self.size}
            raise ImageCorrupt(f"layer {self.layer.digest} has another digest", evidence=evidence)
        os.fsync(self._fd)
        os.rename(self.path, self.into)

    @property
    def digest(self) -> str:
        return "sha256:" + self._hash.hexdigest()

    def __enter__(self) -> PartialBlob:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wrong bytes are removed; what merely is not all stays for the next fetch."""
        os.close(self._fd)
        if isinstance(error, ImageCorrupt):
            with contextlib.suppress(FileNotFoundError):
                self.path.unlink()
