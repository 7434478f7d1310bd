"""Files with holes, as GNU tar writes them: in headers of its own, and in three ways into extended headers.

Whichever it is, it says which parts of the file are in the archive: a map. Parts that overlap, or that do not come in
their order, are refused: readers would make different files of them.
"""

from __future__ import annotations

import struct

from cells.garden.images.unpacker.fields import decimal, number
from cells.garden.images.unpacker.refusal import CORRUPT, TOO_LARGE, UNSUPPORTED, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Extents = list[tuple[int, int]]
    """Parts of a file that are not holes: where they begin and how long they are."""
    Read = Callable[[int], bytes]
    """Gives exactly so many bytes, or raises Refused."""

BLOCK = 512
EXTENTS_MAX = 65_536
"""Of one file."""
TYPE = b"S"
MAGIC = b"ustar  \0"
"""Of GNU's own headers. Others write other things into entries of this type."""
PREFIX = b"GNU.sparse."
NAME = PREFIX + b"name"
REPEATED = (PREFIX + b"offset", PREFIX + b"numbytes")
"""Records that come once for each part; together they are one value each, joined by commas."""
HEADER_EXTENTS, HEADER_MORE, HEADER_SIZE = slice(386, 482), 482, slice(483, 495)
BLOCK_EXTENTS, BLOCK_MORE = slice(0, 504), 504
EXTENT = struct.Struct("12s12s")
NUMBER_BYTES_MAX = 20


def of_header(header: bytes, exactly: Read) -> tuple[int, Extents]:
    """The size of the file and its map, from a header of type S and the blocks that follow it."""
    if header[257:265] != MAGIC:
        raise Refused(UNSUPPORTED, "sparse files that GNU tar did not write")
    extents = list(_extents(header[HEADER_EXTENTS]))
    more = header[HEADER_MORE]
    while more:
        block = exactly(BLOCK)
        extents += _extents(block[BLOCK_EXTENTS])
        _check_count(len(extents))
        more = block[BLOCK_MORE]
    return number(header[HEADER_SIZE], "size of a sparse file"), extents


def _extents(data: bytes) -> Iterator[tuple[int, int]]:
    for offset, length in EXTENT.iter_unpack(data):
        if offset[0] == 0 and length[0] == 0:
            return
        yield number(offset, "map"), number(length, "map")


def is_in(pax: dict[bytes, bytes]) -> bool:
    """Whether the extended header is that of a sparse file."""
    return any(key.startswith(PREFIX) for key in pax)


def of_pax(pax: dict[bytes, bytes], exactly: Read) -> tuple[int, Extents]:
    """The same from an extended header; version 1.0 has the map at the beginning of the content."""

    def get(key: bytes) -> bytes:
        return pax.get(PREFIX + key, b"")

    version = (get(b"major") or b"0", get(b"minor") or b"0")
    if version == (b"1", b"0"):
        return decimal(get(b"realsize")), _map_before_content(exactly)
    if version not in ((b"0", b"0"), (b"0", b"1")):
        raise Refused(UNSUPPORTED, "this version of sparse files")
    if get(b"map"):
        numbers = get(b"map").split(b",")
        offsets, lengths = numbers[::2], numbers[1::2]
    else:
        offsets, lengths = (pax[key].split(b",") if key in pax else [] for key in REPEATED)
    _check_count(len(offsets))
    if len(offsets) != len(lengths) or (get(b"numblocks") and decimal(get(b"numblocks")) != len(offsets)):
        raise Refused(CORRUPT, "the map of a sparse file has another length than it says")
    return decimal(get(b"size")), list(zip(map(decimal, offsets), map(decimal, lengths), strict=True))


def _map_before_content(exactly: Read) -> Extents:
    """Decimal numbers, one a line: how many parts, then each one's begin and length; up to the end of a block."""
    numbers: list[int] = []
    rest = b""
    while len(numbers) < _wanted(numbers):
        *lines, rest = (rest + exactly(BLOCK)).split(b"\n")
        for line in lines:
            if len(numbers) < _wanted(numbers):
                numbers.append(decimal(line))
                _check_count(numbers[0])
        if len(rest) > NUMBER_BYTES_MAX and len(numbers) < _wanted(numbers):
            raise Refused(CORRUPT, "the map of a sparse file is damaged")
    return list(zip(numbers[1::2], numbers[2::2], strict=True))


def _wanted(numbers: list[int]) -> int:
    """How many there are to be, as the first one says."""
    return 1 + 2 * numbers[0] if numbers else 1


def check(size: int, extents: Extents, stored: int) -> None:
    """Raises Refused unless the parts come in order, inside the file, and are as long together as what is stored."""
    end = 0
    for offset, length in extents:
        if offset < end:
            raise Refused(CORRUPT, "parts of a sparse file overlap or are not in order")
        end = offset + length
    if end > size:
        raise Refused(CORRUPT, "a part of a sparse file is beyond its end")
    if sum(length for _, length in extents) != stored:
        raise Refused(CORRUPT, "the parts of a sparse file are not as long as what is stored of it")


def _check_count(count: int) -> None:
    if count > EXTENTS_MAX:
        raise Refused(TOO_LARGE, f"a sparse file of more than {EXTENTS_MAX} parts")
