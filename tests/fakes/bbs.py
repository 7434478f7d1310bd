"""The BBS as a cell sees it: claims and reports on a loopback listener, scripted by tests."""

from __future__ import annotations

import asyncio
from io import StringIO

from aiohttp import web
from attrs import define, field

from diego_py import chain, wire
from diego_py.call import Call
from diego_py.errors import ClaimRefused, DiegoError, RequestFailed
from diego_py.http.listener import HttpListener
from diego_py.http.metrics import ServerMetrics
from diego_py.http.server import HopServer, Route, answer, decode, read_json
from diego_py.models.task_work import TaskClaim, TaskEnd, TaskEndAcknowledged
from diego_py.models.work import (
    CellReport,
    ClaimGranted,
    ClaimResult,
    ClaimResults,
    Claims,
    EgressChange,
    Heartbeat,
    HeartbeatAnswer,
    InstanceClaim,
    ReportAnswer,
)
from diego_py.service.clock import SystemClock
from diego_py.service.log import logger
from tests.fakes.happenings import Happenings

MIB = 1024 * 1024


@define
class FakeBBS:
    """Grants every claim and takes every report unless told otherwise."""

    refusal: DiegoError | None = None
    report_refusal: DiegoError | None = None
    end_refusal: DiegoError | None = None
    egress: EgressChange | None = None
    """What a claim is answered with."""
    hold_claims: asyncio.Event | None = None
    stop: tuple[str, ...] = ()
    acknowledges: bool = True
    settled: bool = False
    """Whether heartbeats may follow a report."""
    takes_heartbeats: bool = True
    presence_ttl_ms: int = 15_000
    pause_ms: int = 0
    claims: Happenings = field(factory=Happenings)
    claim_requests: Happenings = field(factory=Happenings)
    """What the claims came in."""
    refused_indices: frozenset[int] = frozenset()
    """Whose claims are refused, each by itself."""
    reports: Happenings = field(factory=Happenings)
    heartbeats: Happenings = field(factory=Happenings)
    task_claims: Happenings = field(factory=Happenings)
    """Task guid and claim."""
    task_ends: Happenings = field(factory=Happenings)
    task_ends_refused: Happenings = field(factory=Happenings)
    _listener: HttpListener | None = None

    async def __aenter__(self) -> FakeBBS:
        routes = [
            Route("POST", "/v1/claims", "claim_instance", self._claim, RequestFailed),
            Route("POST", "/v1/tasks/{guid}/claim", "claim_task", self._claim_task, RequestFailed),
            Route("POST", "/v1/tasks/{guid}/ended", "task_ended", self._task_ended, RequestFailed),
            Route("POST", "/v1/cells/{cell_id}/report", "cell_report", self._report, RequestFailed),
            Route("POST", "/v1/cells/{cell_id}/heartbeat", "cell_heartbeat", self._heartbeat, RequestFailed),
        ]
        log = logger("bbs", "bbs-1", StringIO())
        server = HopServer("bbs", "bbs-1", SystemClock(), log, ServerMetrics(), 100, 4 * MIB, 5_000)
        self._listener = HttpListener(server.application(routes), "127.0.0.1", 0, grace_s=0.1)
        await self._listener.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._listener is not None
        await self._listener.stop()

    @property
    def url(self) -> str:
        assert self._listener is not None
        return f"http://127.0.0.1:{self._listener.port}"

    async def report_with(self, wanted: object, since: int = 0) -> CellReport:
        """The first report that is `wanted` (a predicate), now or later."""
        report: CellReport = await self.reports.first(wanted, since)  # type: ignore[arg-type]
        return report

    async def _claim(self, request: web.Request, call: Call) -> web.StreamResponse:
        claims = decode(Claims, await read_json(request))
        self.claim_requests.add(claims)
        for claim in claims.instances:
            self.claims.add(claim)
        results = [self._result(call, claim) for claim in claims.instances]
        return await self._granted(ClaimResults(results=tuple(results)))

    def _result(self, call: Call, claim: InstanceClaim) -> ClaimResult:
        if claim.index not in self.refused_indices:
            return ClaimResult(granted=ClaimGranted(egress=self.egress))
        refusal = call.framed(ClaimRefused(f"{claim.process_guid}/{claim.index} waits for another one"))
        return ClaimResult(failure=wire.parse(chain.problem(refusal, call).encode()))

    async def _claim_task(self, request: web.Request, call: Call) -> web.StreamResponse:
        self.task_claims.add((request.match_info["guid"], decode(TaskClaim, await read_json(request))))
        return await self._granted()

    async def _granted(self, told: object = None) -> web.StreamResponse:
        if self.hold_claims is not None:
            await self.hold_claims.wait()
        if self.refusal is not None:
            raise self.refusal
        return answer({} if told is None else told)

    async def _task_ended(self, request: web.Request, call: Call) -> web.StreamResponse:
        end = decode(TaskEnd, await read_json(request))
        if self.end_refusal is not None:
            self.task_ends_refused.add(end)
            raise self.end_refusal
        self.task_ends.add(end)
        return answer(TaskEndAcknowledged(task_guid=end.task_guid, instance_guid=end.instance_guid))

    async def _report(self, request: web.Request, call: Call) -> web.StreamResponse:
        report = decode(CellReport, await read_json(request))
        if self.report_refusal is not None:
            raise self.report_refusal
        self.reports.add(report)
        acknowledged = tuple(ended.instance_guid for ended in report.ended) if self.acknowledges else ()
        return answer(
            ReportAnswer(
                stop=self.stop,
                acknowledged=acknowledged,
                presence_ttl_ms=self.presence_ttl_ms,
                pause_ms=self.pause_ms,
                settled=self.settled,
            )
        )

    async def _heartbeat(self, request: web.Request, call: Call) -> web.StreamResponse:
        beat = decode(Heartbeat, await read_json(request))
        if self.report_refusal is not None:
            raise self.report_refusal
        self.heartbeats.add(beat)
        taken = self.takes_heartbeats
        times = {"presence_ttl_ms": self.presence_ttl_ms, "pause_ms": self.pause_ms}
        return answer(HeartbeatAnswer(taken=taken, whole=not taken, **times))
