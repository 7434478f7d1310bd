"""What has to be true after a request that failed: the answer, what is stored of it, the row, and the host."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from attrs import frozen

from tests.chain.answers import Answer, well_formed
from tests.chain.installation import Installation

CLOCKS_APART_S = 2.0
"""What is written by the wall clock of the BBS against what Postgres wrote."""


@frozen(kw_only=True)
class Expected:
    """A failure as its table row says it."""

    code: str
    status: int = 500
    outcome: str = "rolled_back"
    hops: tuple[str, ...]
    """The whole chain from the outside in."""
    evidence: tuple[str, ...] = ()
    """Members that evidence has to have."""
    state: str = "UNCLAIMED"
    """Of the row; empty when there is none any more."""


async def failed(
    installation: Installation, answer: Answer, expected: Expected, process_guid: str = "web", index: int = 0
) -> dict[str, Any]:
    """The document of an answer, after a look at everything that a failed start has to leave, and must not leave."""
    left = installation.left()
    assert answer.json["code"] == expected.code, answer.body
    document = well_formed(answer)
    assert answer.status == expected.status
    assert document["outcome"] == expected.outcome
    assert answer.hops == list(expected.hops)
    evidence = document.get("evidence", {})
    assert set(expected.evidence) <= set(evidence), evidence
    assert left == [], "left on the host at the moment of the answer"
    assert document["subject"]["guid"] == process_guid
    await is_stored(installation, answer)
    if expected.state:
        await _row_says(installation, document, expected, process_guid, index)
    nothing_in_books(installation)
    return document


async def is_stored(installation: Installation, answer: Answer) -> None:
    """What can be read again is what was answered, byte for byte."""
    stored = await installation.request("GET", answer.json["instance"])
    assert stored.status == 200
    assert stored.body == answer.body


async def _row_says(
    installation: Installation, document: dict[str, Any], expected: Expected, process_guid: str, index: int
) -> None:
    row = await installation.row(process_guid, index)
    assert row["state"] == expected.state, row
    assert row["failure"] == document
    assert row.get("cell_id") is None
    if expected.state == "CRASHED":
        assert row["crash_reason"] == document["detail"]
        assert row["crash_count"] == 1
    else:
        assert row["placement_error"] == document["detail"]
        assert row.get("crash_reason") is None
        assert row.get("crash_count", 0) == 0
        assert row["attempts"] >= 1
    assert row["next_attempt_at"] is not None
    apart = _time(row["next_attempt_at"]) - _time(document["next_attempt_at"])
    assert abs(apart) < timedelta(seconds=CLOCKS_APART_S)
    assert _time(row["next_attempt_at"]) > datetime.now(UTC) - timedelta(seconds=CLOCKS_APART_S)


def nothing_in_books(installation: Installation) -> None:
    """No cell counts anything as taken."""
    for node in installation.nodes.values():
        books = node.cell.work.books
        assert [instance.guid for instance in books.instances] == []
        assert books.reservations.available().memory_mb == node.config.memory_mb


async def nothing_was_written(installation: Installation, process_guids: Sequence[str] = ()) -> None:
    """A 4xx left no trace but the LRPs that were there before."""
    lists = {
        path: (await installation.request("GET", f"/v1/{path}")).json["items"]
        for path in ("desired_lrps", "actual_lrps", "failures")
    }
    assert [lrp["definition"]["process_guid"] for lrp in lists["desired_lrps"]] == list(process_guids)
    assert {row["process_guid"] for row in lists["actual_lrps"]} == set(process_guids)
    assert lists["failures"] == []


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
