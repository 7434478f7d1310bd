"""Files with holes: what GNU tar wrote is read as it was; a map that readers could read differently is refused."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cells.garden.images.unpacker.entry import Entry
from cells.garden.images.unpacker.refusal import Limits, Refused
from cells.garden.images.unpacker.sparse import EXTENTS_MAX
from cells.garden.images.unpacker.stream import Stream
from cells.garden.images.unpacker.tar import TarReader
from tests.fakes import sparse
from tests.fakes.sparse import WAYS, entry, with_records

LIMITS = Limits(
    {
        "bytes_max": 1 << 32,
        "entries_max": 100,
        "depth_max": 20,
        "ratio_max": 50,
        "ratio_free_bytes": 1 << 30,
        "cpu_s": 10,
    }
)
END = bytes(1024)
OF_TAR = {
    "old": ("--format=gnu",),
    **{version: ("--format=posix", f"--sparse-version={version}") for version in ("0.0", "0.1", "1.0")},
}


def read(data: bytes) -> list[tuple[Entry, bytes]]:
    """Entries, and the content of each with its holes filled."""
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        os.lseek(file.fileno(), 0, os.SEEK_SET)
        reader = TarReader(Stream(file.fileno(), ("none",), LIMITS), LIMITS, needs_end=True)
        return [(found, content(found, reader)) for found in reader.entries()]


def content(found: Entry, reader: TarReader) -> bytes:
    stored = b"".join(iter(lambda: reader.content(1000), b""))
    if found.extents is None:
        return stored
    made = bytearray(found.size)
    for offset, length in found.extents:
        made[offset : offset + length], stored = stored[:length], stored[length:]
    assert stored == b""
    return bytes(made)


def file_with_holes(path: Path, size: int, parts: list[tuple[int, bytes]]) -> bytes:
    with path.open("wb") as file:
        for offset, data in parts:
            file.seek(offset)
            file.write(data)
        file.truncate(size)
    return path.read_bytes()


@pytest.mark.parametrize("way", WAYS)
def test_what_gnu_tar_writes(tmp_path: Path, way: str) -> None:
    """Holes at the begin, in the middle, at the end; nothing but a hole; more parts than one header or block has."""
    mib = 1 << 20
    made = {
        "middle": file_with_holes(tmp_path / "middle", 2 * mib, [(0, b"begin"), (mib, b"middle")]),
        "begin": file_with_holes(tmp_path / "begin", mib + 3, [(mib, b"end")]),
        "hole": file_with_holes(tmp_path / "hole", mib, []),
        "n" * 120: file_with_holes(tmp_path / ("n" * 120), 4 * mib, [(n * 64 * 1024, b"x%d" % n) for n in range(60)]),
        "zz-whole": file_with_holes(tmp_path / "zz-whole", 5, [(0, b"whole")]),
    }
    packed = subprocess.run(
        ["tar", "--sparse", *OF_TAR[way], "-C", tmp_path, "-c", *made], check=True, capture_output=True
    ).stdout
    found = read(packed)
    assert [(each.name.decode(), text) for each, text in found] == list(made.items())
    assert len(packed) < mib
    assert [each.extents is None for each, _ in found] == [False, False, False, False, True]


parts = st.lists(st.tuples(st.integers(0, 3000), st.binary(max_size=700)), max_size=60)


@settings(deadline=None)
@given(parts, st.integers(0, 3000), st.sampled_from(WAYS))
def test_any_map_that_is_in_order(given_parts: list[tuple[int, bytes]], hole: int, way: str) -> None:
    extents, made = [], b""
    for before, data in given_parts:
        made += bytes(before)
        extents.append((len(made), len(data)))
        made += data
    made += bytes(hole)
    stored = b"".join(data for _, data in given_parts)
    [(found, text), (after, _)] = read(entry(way, extents, len(made), stored) + entry(way, [], 7, b"", "after") + END)
    assert (found.name, found.size, text) == (b"sparse", len(made), made)
    assert (after.name, after.size) == (b"after", 7)


HOSTILE = {
    "overlapping": ([(0, 10), (5, 10)], 100, 20),
    "unordered": ([(50, 10), (0, 10)], 100, 20),
    "beyond the end": ([(95, 10)], 100, 10),
    "beyond the end, nothing": ([(101, 0)], 100, 0),
    "more than is stored": ([(0, 20)], 100, 10),
    "less than is stored": ([(0, 5)], 100, 10),
    "negative begin": ([(-10, 10)], 100, 10),
    "negative length": ([(0, 20), (30, -10)], 100, 10),
    "negative size": ([], -1, 0),
    "without end": ([(1 << 62, 1 << 62)], 1 << 62, 10),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_maps(way: str, case: str) -> None:
    extents, size, stored = HOSTILE[case]
    with pytest.raises(Refused) as refused:
        read(entry(way, extents, size, bytes(stored)) + END)
    assert refused.value.kind == "corrupt"


@pytest.mark.parametrize("way", ["0.0", "0.1", "1.0"])
@pytest.mark.parametrize("count", [0, 2, 10, -1, EXTENTS_MAX + 1, 10**17])
def test_a_map_of_another_length_than_it_says(way: str, count: int) -> None:
    with pytest.raises(Refused) as refused:
        read(entry(way, [(0, 10)], 100, bytes(10), count=count) + END)
    assert refused.value.kind == ("too_large" if way == "1.0" and count > EXTENTS_MAX else "corrupt")


@pytest.mark.parametrize("way", ["old", "0.1", "1.0"])
def test_too_many_parts(way: str) -> None:
    extents = [(2 * number, 0) for number in range(EXTENTS_MAX + 1)]
    with pytest.raises(Refused, match=f"{EXTENTS_MAX} parts"):
        read(entry(way, extents, 1 << 20, b"") + END)


@pytest.mark.parametrize(
    ("records", "content", "kind"),
    [
        ([(b"major", b"2"), (b"minor", b"0")], b"", "unsupported"),
        ([(b"major", b"1"), (b"minor", b"1")], b"", "unsupported"),
        ([(b"major", b"x")], b"", "unsupported"),
        ([(b"major", b"1"), (b"minor", b"0"), (b"realsize", b"9")], b"x" * 5000, "corrupt"),
        ([(b"major", b"1"), (b"minor", b"0"), (b"realsize", b"9")], b"7" * 5000, "corrupt"),
        ([(b"major", b"1"), (b"minor", b"0"), (b"realsize", b"9")], b"2\n1\n", "corrupt"),
        ([(b"major", b"1"), (b"minor", b"0")], b"0\n" + bytes(510), "corrupt"),
        ([(b"map", b"1,2,3"), (b"size", b"9")], b"", "corrupt"),
        ([(b"map", b"1,,2"), (b"size", b"9")], b"", "corrupt"),
        ([(b"offset", b"1,2"), (b"size", b"9")], b"", "corrupt"),
        ([(b"name", b"x")], b"", "corrupt"),
    ],
)
def test_odd_records(records: list[tuple[bytes, bytes]], content: bytes, kind: str) -> None:
    with pytest.raises(Refused) as refused:
        read(with_records([(b"GNU.sparse." + key, value) for key, value in records], content) + END)
    assert refused.value.kind == kind


def test_two_maps_of_one_file() -> None:
    both = with_records([(b"GNU.sparse.size", b"9")], b"")[:1024] + entry("old", [], 9, b"")
    with pytest.raises(Refused, match="something else"):
        read(both + END)


def test_a_map_in_a_header_of_another_tar() -> None:
    header = bytearray(entry("old", [], 9, b""))
    header[257:265] = b"ustar\x0000"
    with pytest.raises(Refused, match="GNU tar did not write"):
        read(sparse.signed(header) + END)


@settings(deadline=None)
@given(st.data())
def test_no_damage_surprises_it(data: st.DataObject) -> None:
    """A damaged map is read or refused; no other exception, and nothing without end."""
    way = data.draw(st.sampled_from(WAYS))
    good = bytearray(entry(way, [(n * 100, 10) for n in range(30)], 5000, bytes(300)))
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    for at in range(0, len(good), 512):
        if good[at + 257 : at + 262] == b"ustar":
            good[at : at + 512] = sparse.signed(good[at : at + 512])
    with contextlib.suppress(Refused):
        read(bytes(good) + END)
