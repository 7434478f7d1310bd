"""Archives that want to escape, overwrite, exhaust or confuse: a list of attacks, each in variations, from a seed.

An attack says what it puts into the archive and what may become of it: the codes it may be refused with, and whether
it may also be unpacked, because then it does no harm. Most are entries, written alike as tar and zip; some are bytes.
"""

from __future__ import annotations

import gzip
import io
import random
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from attrs import frozen

from tests.fakes import sparse, zstd

KINDS = ("tar", "tgz", "zip", "layer")
OPAQUE = ".wh..wh..opq"
TOKEN = "hostile-entry"
"""Part of every name that must not appear outside."""
UNSAFE, CORRUPT, TOO_LARGE, UNSUPPORTED = (
    "archive.unsafe",
    "archive.corrupt",
    "archive.too_large",
    "archive.unsupported",
)
ANY = frozenset({UNSAFE, CORRUPT, TOO_LARGE, UNSUPPORTED})
HARMLESS = "harmless"

FILE, DIRECTORY, SYMLINK, HARDLINK, CHAR, BLOCK, FIFO = "file", "dir", "symlink", "hardlink", "char", "block", "fifo"
TAR_TYPES = {
    FILE: tarfile.REGTYPE,
    DIRECTORY: tarfile.DIRTYPE,
    SYMLINK: tarfile.SYMTYPE,
    HARDLINK: tarfile.LNKTYPE,
    CHAR: tarfile.CHRTYPE,
    BLOCK: tarfile.BLKTYPE,
    FIFO: tarfile.FIFOTYPE,
}
ZIP_TYPES = {FILE: 0o100000, DIRECTORY: 0o040000, SYMLINK: 0o120000, CHAR: 0o020000, BLOCK: 0o060000, FIFO: 0o010000}


@frozen
class Item:
    """One entry, whatever the format."""

    kind: str
    name: str
    link: str = ""
    content: bytes = b"x"
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    device: tuple[int, int] = (1, 3)
    pax: tuple[tuple[str, str], ...] = ()


@frozen
class Case:
    """One archive, and what may become of it."""

    name: str
    kind: str
    data: bytes
    allowed: frozenset[str]


Content = list[Item] | bytes
Made = tuple[Content, frozenset[str]]
Attack = Callable[[random.Random, str, Path], Made]


def cases(seed: int, count: int, canary: Path) -> Iterator[Case]:
    """`count` archives of each kind; every attack comes, again and again, each time with other choices."""
    for kind in KINDS:
        for number in range(count):
            attack = ATTACKS[number % len(ATTACKS)]
            rng = random.Random(f"{seed} {number}")
            content, allowed = attack(rng, kind, canary)
            data = content if isinstance(content, bytes) else pack(kind, content)
            yield Case(f"{kind} {number} {attack.__name__}", kind, data, allowed)


def pack(kind: str, items: list[Item]) -> bytes:
    if kind == "zip":
        return _zip(items)
    data = _tar(items)
    return data if kind == "tar" else gzip.compress(data, 1, mtime=0)


def _tar(items: list[Item]) -> bytes:
    return b"".join(map(tar_entry, items)) + bytes(1024)


def tar_entry(item: Item) -> bytes:
    info = tarfile.TarInfo(item.name)
    info.type = TAR_TYPES[item.kind]
    info.linkname = item.link
    info.mode, info.uid, info.gid = item.mode, item.uid, item.gid
    info.devmajor, info.devminor = item.device
    info.pax_headers = dict(item.pax)
    content = item.content if item.kind == FILE else b""
    info.size = len(content)
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape") + content + bytes(-len(content) % 512)


def _zip(items: list[Item]) -> bytes:
    packed = io.BytesIO()
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for item in items:
            # Zip has no hard links; the nearest to one is a symbolic link.
            kind = SYMLINK if item.kind == HARDLINK else item.kind
            name = item.name.encode("utf-8", "replace").decode() or "?"
            info = zipfile.ZipInfo(name + "/" * (kind == DIRECTORY))
            info.create_system = 3
            info.external_attr = (ZIP_TYPES[kind] | item.mode) << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            content = item.link.encode("utf-8", "surrogateescape") if kind == SYMLINK else item.content
            archive.writestr(info, b"" if kind == DIRECTORY else content)
    return packed.getvalue()


def may(*codes: str) -> frozenset[str]:
    return frozenset(codes)


# Entries


