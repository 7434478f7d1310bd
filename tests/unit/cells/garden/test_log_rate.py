"""What a log rate limit lets through."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from cells.garden.log_rate import RateLimit, limited
from cells.garden.spec import LogLine

BEGAN = datetime(2026, 1, 2, tzinfo=UTC)
NOTICE = "app instance exceeded log rate limit (100 bytes/sec)"


def line(at_s: float, size: int) -> LogLine:
    return LogLine(BEGAN + timedelta(seconds=at_s), "stdout", "x" * size)


def passed(*lines: LogLine) -> list[LogLine]:
    limit = RateLimit(100)
    return [one for given in lines for one in limit.passed(given)]


def texts(lines: list[LogLine]) -> list[str]:
    return [NOTICE if one.text == NOTICE else str(len(one.text)) for one in lines]


def test_a_second_of_it_may_come_at_once() -> None:
    assert texts(passed(line(0, 60), line(0, 40), line(0, 1))) == ["60", "40", NOTICE]


def test_one_notice_a_second() -> None:
    flood = [line(at / 10, 101) for at in range(25)]
    assert texts(passed(*flood)) == [NOTICE, NOTICE, NOTICE]
    assert {one.stream for one in passed(*flood)} == {"stderr"}


def test_it_fills_again() -> None:
    assert texts(passed(line(0, 100), line(0.1, 50), line(0.6, 50))) == ["100", NOTICE, "50"]


def test_an_empty_line_always_passes() -> None:
    assert texts(passed(line(0, 100), line(0, 0))) == ["100", "0"]


@given(st.lists(st.tuples(st.floats(0, 2), st.integers(0, 150)), max_size=60))
def test_never_more_than_the_rate_and_one_second(steps: list[tuple[float, int]]) -> None:
    at_s, given_lines = 0.0, []
    for pause_s, size in steps:
        at_s += pause_s
        given_lines.append(line(at_s, size))
    kept = [one for one in passed(*given_lines) if one.text != NOTICE]
    for begin in range(len(kept)):
        for end in range(begin, len(kept)):
            span_s = (kept[end].at - kept[begin].at).total_seconds()
            assert sum(len(one.text) for one in kept[begin : end + 1]) <= 100 * (1 + span_s) + 1e-3
    small = sum(size for _, size in steps)
    if small <= 100:
        assert kept == given_lines


@given(st.lists(st.datetimes(timezones=st.just(UTC)), max_size=20))
def test_a_clock_that_is_set_back_breaks_nothing(moments: list[datetime]) -> None:
    lines = [LogLine(at, "stdout", "x" * 60) for at in moments]
    limit = RateLimit(100)
    for one in lines:
        assert len(list(limit.passed(one))) <= 1


async def test_whoever_stops_reading_ends_the_reading_below() -> None:
    ended = []

    async def source() -> AsyncGenerator[LogLine, None]:
        try:
            while True:
                yield line(0, 1)
        finally:
            ended.append(True)

    lines = limited(source(), 100)
    async for _ in lines:
        break
    await lines.aclose()
    assert ended == [True]
