"""The tar reader agrees with the standard library on what is good, and refuses what is not."""

from __future__ import annotations

import contextlib
import gzip
import io
import lzma
import os
import struct
import tarfile
import tempfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cells.garden.images.unpacker.entry import Entry
from cells.garden.images.unpacker.refusal import Limits, Refused
from cells.garden.images.unpacker.stream import Stream
from cells.garden.images.unpacker.tar import TarReader, pax_records
from tests.fakes import zstd

LIMITS = Limits(
    {
        "bytes_max": 1 << 20,
        "entries_max": 100,
        "depth_max": 20,
        "ratio_max": 50,
        "ratio_free_bytes": 1 << 16,
        "cpu_s": 10,
    }
)
FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def read(data: bytes, needs_end: bool = True) -> list[tuple[Entry, bytes]]:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        os.lseek(file.fileno(), 0, os.SEEK_SET)
        reader = TarReader(Stream(file.fileno(), ("none", "gzip", "bzip2", "xz", "zstd"), LIMITS), LIMITS, needs_end)
        found = []
        for entry in reader.entries():
            content = b""
            while part := reader.content(1000):
                content += part
            found.append((entry, content))
        return found


def written(members: list[tuple[tarfile.TarInfo, bytes]], form: int) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=form) as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return packed.getvalue()


names = st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=150)
members = st.lists(
    st.tuples(names, st.binary(max_size=1500), st.integers(0, 0o7777), st.integers(0, 2**31)), max_size=5
)


@settings(deadline=None)
@given(members, st.sampled_from(["gnu", "pax"]))
def test_what_the_standard_library_writes(given_members: list[tuple[str, bytes, int, int]], form: str) -> None:
    made = []
    for name, content, mode, number in given_members:
        info = tarfile.TarInfo(name)
        info.mode, info.uid, info.mtime = mode, number, number
        made.append((info, content))
    found = read(written(made, FORMATS[form]))
    assert [(entry.name, content, entry.mode, entry.uid, entry.mtime) for entry, content in found] == [
        (name.encode(), content, mode, number, number) for name, content, mode, number in given_members
    ]


@pytest.mark.parametrize("form", FORMATS)
def test_long_names_and_links(form: str) -> None:
    info = tarfile.TarInfo("/".join(["d" * 60] * 3))
    link = tarfile.TarInfo("link")
    link.type, link.linkname = tarfile.SYMTYPE, "t" * (90 if form == "ustar" else 900)
    [(first, _), (second, _)] = read(written([(info, b""), (link, b"")], FORMATS[form]))
    assert (first.name.decode(), second.link.decode()) == (info.name, link.linkname)


@settings(deadline=None)
@given(st.binary(max_size=3000))
def test_no_bytes_surprise_it(data: bytes) -> None:
    """It reads them or says why not; no other exception."""
    with contextlib.suppress(Refused):
        read(data)


@settings(deadline=None)
@given(st.data())
def test_no_damage_surprises_it(data: st.DataObject) -> None:
    info = tarfile.TarInfo("n" * 120)
    good = bytearray(written([(info, b"content" * 50)], tarfile.PAX_FORMAT))
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(Refused):
        read(bytes(good))


def test_an_end_that_is_missing() -> None:
    data = written([(tarfile.TarInfo("a"), b"x")], tarfile.PAX_FORMAT)[:1024]
    with pytest.raises(Refused, match="its end is missing"):
        read(data)
    assert len(read(data, needs_end=False)) == 1


def test_members_and_padding_of_gzip() -> None:
    data = written([(tarfile.TarInfo("a"), b"x" * 900)], tarfile.PAX_FORMAT)
    packed = gzip.compress(data[:700]) + gzip.compress(data[700:]) + bytes(100)
    assert [content for _, content in read(packed)] == [b"x" * 900]
    with pytest.raises(Refused, match="damaged"):
        read(packed + b"more")


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_compressions(mode: str, tmp_path: Path) -> None:
    path = tmp_path / "archive"
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        archive.addfile(tarfile.TarInfo("a"))
    assert [entry.name for entry, _ in read(path.read_bytes())] == [b"a"]