def dot_dot(rng: random.Random, kind: str, canary: Path) -> Made:
    name = rng.choice(["../", "a/../../", "./../", "a/b/../../../", "a/./../../", "..//", "../" * 20])
    last = rng.choice([TOKEN, f"{canary.name}/file", f"etc/{TOKEN}"])
    what = rng.choice([FILE, DIRECTORY, SYMLINK])
    return [Item(DIRECTORY, "a"), Item(what, name + last, link="/etc")], may(UNSAFE)


def only_looks_like_dot_dot(rng: random.Random, kind: str, canary: Path) -> Made:
    names = ["...", "..x/y", "a/ ..", "..\\y", "%2e%2e/y", "\uff0e\uff0e/y", "-rf", "\x1b[2J", "\n"]
    return [Item(FILE, rng.choice(names))], may(HARMLESS)


def absolute(rng: random.Random, kind: str, canary: Path) -> Made:
    name = rng.choice([f"/{TOKEN}", f"//{TOKEN}", f"/etc/{TOKEN}", str(canary / "file"), "/etc/passwd"])
    return [Item(FILE, name)], may(HARMLESS if kind == "layer" else UNSAFE)


def through_a_link(rng: random.Random, kind: str, canary: Path) -> Made:
    to = rng.choice([str(canary), f"../{canary.name}", "/", "..", "../..", "/etc", "/tmp", "/proc/self/cwd", "nowhere"])
    items = [Item(SYMLINK, "a", link=to), Item(rng.choice([FILE, DIRECTORY, SYMLINK]), f"a/{TOKEN}", link="x")]
    if rng.random() < 0.5:
        items.insert(1, Item(SYMLINK, "b", link="a"))
        items[2] = Item(FILE, rng.choice([f"b/{TOKEN}", "b/file", f"b/./{TOKEN}/x"]))
    return items, may(HARMLESS, UNSAFE) if kind == "layer" else may(UNSAFE)


def onto_a_link(rng: random.Random, kind: str, canary: Path) -> Made:
    to = rng.choice([str(canary / "file"), f"../{canary.name}/file", "/etc/passwd", f"/tmp/{TOKEN}", f"../{TOKEN}"])
    return [
        Item(SYMLINK, "f", link=to),
        Item(rng.choice([FILE, DIRECTORY]), "f", content=b"overwritten", mode=0o777),
    ], may(HARMLESS)


def hard_link_outward(rng: random.Random, kind: str, canary: Path) -> Made:
    to = rng.choice([f"../{canary.name}/file", str(canary / "file"), "/etc/passwd", "../../etc/shadow", "missing"])
    items = [Item(HARDLINK, "h", link=to), Item(FILE, "h", content=b"overwritten", mode=0o777)]
    return items, may(HARMLESS) if kind == "zip" else may(UNSAFE)


def hard_link_through_a_link(rng: random.Random, kind: str, canary: Path) -> Made:
    to = rng.choice([str(canary), f"../{canary.name}", "/etc", ".."])
    items = [Item(SYMLINK, "a", link=to), Item(HARDLINK, "h", link=rng.choice(["a/file", "a/passwd", "a"]))]
    return [*items, Item(FILE, "h", content=b"overwritten")], may(HARMLESS, UNSAFE)


def odd_hard_links(rng: random.Random, kind: str, canary: Path) -> Made:
    to = rng.choice(["h", "d", ".", "d/..", "d/f", "", "h/", "d/./f"])
    items = [Item(DIRECTORY, "d"), Item(FILE, "d/f"), Item(HARDLINK, "h", link=to), Item(HARDLINK, "d/f", link="h")]
    return items, ANY | {HARMLESS}


def devices(rng: random.Random, kind: str, canary: Path) -> Made:
    device = rng.choice([(1, 3), (1, 1), (8, 0), (0, 0), (10, 229), (4095, 1048575)])
    item = Item(rng.choice([CHAR, BLOCK]), rng.choice(["d", "dev/mem", "dev/sda"]), device=device, mode=0o666)
    return [item, Item(FILE, "after")], may(HARMLESS) if kind == "layer" else may(UNSAFE)


def pipes(rng: random.Random, kind: str, canary: Path) -> Made:
    items = [Item(FIFO, "p"), Item(rng.choice([FILE, FIFO, HARDLINK]), rng.choice(["p", "q"]), link="p")]
    return items, may(HARMLESS, UNSAFE) if kind == "layer" else may(UNSAFE)


