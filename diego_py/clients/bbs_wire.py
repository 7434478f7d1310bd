"""Paths that the client of the BBS asks for, and the lines of logs that it is answered."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp

from diego_py.clients.answered import json_of
from diego_py.errors import BadAnswer, Outcome

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


async def lines(content: aiohttp.StreamReader) -> AsyncIterator[Any]:
    """NDJSON as it comes; lines may be longer than the reader's own limit."""
    rest = b""
    async for piece in content.iter_any():
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            if line.strip():
                yield json_of(line)
        if len(rest) > LOG_LINE_BYTES_MAX:
            raise BadAnswer(f"a log line is longer than {LOG_LINE_BYTES_MAX} bytes", outcome=Outcome.UNKNOWN)
