"""Reading a gzip file from anywhere gives what reading it from the begin gives."""

from __future__ import annotations

import gzip
import os
import random
import tempfile
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cells.garden.images import gzip_file
from cells.garden.images.gzip_file import GzipFile, NoteTaker
from diego_py.errors import ImageCorrupt

RNG = random.Random(3)
CONTENT = b"".join(RNG.choice([RNG.randbytes(3_000), b"text " * 900, bytes(20_000)]) for _ in range(100))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that there is much to note of little."""
    monkeypatch.setattr(gzip_file, "SPACING_BYTES_MIN", 10_000)
    monkeypatch.setattr(gzip_file, "NOTES_MAX", 16)
    monkeypatch.setattr(gzip_file, "CHUNK_BYTES", 4_000)
    monkeypatch.setattr(gzip_file, "READ_BYTES", 1_000)


def heed() -> None:
    """There is always somebody waiting."""


def opened(packed: bytes, then: Callable[[int], None]) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(packed)
        file.flush()
        then(file.fileno())


def packed_in(members: int, padding: int = 0) -> bytes:
    step = -(-len(CONTENT) // members)
    parts = [CONTENT[at : at + step] for at in range(0, len(CONTENT), step)]
    return (bytes(padding)).join(gzip.compress(part, 6) for part in parts) + bytes(padding)


reads = st.lists(st.tuples(st.integers(0, len(CONTENT) + 10), st.integers(0, 9_000)), max_size=30)


@settings(deadline=None, max_examples=30)
@given(reads, st.sampled_from([(1, 0), (7, 0), (5, 3), (3, 5_000)]))
def test_any_place(places: list[tuple[int, int]], made: tuple[int, int]) -> None:
    def look(fd: int) -> None:
        taker = NoteTaker(fd, heed)
        assert taker.read(len(CONTENT) // 2) == CONTENT[: len(CONTENT) // 2]
        notes = taker.finish()
        assert (notes.size, len(notes.notes) <= 17) == (len(CONTENT), True)
        file = GzipFile(fd, notes)
        for offset, count in places:
            got = b""
            while len(got) < count and (part := file.pread(count - len(got), offset + len(got))):
                got += part
            assert got == CONTENT[offset : offset + count]

    opened(packed_in(*made), look)


@pytest.mark.parametrize("cut", [1, 8, 9, 500, 20_000])
def test_a_file_that_is_cut(cut: int) -> None:
    def look(fd: int) -> None:
        with pytest.raises(ImageCorrupt, match="too early"):
            NoteTaker(fd, heed).finish()

    opened(packed_in(1)[:-cut], look)


def test_damage_and_what_is_behind() -> None:
    def look(fd: int) -> None:
        with pytest.raises(ImageCorrupt, match="damaged"):
            NoteTaker(fd, heed).finish()

    damaged = bytearray(packed_in(2))
    damaged[len(damaged) // 2] ^= 255
    opened(bytes(damaged), look)
    opened(packed_in(2) + b"garbage", look)


def test_a_file_that_is_changed_under_us() -> None:
    def look(fd: int) -> None:
        notes = NoteTaker(fd, heed).finish()
        os.ftruncate(fd, 2_000)
        with pytest.raises(ImageCorrupt):
            GzipFile(fd, notes).pread(10, len(CONTENT) - 10)

    opened(packed_in(1), look)