def set_id_bits(rng: random.Random, kind: str, canary: Path) -> Made:
    mode = rng.choice([0o4755, 0o2755, 0o6777, 0o7777])
    return [Item(rng.choice([FILE, DIRECTORY]), "s", mode=mode), Item(HARDLINK, "t", link="s")], may(HARMLESS, UNSAFE)


def whiteouts(rng: random.Random, kind: str, canary: Path) -> Made:
    bad = [".wh.", ".wh..", ".wh...", "a/.wh...", ".wh.x/y", "a/.wh./x", "a/.wh..wh..opq/x"]
    good = [".wh.etc", OPAQUE, "a/.wh.x", f"a/{OPAQUE}", ".wh..wh.plnk", ".wh..wh.aufs", "a/.wh.a\n", ".wh.dev"]
    name = rng.choice(bad + good)
    items = [Item(FILE, "a/x"), Item(rng.choice([FILE, DIRECTORY, SYMLINK]), name, link="/etc"), Item(DIRECTORY, "a/x")]
    allowed = may(UNSAFE) if name in bad else may(HARMLESS)
    return items if kind == "layer" else items[1:2], allowed if kind == "layer" else may(HARMLESS)


def mount_points(rng: random.Random, kind: str, canary: Path) -> Made:
    name = rng.choice(["dev", "proc", "sys"])
    what = rng.choice([SYMLINK, FILE])
    items = [Item(what, name, link=str(canary))]
    if rng.random() < 0.6:
        items = [Item(DIRECTORY, name), Item(SYMLINK, "a", link="."), Item(what, f"a/{name}", link="/etc")]
    return items, may(UNSAFE) if kind == "layer" else may(HARMLESS, UNSAFE)


def long_and_deep(rng: random.Random, kind: str, canary: Path) -> Made:
    name = rng.choice(["n" * 256, "/".join("d" * 120), "/".join(["n" * 200] * 30), "d/" * 2000 + "f", "n" * 5000])
    what = rng.choice([FILE, DIRECTORY])
    return [Item(what, name), Item(FILE, "after")], may(TOO_LARGE)


def deeper_through_links(rng: random.Random, kind: str, canary: Path) -> Made:
    """Each name is short enough; the tree is not."""
    items = [Item(SYMLINK, "s0", link=".")]
    for number in range(rng.choice([3, 6])):
        way = "/".join(["d"] * 30)
        items += [Item(DIRECTORY, f"s{number}/{way}"), Item(SYMLINK, f"s{number + 1}", link=f"s{number}/{way}")]
    return items, may(TOO_LARGE) if kind == "layer" else may(UNSAFE)


def many(rng: random.Random, kind: str, canary: Path) -> Made:
    what = rng.choice([FILE, DIRECTORY, SYMLINK])
    names = [f"{number:x}" for number in range(520)] if rng.random() < 0.7 else ["same"] * 520
    return [Item(what, name, link="x") for name in names], may(TOO_LARGE)


def many_implicit(rng: random.Random, kind: str, canary: Path) -> Made:
    way = "/".join("abcdefghijklmnopqrst")
    return [Item(FILE, f"{number}/{way}/f") for number in range(rng.choice([30, 40]))], may(TOO_LARGE)


def shuffled(rng: random.Random, kind: str, canary: Path) -> Made:
    """Anything after anything under the same few names."""
    names = ["a", "b", "a/a", "a/b", "b/a", "a/b/c", "dev", ".wh.a", "a/.wh.b", "a/.wh..wh..opq", "./", "b/."]
    links = ["a", "b", "..", "/", ".", "a/b", "/etc/passwd", str(canary), f"../{canary.name}/file", "b/a", "a/b/c"]
    kinds = [FILE, FILE, DIRECTORY, DIRECTORY, SYMLINK, SYMLINK, HARDLINK, FIFO if kind == "layer" else FILE]
    items = [
        Item(rng.choice(kinds), rng.choice(names), link=rng.choice(links), mode=rng.choice([0o644, 0o4755, 0, 0o7777]))
        for _ in range(rng.randrange(2, 14))
    ]
    return items, ANY | {HARMLESS}


def owners(rng: random.Random, kind: str, canary: Path) -> Made:
    uid = rng.choice([65_536, 70_000, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40])
    item = Item(rng.choice([FILE, DIRECTORY]), "o", uid=rng.choice([0, uid]), gid=uid)
    return [item], may(HARMLESS) if kind == "zip" else may(UNSAFE)


