"""conmon's log format, whole and cut."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from cells.garden.logs import Parser, tail, tail_text
from cells.garden.spec import LogLine

AT = "2026-11-21T04:18:02.123456789+00:00"
TIME = datetime(2026, 11, 21, 4, 18, 2, 123456, tzinfo=UTC)


def test_lines() -> None:
    text = f"{AT} stdout F one  two\n{AT} stderr F \n"
    assert list(Parser().feed(text.encode())) == [LogLine(TIME, "stdout", "one  two"), LogLine(TIME, "stderr", "")]


def test_parts_are_joined_by_stream() -> None:
    text = f"{AT} stdout P a\n{AT} stderr F x\n{AT} stdout F b\n"
    assert [(line.stream, line.text) for line in Parser().feed(text.encode())] == [("stderr", "x"), ("stdout", "ab")]


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
