"""An HTTP answer, and what every failure document has to say whatever failed."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import msgspec
from attrs import frozen

from diego_py.errors import registry

MEMBERS = {
    "type",
    "title",
    "status",
    "detail",
    "code",
    "origin",
    "fault",
    "outcome",
    "retryable",
    "request_id",
    "trace_id",
    "budget_ms",
    "elapsed_ms",
    "chain",
    "next",
}
FRAME_MEMBERS = {"hop", "id", "op", "code", "detail", "status", "started_at", "elapsed_ms", "self_ms"}
MARGIN_MS = 1.0
"""Two hops round their times each for itself."""


@frozen
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def hops(self) -> list[str]:
        """The names of the hops in the chain, attempts that were set aside included."""
        return [frame["hop"] for frame in self.json["chain"]]

    @property
    def codes(self) -> list[str]:
        return [frame["code"] for frame in self.json["chain"]]


def well_formed(answer: Answer) -> dict[str, Any]:
    """The failure document of an answer, after a look at all that is the same for every failure."""
    document: dict[str, Any] = answer.json
    assert answer.headers["Content-Type"].startswith("application/problem+json")
    assert set(document) >= MEMBERS, MEMBERS - set(document)
    assert document["status"] == answer.status
    assert document["type"] == f"/errors/{document['code']}"
    kind = registry()[document["code"]]
    assert (document["title"], document["fault"]) == (kind.title, kind.fault)
    assert document["next"], "says nothing about what to do next"
    assert all(step["do"] for step in document["next"])
    assert not any("{" in step.get("run", "") for step in document["next"]), document["next"]
    assert answer.headers["X-Request-Id"] == document["request_id"]
    assert answer.headers["traceparent"].split("-")[1] == document["trace_id"]
    assert answer.headers["Server-Timing"].count("dur=") == len(document["chain"])
    if document["status"] == 503:
        assert int(answer.headers["Retry-After"]) >= 1
    _check_frames(document, answer)
    return document


def _check_frames(document: dict[str, Any], answer: Answer) -> None:
    frames = document["chain"]
    for frame in frames:
        assert set(frame) >= FRAME_MEMBERS, (FRAME_MEMBERS - set(frame), frame)
        assert 0 <= frame["self_ms"] <= frame["elapsed_ms"] + MARGIN_MS, frame
    line = main_line(frames)
    assert line[0]["hop"] == "bbs"
    assert line[0]["elapsed_ms"] == document["elapsed_ms"]
    assert line[-1]["hop"] == document["origin"]
    assert line[-1]["code"] == document["code"]
    for outer, inner in pairwise(line):
        assert inner["elapsed_ms"] <= outer["elapsed_ms"] + MARGIN_MS, (outer, inner)
    assert ("Proxy-Status" in answer.headers) == (len(frames) > 1)


def main_line(frames: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The frames without the attempts that were set aside."""
    line, skip = [], 0
    for frame in frames:
        skip = skip or frame.get("set_aside", 0)
        if skip:
            skip -= 1
        else:
            line.append(frame)
    return line