def odd_names(rng: random.Random, kind: str, canary: Path) -> Made:
    names = [".", "./", "./.", "a//b///c", "\udcff\udcfe", "a\n\x1b[31m", " ", "\\..\\..\\x", "a/", "nul\x00x"]
    name = rng.choice(names)
    return [Item(rng.choice([FILE, DIRECTORY]), name)], ANY | {HARMLESS}


def odd_links(rng: random.Random, kind: str, canary: Path) -> Made:
    to = rng.choice(["", "x" * 4096, "x" * 9000, "\udcff", "loop", "a\nb", str(canary), "/proc/self/root/etc/passwd"])
    return [Item(SYMLINK, "loop", link=to), Item(FILE, "loop")], may(HARMLESS, CORRUPT, TOO_LARGE)


# Bytes


def attributes(rng: random.Random, kind: str, canary: Path) -> Made:
    key, value = rng.choice(
        [
            ("trusted.overlay.redirect", "/../../etc"),
            ("trusted.overlay.opaque", "y"),
            ("trusted.overlay.metacopy", ""),
            ("user.overlay.redirect", "/etc"),
            ("security.capability", "garbage"),
            ("security.selinux", "system_u:object_r:shadow_t:s0"),
            ("system.posix_acl_access", "x"),
            ("user.big", "v" * 200_000),
            ("user." + "n" * 300, "v"),
        ]
    )
    pax = ((f"SCHILY.xattr.{key}", value),)
    return [Item(rng.choice([FILE, DIRECTORY]), "x", pax=pax)], may(HARMLESS, UNSAFE)


def extended_headers(rng: random.Random, kind: str, canary: Path) -> Made:
    if kind == "zip":
        return zip_lies(rng, kind, canary)
    records = rng.choice(
        [
            b"30 path=../../" + TOKEN.encode() + b"\n",
            b"9999 path=x\n",
            b"5 a=b\n",
            b"x path=a\n",
            b"0 path=a\n",
            b"18446744073709551616 a=b\n",
            b"12 size=-55\n",
            b"29 size=99999999999999999999\n",
            b"12 uid=1e99\n",
            b"14 mtime=nan\n",
            b"15 path=a\0bcd\n",
            b"22 GNU.sparse.major=1\n",
            b"21 GNU.sparse.map=0,1\n",
            b"\0" * 100,
        ]
    )
    header = _header(b"x" if rng.random() < 0.8 else b"g", len(records))
    padded = records + bytes(-len(records) % 512)
    return _as(kind, header + padded + tar_entry(Item(FILE, "f")) + bytes(1024)), ANY | {HARMLESS}


def long_names(rng: random.Random, kind: str, canary: Path) -> Made:
    if kind == "zip":
        return zip_lies(rng, kind, canary)
    name = rng.choice([f"../../{TOKEN}".encode(), b"n" * 100_000, b"", str(canary / "file").encode(), b"a/" * 3000])
    header = _header(rng.choice([b"L", b"K"]), len(name)) + name + bytes(-len(name) % 512)
    entry = tar_entry(Item(rng.choice([FILE, HARDLINK, SYMLINK]), "f", link="f"))
    return _as(kind, header * rng.choice([1, 2, 50]) + entry + bytes(1024)), ANY | {HARMLESS}


def sizes(rng: random.Random, kind: str, canary: Path) -> Made:
    if kind == "zip":
        return zip_lies(rng, kind, canary)
    size = rng.choice([2**63 - 1, 2**62, 2**40, 2**31, 4 << 20, 5000, -1])
    return _as(kind, _header(b"0", size) + b"short" + bytes(1024)), may(CORRUPT, TOO_LARGE)


def types(rng: random.Random, kind: str, canary: Path) -> Made:
    if kind == "zip":
        return zip_lies(rng, kind, canary)
    unknown = rng.choice([b"S", b"D", b"M", b"V", b"N", b"Z", b"\xff"])
    return _as(kind, _header(unknown, 0) + bytes(1024)), may(UNSUPPORTED)


def bombs(rng: random.Random, kind: str, canary: Path) -> Made:
    zeros = bytes(12 << 20)
    if kind == "zip":
        return _zip([Item(FILE, f"{n}", content=zeros[: 3 << 20]) for n in range(rng.choice([2, 4]))]), may(TOO_LARGE)
    data = _tar([Item(FILE, "zeros", content=zeros)])
    if rng.random() < 0.5:
        data = _tar([Item(FILE, f"z{n}", content=zeros[: 1 << 20]) for n in range(6)])
    if kind != "tar" and rng.random() < 0.5:  # After the end, and in members of its own.
        return gzip.compress(_tar([Item(FILE, "small")]), 1) + gzip.compress(zeros, 9) * 3, may(TOO_LARGE)
    return _as(kind, data), may(TOO_LARGE)


