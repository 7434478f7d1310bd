"""A user of the API that adds as little as it can: one connection, no loop, the standard library."""

from __future__ import annotations

import http.client
import json
import re
import time
from typing import Any
from urllib.parse import urlsplit

from attrs import define, field, frozen

TIMEOUT_S = 300.0
BUDGET_MS = "240000"
TIMING = re.compile(r'([A-Za-z0-9_.-]+);dur=([0-9.]+);desc="[^" ]* ?([^"]*)"')


@frozen
class Answer:
    """What came back, and how long it took from before the request was sent."""

    status: int
    body: bytes
    seconds: float
    hops: tuple[tuple[str, float], ...]
    """Self time in milliseconds of each hop on the critical path, by hop and operation."""

    def json(self) -> Any:
        return json.loads(self.body)

    def expect(self, *statuses: int) -> Answer:
        if self.status not in statuses:
            raise RuntimeError(f"status {self.status}, not {statuses}: {self.body[:2000].decode(errors='replace')}")
        return self


@define
class Api:
    """The BBS at `url`."""

    url: str
    _connection: http.client.HTTPConnection = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=TIMEOUT_S)

    def request(self, method: str, path: str, body: object = None) -> Answer:
        content = None if body is None else json.dumps(body).encode()
        headers = {"X-Budget-Ms": BUDGET_MS} | ({} if content is None else {"Content-Type": "application/json"})
        began_s = time.perf_counter()
        self._connection.request(method, path, content, headers)
        response = self._connection.getresponse()
        answered = response.read()
        seconds = time.perf_counter() - began_s
        return Answer(response.status, answered, seconds, hops(response.getheader("Server-Timing", "")))

    def desire(self, definition: dict[str, Any]) -> Answer:
        return self.request("POST", "/v1/desired_lrps", definition)

    def delete(self, process_guid: str) -> Answer:
        return self.request("DELETE", f"/v1/desired_lrps/{process_guid}")


def hops(header: str) -> tuple[tuple[str, float], ...]:
    """Placed items are named by their instance; here they are the same hop."""
    found = TIMING.findall(header)
    return tuple((f"{hop} {re.sub(r'^place .*', 'place', op)}", float(duration)) for hop, duration, op in found)


def lrp(process_guid: str, command: tuple[str, ...], **more: object) -> dict[str, Any]:
    """One instance of a command in busybox, without a check."""
    run = {"path": command[0], "args": list(command[1:]), "user": "root"}
    return {
        "process_guid": process_guid,
        "domain": "bench",
        "rootfs": "preloaded:busybox",
        "instances": 1,
        "memory_mb": 64,
        "action": {"run": run},
        **more,
    }
