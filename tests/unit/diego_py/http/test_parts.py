"""Lines of an answer in parts: whatever comes over the wire is a line, or BadAnswer."""

from collections.abc import AsyncIterator

import pytest

from diego_py.errors import BadAnswer
from diego_py.http.parts import Line, given_line, lines_of


async def chunks(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def read(*pieces: bytes) -> list[Line]:
    return [line async for line in lines_of(chunks(*pieces))]


async def test_lines_are_whole_however_they_come() -> None:
    whole = given_line(0, b'{"a":1}', "x") + given_line(1, b"{}", "y")
    for cut in range(len(whole)):
        lines = await read(whole[:cut], whole[cut:])
        assert [(line.part, bytes(line.given), line.timing) for line in lines] == [
            (0, b'{"a":1}', "x"),
            (1, b"{}", "y"),
        ]


@pytest.mark.parametrize(
    "nonsense",
    [
        b"{",
        b'{"part":"one"}',
        b'{"part":0,"timing":"\xff"}',
        b'{"part":0,"failure":{"a":' + b"[" * 5_000 + b"]" * 5_000 + b"}}",
    ],
)
async def test_what_is_no_line_is_a_bad_answer(nonsense: bytes) -> None:
    with pytest.raises(BadAnswer):
        await read(nonsense + b"\n")