def cut(rng: random.Random, kind: str, canary: Path) -> Made:
    data = pack(kind, _good(rng))
    # A layer may end where a header could be: its digest tells whether that is all.
    allowed = may(CORRUPT, UNSUPPORTED) | (may(HARMLESS) if kind in ("layer", "tar") else may())
    return data[: rng.randrange(len(data))], allowed


def flipped(rng: random.Random, kind: str, canary: Path) -> Made:
    data = bytearray(pack(kind, _good(rng)))
    for _ in range(rng.choice([1, 1, 3, 20])):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data), ANY | {HARMLESS}


def zstd_streams(rng: random.Random, kind: str, canary: Path) -> Made:
    """Windows of gigabytes, bombs, frames that end nowhere, and frames to be skipped."""
    if kind not in ("layer", "tar"):
        return cut(rng, kind, canary)
    data = zstd.compress(_tar(_good(rng)))
    return rng.choice(
        [
            (zstd.with_window(rng.choice([28, 31, 41])) + data, may(TOO_LARGE)),
            (data + zstd.with_window(31), may(TOO_LARGE)),
            (zstd.compress(_tar(_good(rng))[:-1024]) + zstd.of_zeros(1 << 30), may(TOO_LARGE)),
            (zstd.skippable(bytes(8 << 20)) + zstd.of_zeros(1 << 30), may(TOO_LARGE)),
            (data[: rng.randrange(4, len(data))], may(CORRUPT)),
            (data + rng.choice([b"garbage", b"PK\x03\x04", gzip.compress(b"")]), may(CORRUPT)),
            (data + zstd.skippable()[:-1], may(CORRUPT)),
            (zstd.skippable() * 2000 + data, may(HARMLESS)),
            (zstd.compress(b"") * 2000 + data + zstd.skippable(b"") + bytes(7), may(HARMLESS)),
        ]
    )


def sparse_files(rng: random.Random, kind: str, canary: Path) -> Made:
    """Maps that lie, and holes of more than a disk has."""
    if kind == "zip":
        return zip_lies(rng, kind, canary)
    extents, size, allowed = rng.choice(
        [
            ([(0, 10), (5, 10)], 100, may(CORRUPT)),
            ([(50, 10), (0, 10)], 100, may(CORRUPT)),
            ([(90, 20)], 100, may(CORRUPT)),
            ([(-20, 20)], 100, may(CORRUPT)),
            ([(0, 20)], -1, may(CORRUPT)),
            ([(0, 20)], 1 << 40, may(TOO_LARGE)),
            ([((1 << 50) - 20, 20)], 1 << 50, may(TOO_LARGE)),
            ([(number * 5000, 1) for number in range(20)], 1 << 20, may(HARMLESS)),
        ]
    )
    name = rng.choice(["s", f"../{TOKEN}", "d/s"])
    made = sparse.entry(rng.choice(sparse.WAYS), extents, size, bytes(20), name)
    return _as(kind, made + bytes(1024)), allowed if name != f"../{TOKEN}" else may(UNSAFE, CORRUPT, TOO_LARGE)