def test_frames_of_zstd() -> None:
    """In as many as one likes, with what is to be skipped anywhere, and zeros behind."""
    data = written([(tarfile.TarInfo("a"), os.urandom(900))], tarfile.PAX_FORMAT)
    frames = [zstd.compress(data[:700]), zstd.compress(b""), zstd.compress(data[700:])]
    between = zstd.skippable(bytes(5000), 15)
    packed = zstd.skippable() + between.join(frames) + zstd.skippable(b"") + bytes(100)
    assert [content for _, content in read(packed)] == [content for _, content in read(data)]


@settings(deadline=None)
@given(st.data())
def test_a_stream_of_zstd_that_is_cut(data: st.DataObject) -> None:
    packed = zstd.compress(written([(tarfile.TarInfo("a"), b"content")], tarfile.PAX_FORMAT))
    length = data.draw(st.integers(4, len(packed) + len(zstd.skippable()) - 1).filter(lambda n: n != len(packed)))
    with pytest.raises(Refused, match="too early"):
        read((packed + zstd.skippable())[:length], needs_end=False)


@settings(deadline=None)
@given(st.binary(min_size=4, max_size=100).filter(lambda end: end.strip(b"\0") and end[1:4] != b"\x2a\x4d\x18"))
def test_what_is_behind_a_stream_of_zstd(garbage: bytes) -> None:
    with pytest.raises(Refused, match=r"damaged|too early"):
        read(zstd.compress(written([], tarfile.PAX_FORMAT)) + garbage)


@pytest.mark.parametrize(("log", "words"), [(27, "no number|checksum"), (28, "memory"), (31, "memory"), (41, "memory")])
def test_a_window_of_zstd(log: int, words: str) -> None:
    """128 MiB of memory are given, and what is in the frame is then found to be no archive; more is not even tried."""
    with pytest.raises(Refused, match=words) as refused:
        read(zstd.with_window(log, b"x" * 1024))
    assert refused.value.kind == ("corrupt" if log == 27 else "too_large")


def test_memory_for_xz() -> None:
    """The header of the first block asks for a dictionary of 4 GiB."""
    data = bytearray(lzma.compress(written([], tarfile.PAX_FORMAT)))
    end = 12 + 4 * data[12]
    data[16] = 40
    struct.pack_into("<I", data, end, zlib.crc32(data[12:end]))
    with pytest.raises(Refused, match="xz stream asks for too much memory"):
        read(bytes(data))


def test_a_bomb_of_zstd_stops_at_once() -> None:
    """12 KiB for 384 MiB: no more than the limit is ever unpacked, and nothing is kept of it."""
    info = tarfile.TarInfo("a")
    info.size = 1 << 28
    with pytest.raises(Refused, match="50 times as large"):
        read(zstd.compress(info.tobuf()) + zstd.of_zeros(3 << 27))


def test_a_bomb_stops_early() -> None:
    with pytest.raises(Refused, match="50 times as large"):
        read(gzip.compress(written([(tarfile.TarInfo("a"), bytes(1 << 19))], tarfile.PAX_FORMAT)))


@pytest.mark.parametrize(
    ("data", "records"),
    [
        (b"10 a=bcde\n", {b"a": b"bcde"}),
        (b"6 a=b\n6 c=\n\n", {b"a": b"b", b"c": b"\n"}),
        (b"5 a=\n", {b"a": b""}),
    ],
)
def test_extended_records(data: bytes, records: dict[bytes, bytes]) -> None:
    assert pax_records(data) == records


@pytest.mark.parametrize(
    "data", [b"7 a=b\n", b"5 a=b\n", b"-6 a=b\n", b"6 =ab\n", b"6 abc\n", b"6  a=b", b"0 \n", b"a"]
)
def test_damaged_extended_records(data: bytes) -> None:
    with pytest.raises(Refused):
        pax_records(data)
