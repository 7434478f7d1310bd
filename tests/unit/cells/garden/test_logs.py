"""conmon's log format, whole and cut."""

from __future__ import annotations

import asyncio
import errno
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cells.garden import kernel
from cells.garden.logs import CHUNK_BYTES, Parser, follow, tail, tail_text
from cells.garden.spec import LogLine
from diego_py.errors import PoolExhausted

AT = "2026-11-21T04:18:02.123456789+00:00"
TIME = datetime(2026, 11, 21, 4, 18, 2, 123456, tzinfo=UTC)


def test_lines() -> None:
    text = f"{AT} stdout F one  two\n{AT} stderr F \n"
    assert list(Parser().feed(text.encode())) == [LogLine(TIME, "stdout", "one  two"), LogLine(TIME, "stderr", "")]


def test_parts_are_joined_by_stream() -> None:
    text = f"{AT} stdout P a\n{AT} stderr F x\n{AT} stdout F b\n"
    assert [(line.stream, line.text) for line in Parser().feed(text.encode())] == [("stderr", "x"), ("stdout", "ab")]


async def test_last_words_without_an_end_of_line(tmp_path: Path) -> None:
    """They are given once it is certain that no more comes, or when somebody asks for what is there."""
    path = tmp_path / "log"
    path.write_text(f"{AT} stdout F one\n{AT} stdout P fatal: \n{AT} stderr P no \n{AT} stderr P memory\n")
    expected = [("stdout", "one"), ("stdout", "fatal: "), ("stderr", "no memory")]
    assert [(line.stream, line.text) for line in tail(path, 5)] == expected
    assert [(line.stream, line.text) for line in tail(path, 1)] == expected[2:]
    for lines in (None, 2, 0):
        told = [(line.stream, line.text) async for line in follow(path, lines, None)]
        assert told == (expected if lines is None else expected[3 - lines :])
    ended = asyncio.get_running_loop().create_future()
    following = follow(path, None, ended)
    assert (await anext(following)).text == "one"
    with path.open("a") as log:
        log.write(f"{AT} stdout P disk\n")
    ended.set_result(None)
    assert [(line.stream, line.text) async for line in following] == [("stdout", "fatal: disk"), expected[2]]


@pytest.mark.parametrize("follows", [False, True])
async def test_others_have_their_turn_while_a_long_log_is_read(tmp_path: Path, follows: bool) -> None:
    """Also when who reads it waits for nothing."""
    path = tmp_path / "log"
    path.write_text(f"{AT} stdout F {'x' * 100}\n" * 10_000)
    ended = asyncio.get_running_loop().create_future()
    ended.set_result(None)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    waiting = asyncio.gather(others())
    assert len([line async for line in follow(path, None, ended if follows else None)]) == 10_000
    waiting.cancel()
    assert turns >= path.stat().st_size // CHUNK_BYTES


async def test_what_is_written_meanwhile_does_not_keep_who_wants_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text(f"{AT} stdout F {'x' * 100}\n" * 1_000)
    read = 0
    with path.open("a") as log:
        async for _ in follow(path, None, None):
            read += 1
            log.write(f"{AT} stdout F more\n" * 10)
            log.flush()
    assert read == 1_000


async def test_a_log_that_goes_while_it_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text(f"{AT} stdout F one\n")
    following = follow(path, None, asyncio.get_running_loop().create_future())
    assert (await anext(following)).text == "one"
    path.unlink()
    assert [line async for line in following] == []


async def test_more_followers_than_the_kernel_allows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: str, mask: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(kernel, "inotify", refused)
    (path := tmp_path / "log").touch()
    with pytest.raises(PoolExhausted) as exhausted:
        await anext(follow(path, None, asyncio.get_running_loop().create_future()))
    assert exhausted.value.evidence == {"pool": "inotify", "errno": "EMFILE"}


def test_what_was_cut_at_the_beginning_is_left_out() -> None:
    assert [line.text for line in Parser().feed(f"03 stdout F x\ngarbage\n\n{AT} stdout F y\n".encode())] == ["y"]


@given(st.binary(max_size=300), st.integers(1, 50))
def test_any_bytes_in_any_pieces_give_the_same(data: bytes, size: int) -> None:
    whole = list(Parser().feed(data))
    parser = Parser()
    pieces = [line for i in range(0, len(data), size) for line in parser.feed(data[i : i + size])]
    assert pieces == whole


def test_tail(tmp_path: Path) -> None:
    path = tmp_path / "log"
    assert tail(path, 5) == []
    path.write_text("".join(f"{AT} stdout F {'x' * 2000}{i}\n" for i in range(300)))
    assert [line.text[2000:] for line in tail(path, 2)] == ["298", "299"]
    assert tail(path, 0) == []
    texts = tail_text(path)
    assert len(texts) == 20
    assert all(len(text) == 1024 for text in texts)