def garbage(rng: random.Random, kind: str, canary: Path) -> Made:
    starts = [b"", b"\x1f\x8b\x08", b"PK\x03\x04", b"PK\x05\x06", b"BZh9", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"]
    return rng.choice(starts) + rng.randbytes(rng.choice([0, 10, 500, 5000])), ANY


def other_kind(rng: random.Random, kind: str, canary: Path) -> Made:
    other = rng.choice([each for each in KINDS if (each == "zip") != (kind == "zip")])
    return pack(other, _good(rng)), ANY


def headers_flipped(rng: random.Random, kind: str, canary: Path) -> Made:
    """Damage inside the compression, with checksums of headers put right: what a malicious writer would make."""
    if kind == "zip":
        return zip_lies(rng, kind, canary)
    data = bytearray(_tar(_good(rng)))
    for _ in range(rng.choice([1, 2, 5])):
        header = rng.randrange(len(data) // 512 - 2) * 512
        data[header + rng.randrange(512)] = rng.randrange(256)
        data[header + 148 : header + 156] = b" " * 8
        data[header + 148 : header + 156] = b"%06o\0 " % sum(data[header : header + 512])
    return _as(kind, bytes(data)), ANY | {HARMLESS}


def zip_lies(rng: random.Random, kind: str, canary: Path) -> Made:
    """Its directory says one thing, its entries another."""
    if kind != "zip":
        return shuffled(rng, kind, canary)
    data = bytearray(_zip([Item(FILE, "one", content=b"1" * 900), Item(FILE, "two", content=b"2" * 900)]))
    directory = data.index(b"PK\x01\x02")
    end = data.index(b"PK\x05\x06")
    at, form, values = rng.choice(
        [
            (directory + 8, "<H", [1, 0x41, 0xFFFF]),  # encrypted
            (directory + 10, "<H", [1, 12, 14, 99, 0xFFFF]),  # method
            (directory + 16, "<I", [0, 1]),  # checksum
            (directory + 20, "<I", [0, 1, 0xFFFFFFFF, 0x7FFFFFFF]),  # packed size
            (directory + 24, "<I", [0, 1, 0xFFFFFFFF, 0x7FFFFFFF]),  # size
            (directory + 28, "<H", [0, 1, 0xFFFF]),  # length of the name
            (directory + 30, "<H", [1, 0xFFFF]),  # length of the extra field
            (directory + 42, "<I", [1, 40, 0xFFFFFFFF]),  # where the entry is
            (end + 8, "<H", [0, 0xFFFF]),
            (end + 10, "<H", [0, 0xFFFF]),
            (end + 12, "<I", [0, 1, 0xFFFFFFFF]),
            (end + 16, "<I", [0, 1, 0xFFFFFFFF]),
            (end + 20, "<H", [1, 0xFFFF]),
        ]
    )
    struct.pack_into(form, data, at, rng.choice(values))
    return bytes(data), ANY | {HARMLESS}


def overlapping(rng: random.Random, kind: str, canary: Path) -> Made:
    """Many names in the directory for one piece of data."""
    if kind != "zip":
        return bombs(rng, kind, canary)
    content = bytes(1 << 20)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(content) + packer.flush()
    common = struct.pack("<HHHHHIII", 20, 0, 8, 0, 0, zlib.crc32(content), len(packed), len(content))
    local = b"PK\x03\x04" + common + struct.pack("<HH", 1, 0) + b"f" + packed
    listed = b"".join(
        b"PK\x01\x02" + struct.pack("<H", 20) + common + struct.pack("<HHHHHII", 1, 0, 0, 0, 0, 0, 0) + b"f"
        for _ in range(rng.choice([10, 60]))
    )
    count = len(listed) // 47
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, count, count, len(listed), len(local), 0)
    return local + listed + end, may(TOO_LARGE)


def _good(rng: random.Random) -> list[Item]:
    return [
        Item(DIRECTORY, "d", mode=0o755),
        Item(FILE, "d/f", content=rng.randbytes(700)),
        Item(SYMLINK, "l", link="d/f"),
        Item(FILE, "n" * 120, content=b"text " * 300),
    ]


def _as(kind: str, data: bytes) -> bytes:
    return data if kind == "tar" else gzip.compress(data, 1, mtime=0)


def _header(kind: bytes, size: int) -> bytes:
    """A header as no library would write it."""
    number = b"%011o\0" % size if 0 <= size < 8**11 else _base_256(size)
    block = bytearray(b"f".ljust(100, b"\0") + b"0000644\0" * 3 + number + b"00000000000\0" + b" " * 8 + kind)
    block += bytes(100) + b"ustar\x0000"
    block += bytes(512 - len(block))
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def _base_256(size: int) -> bytes:
    return (b"\x80" if size >= 0 else b"\xff") + size.to_bytes(11, "big", signed=True)


ATTACKS: tuple[Attack, ...] = (
    dot_dot,
    absolute,
    through_a_link,
    shuffled,
    onto_a_link,
    hard_link_outward,
    hard_link_through_a_link,
    odd_hard_links,
    devices,
    shuffled,
    pipes,
    set_id_bits,
    whiteouts,
    mount_points,
    only_looks_like_dot_dot,
    long_and_deep,
    deeper_through_links,
    many,
    shuffled,
    many_implicit,
    owners,
    odd_names,
    odd_links,
    attributes,
    extended_headers,
    long_names,
    shuffled,
    sizes,
    types,
    bombs,
    cut,
    flipped,
    garbage,
    zstd_streams,
    sparse_files,
    zstd_streams,
    sparse_files,
    other_kind,
    headers_flipped,
    headers_flipped,
    zip_lies,
    overlapping,
    whiteouts,
    through_a_link,
)
