"""The bytes of an archive, decompressed as they are asked for, counted and hashed; a chunk in memory, never more."""

from __future__ import annotations

import os
import sys

from cells.garden.images.unpacker.refusal import CORRUPT, TOO_LARGE, UNSUPPORTED, Limits, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CHUNK = 256 * 1024
LZMA_BYTES_MAX = 128 * 1024 * 1024
"""Memory that an xz stream may ask for."""
ZSTD_WINDOW_LOG_MAX = 27
"""The same for zstd, as a power of two: what its own program takes unless it is told otherwise."""
MEMORY_WORDS = ("Memory usage limit", "requires too much memory")
"""How liblzma and libzstd say that a stream asks for more."""
MAGICS = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    *((bytes((first,)) + b"\x2a\x4d\x18", "zstd") for first in range(0x50, 0x60)),  # A frame that is to be skipped.
)


def compression_of(start: bytes) -> str:
    """What the first bytes say; `none` for all that is not known."""
    return next((name for magic, name in MAGICS if start.startswith(magic)), "none")


class Stream:
    """Reads forward only. `fd` gives the compressed bytes."""

    def __init__(self, fd: int, allowed: tuple[str, ...], limits: Limits, digest: Any = None) -> None:
        self._fd = fd
        self._limits = limits
        self._digest = digest
        self._waiting = self._read(16)
        self.compression = compression_of(self._waiting)
        if self.compression not in allowed:
            raise Refused(UNSUPPORTED, f"compression {self.compression}; this release reads {', '.join(allowed)}")
        self._new, self._broken = _decoder(self.compression)
        self._decoder = self._new()
        self._ready = b""
        self._at = 0
        self.bytes_in = len(self._waiting)
        self.bytes_out = 0

    def _read(self, size: int) -> bytes:
        data = os.read(self._fd, size)
        while data and len(data) < min(size, 16) and (more := os.read(self._fd, size - len(data))):
            data += more
        return data

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; none only at the end."""
        if self._at >= len(self._ready):
            self._ready = self._next()
            self._at = 0
        taken = self._ready[self._at : self._at + size]
        self._at += len(taken)
        return taken

    def exactly(self, size: int, what: str) -> bytes:
        """All `size` bytes. Raises Refused when there are fewer."""
        parts = []
        while size:
            part = self.read(size)
            if not part:
                raise Refused(CORRUPT, f"it ends in {what}")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def skip(self, size: int) -> None:
        while size:
            part = self.read(min(size, CHUNK))
            if not part:
                raise Refused(CORRUPT, "it ends in the content of an entry")
            size -= len(part)

    def drain(self) -> None:
        """Read what comes after the end of the archive: it belongs to the digest, and a torn stream shows itself."""
        while self.read(CHUNK):
            pass

    def _next(self) -> bytes:
        data = self._decompress()
        self.bytes_out += len(data)
        if self._digest is not None:
            self._digest.update(data)
        limits = self._limits
        if self.bytes_out > limits.stream_bytes_max:
            raise Refused(TOO_LARGE, f"more than {limits.bytes_max} bytes unpacked")
        if self.bytes_out > limits.ratio_free_bytes and self.bytes_out > limits.ratio_max * self.bytes_in:
            raise Refused(TOO_LARGE, f"more than {limits.ratio_max} times as large as its compressed form")
        return data

    def _decompress(self) -> bytes:
        while True:
            if not self._waiting and not (self._decoder is not None and self._decoder.busy):
                self._waiting = os.read(self._fd, CHUNK)
                self.bytes_in += len(self._waiting)
                if not self._waiting:
                    if self._decoder is not None and not self._decoder.may_end:
                        raise Refused(CORRUPT, f"its {self.compression} stream ends too early")
                    return b""
            if self._decoder is None and not self._begin_member():
                continue
            assert self._decoder is not None
            try:
                data: bytes = self._decoder.feed(self._waiting)
            except self._broken as broken:
                if any(words in str(broken) for words in MEMORY_WORDS):
                    raise Refused(TOO_LARGE, f"its {self.compression} stream asks for too much memory") from broken
                raise Refused(CORRUPT, f"its {self.compression} stream is damaged") from broken
            self._waiting = b""
            if self._decoder.ended:
                self._waiting = self._decoder.rest
                self._decoder = None
            if data:
                return data

    def _begin_member(self) -> bool:
        """After one compressed member: another one, or padding of zeros. False: nothing of a member is here."""
        self._waiting = self._waiting.lstrip(b"\0")
        if not self._waiting:
            return False
        self._decoder = self._new()
        return True


class _Plain:
    may_end = True
    busy = ended = False
    rest = b""

    def feed(self, data: bytes) -> bytes:
        return data


class _Zlib:
    def __init__(self, kind: Any) -> None:
        self._inner = kind(31)
        self._tail = b""

    def feed(self, data: bytes) -> bytes:
        out: bytes = self._inner.decompress(self._tail + data, CHUNK)
        self._tail = self._inner.unconsumed_tail
        return out

    @property
    def busy(self) -> bool:
        return bool(self._tail)

    @property
    def ended(self) -> bool:
        return bool(self._inner.eof)

    @property
    def may_end(self) -> bool:
        return False

    @property
    def rest(self) -> bytes:
        return bytes(self._inner.unused_data)


class _Other:
    """bzip2, xz and a frame of zstd, whose decompressors in the standard library are alike."""

    may_end = False

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def feed(self, data: bytes) -> bytes:
        return bytes(self._inner.decompress(data, CHUNK))

    @property
    def busy(self) -> bool:
        return not self._inner.needs_input

    @property
    def ended(self) -> bool:
        return bool(self._inner.eof)

    @property
    def rest(self) -> bytes:
        return bytes(self._inner.unused_data)


def _decoder(compression: str) -> Any:
    """How to begin a member, and what its errors are."""
    if compression == "gzip":
        import zlib

        return lambda: _Zlib(zlib.decompressobj), (zlib.error,)
    if compression == "bzip2":
        import bz2

        return lambda: _Other(bz2.BZ2Decompressor()), (OSError, ValueError)
    if compression == "xz":
        import lzma

        return lambda: _Other(lzma.LZMADecompressor(memlimit=LZMA_BYTES_MAX)), (lzma.LZMAError,)
    if compression == "zstd":
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd

        options = {int(zstd.DecompressionParameter.window_log_max): ZSTD_WINDOW_LOG_MAX}
        return lambda: _Other(zstd.ZstdDecompressor(options=options)), (zstd.ZstdError,)
    return _Plain, ()
