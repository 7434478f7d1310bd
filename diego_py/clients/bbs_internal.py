"""The cell's client of the BBS: claims before a start, and the report that is heartbeat and bulk sync at once.

Each call may be repeated at another BBS: a claim is a compare-and-set by instance_guid, a report carries a sequence,
and what ended has ended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from attrs import define, field

from diego_py import chain, telling, wire
from diego_py.call import Call
from diego_py.clients.answered import decoded, told
from diego_py.errors import (
    BadAnswer,
    BudgetSpent,
    CallerError,
    ClaimLost,
    ClaimRefused,
    ConnectionLost,
    DatabaseConflict,
    DatabaseUnavailable,
    DiegoError,
    HopUnreachable,
    Outcome,
    Saturated,
    ShuttingDown,
)
from diego_py.http.client import Answer, HopClient, Peer
from diego_py.models.identifiers import CellId, TaskGuid
from diego_py.models.task_work import TaskClaim, TaskEnd
from diego_py.models.work import (
    CellReport,
    ClaimGranted,
    ClaimResults,
    Claims,
    EvacuatedCell,
    Heartbeat,
    HeartbeatAnswer,
    ReportAnswer,
)

ELSEWHERE = (
    HopUnreachable,
    ConnectionLost,
    BudgetSpent,
    ShuttingDown,
    Saturated,
    DatabaseUnavailable,
    DatabaseConflict,
)
"""Roots of failures that another BBS may not have. Both calls may be repeated: what was done already is done."""
ASK_MS_MAX = 5_000.0
"""How long one BBS may take while there is another one to ask: it may be frozen, and its kernel still takes calls."""


@define
class BBSInternalClient:
    """Talks to one BBS until that one fails, then to the next."""

    http: HopClient
    urls: tuple[str, ...]
    cell_id: CellId
    _current: int = field(default=0, init=False)

    async def start(self) -> None:
        """Nothing to do: connections come with the first call."""

    async def stop(self) -> None:
        """Close all connections."""
        await self.http.close()

    async def claim(self, call: Call, claims: Claims) -> Sequence[ClaimGranted | DiegoError]:
        """Take the rows of instances for this cell; what became of each, in order.

        A ClaimRefused where the BBS said no, a ClaimLost where none said anything that counts; raised if for all.
        """
        answer = await self._claim(call, "/v1/claims", telling.encode(claims), "claim_instance")
        results = told(ClaimResults, answer.body).results
        if len(results) != len(claims.instances):
            raise BadAnswer("not every claim has a result", outcome=Outcome.UNKNOWN)
        return [result.granted or _refusal(result.failure) for result in results]

    async def claim_task(self, call: Call, task_guid: TaskGuid, request: TaskClaim) -> None:
        """Take the row of a task for this cell. Raises as `claim`."""
        await self._claim(call, f"/v1/tasks/{task_guid}/claim", wire.encode(request), "claim_task")

    async def task_ended(self, call: Call, end: TaskEnd) -> None:
        """Say how a task ended. Raises what the last BBS said, or that none can be reached."""
        await self._request(call, f"/v1/tasks/{end.task_guid}/ended", wire.encode(end), "task_ended")

    async def _claim(self, call: Call, path: str, body: bytes, op: str) -> Answer:
        try:
            return await self._request(call, path, body, op)
        except DiegoError as error:
            judged = _judged(error)
            raise judged from judged.__cause__

    async def evacuate(self, call: Call, timeout_s: int) -> int:
        """Have all instances of this cell moved elsewhere; returns how many were. Raises EvacuationFailed."""
        path = f"/v1/cells/{self.cell_id}/evacuate?timeout_s={timeout_s}"
        answer = await self._request(call, path, b"{}", "evacuate_cell")
        return decoded(EvacuatedCell, answer.body).moved

    async def report(self, call: Call, report: CellReport) -> ReportAnswer:
        """Say what the cell has. Raises what the last BBS said, or that none can be reached."""
        path = f"/v1/cells/{self.cell_id}/report"
        answer = await self._request(call, path, telling.encode(report), "cell_report")
        return decoded(ReportAnswer, answer.body)

    async def heartbeat(self, call: Call, beat: Heartbeat) -> HeartbeatAnswer:
        """Say that the cell is as it said last. Raises as `report`."""
        path = f"/v1/cells/{self.cell_id}/heartbeat"
        answer = await self._request(call, path, telling.encode(beat), "cell_heartbeat")
        return told(HeartbeatAnswer, answer.body)

    async def _request(self, call: Call, path: str, body: bytes, op: str) -> Answer:
        """Ask each BBS once, the one that answered last first. The failure carries the earlier ones as attempts.

        Each has its share of the time that is left.
        """
        failures: list[DiegoError] = []
        for step in range(len(self.urls)):
            position = (self._current + step) % len(self.urls)
            url, others = self.urls[position], len(self.urls) - step - 1
            share_ms = min(ASK_MS_MAX, call.remaining_ms() / (others + 1))
            asking = call.with_budget(share_ms) if others else call
            try:
                answer = await self.http.request(asking, Peer("bbs", urlsplit(url).netloc, url), "POST", path, body, op)
            except DiegoError as error:
                error.problem = None  # the document ends at the BBS; ours goes on from here
                if not isinstance(error.root, ELSEWHERE):
                    raise
                failures.append(error)
                continue
            self._current = position
            return answer
        if not failures:
            raise HopUnreachable("no BBS is configured", outcome=Outcome.NOT_STARTED)
        *earlier, last = failures
        last.attempts = (*earlier, *last.attempts)
        raise last


def _refusal(document: Mapping[str, Any] | None) -> DiegoError:
    """Why one claim among others was not granted."""
    try:
        error = chain.rebuild(document or {})
    except ValueError as malformed:
        nonsense = BadAnswer("a claim is neither granted nor refused", outcome=Outcome.UNKNOWN)
        nonsense.__cause__ = malformed
        return nonsense
    error.problem = None  # the document ends at the BBS; ours goes on from here
    return _judged(error)


def _judged(error: DiegoError) -> DiegoError:
    """A failed claim as one of the two that a cell tells apart."""
    if error.find(ClaimRefused) is not None:
        return error
    refused = isinstance(error.root, CallerError)
    judged = ClaimRefused("the BBS refused the claim") if refused else ClaimLost("no BBS granted the claim")
    judged.__cause__ = error
    return judged
