"""Paths that the client of the BBS asks for, and what it reads of the answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import aiohttp
import msgspec

from diego_py import wire
from diego_py.errors import BadAnswer, Outcome

T = TypeVar("T")

LOG_LINE_BYTES_MAX = 4 * 1024 * 1024


def lrp_path(process_guid: str) -> str:
    return f"/v1/desired_lrps/{quote(process_guid, safe='')}"


def instance_path(process_guid: str, index: int) -> str:
    return f"/v1/actual_lrps/{quote(process_guid, safe='')}/{index}"


def task_path(task_guid: str) -> str:
    return f"/v1/tasks/{quote(task_guid, safe='')}"


def with_query(path: str, query: Mapping[str, Any]) -> str:
    given = {name: value for name, value in query.items() if value is not None}
    return f"{path}?{urlencode(given)}" if given else path


def model(kind: type[T], item: Any) -> T:
    try:
        return wire.convert(kind, item)
    except wire.InvalidFields as malformed:
        raise BadAnswer("the answer does not have the expected form", outcome=Outcome.UNKNOWN) from malformed


def loose(kind: type[T], body: bytes) -> T:
    """A noun of which the server may say more than we read."""
    return msgspec.convert(object_of(body), kind)


def object_of(body: bytes) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(body)
    except msgspec.DecodeError as malformed:
        raise BadAnswer("the answer is not JSON", outcome=Outcome.UNKNOWN) from malformed
    if not isinstance(found, dict):
        raise BadAnswer("the answer is not an object", outcome=Outcome.UNKNOWN)
    return found


async def lines(content: aiohttp.StreamReader) -> AsyncIterator[Any]:
    """NDJSON as it comes; lines may be longer than the reader's own limit."""
    rest = b""
    async for piece in content.iter_any():
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            if line.strip():
                yield msgspec.json.decode(line)
        if len(rest) > LOG_LINE_BYTES_MAX:
            raise BadAnswer(f"a log line is longer than {LOG_LINE_BYTES_MAX} bytes", outcome=Outcome.UNKNOWN)
