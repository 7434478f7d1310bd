"""The client of the BBS, for asyncio programs and for the `diego` command. Without asyncio: clients/bbs_sync.py.

Methods return models. A failure is raised as the chain it was: `except PlacementFailed`, `error.find(NoCellFits)`,
`error.problem` (the whole document) and a plain traceback, which shows every hop, all work.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from types import TracebackType
from typing import Any, Literal, Self, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec
from attrs import define, evolve, field

from diego_py import chain, wire
from diego_py.call import Call, Hop
from diego_py.clients.answered import converted, decoded, loose, loosely, object_of
from diego_py.clients.bbs_answers import CellStatus, Decisions, Deleted, LogLine, Placed, PlannedInstance, StoredFailure
from diego_py.clients.bbs_wire import instance_path, lines, lrp_path, task_path, with_query
from diego_py.errors import ConnectionLost, DiegoError
from diego_py.http import headers
from diego_py.http.client import Answer, HopClient, Peer
from diego_py.http.server import decode
from diego_py.models.actual_lrp import ActualLRP
from diego_py.models.desired_lrp import DesiredLRP, DesiredLRPDefinition, DesiredLRPUpdate
from diego_py.models.task import Task, TaskRequest
from diego_py.models.work import EvacuatedCell
from diego_py.service.clock import Clock, SystemClock

T = TypeVar("T")

URL_DEFAULT = "http://127.0.0.1:8889"
BUDGET_S = 60.0
"""How long a request may take when the caller names no wait; a start timeout of the definition is added to it."""
CHANGE_BUDGET_S = 180.0
"""The same for changes of an LRP whose start timeout the client does not know."""
WAIT_MARGIN_S = 2.0
"""What the server may take beyond the wait, to say that it is over."""
TASK_BUDGET_S = 3_599.0
"""How long the end of a task is waited for when the caller names no wait."""
PAGE_ITEMS = 500

OnFailure = Literal["keep", "rollback"]
Definition = DesiredLRPDefinition | Mapping[str, Any]
"""A definition, or the same as it stands in JSON."""
TaskOrder = TaskRequest | Mapping[str, Any]
"""A task to run, or the same as it stands in JSON."""


def _without_slash(url: str) -> str:
    return url.rstrip("/")


@define
class BbsClient:
    """Typed calls to one BBS, or to the load balancer before many. Nothing is retried here."""

    url: str = field(default=URL_DEFAULT, converter=_without_slash)
    wait_s: int | None = None
    """How long we wait for a change (`Prefer: wait`), which then goes on by itself; None waits until it is done."""
    clock: Clock = field(factory=SystemClock)
    told: Callable[[Hop], None] = lambda hop: None
    """Called after each answer with the hops that the request went through."""
    _http: HopClient = field(factory=HopClient, init=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._http.close()

    async def desire(
        self, definition: Definition, *, on_failure: OnFailure = "keep", idempotency_key: str | None = None
    ) -> Placed:
        """Run an LRP. Returns when every instance is RUNNING; on failure it stays desired, or `rollback` undoes it.

        The same key sent again answers with what became of the first request; by default each call has a new one.
        """
        whole = _definition(definition)
        path = f"/v1/desired_lrps?on_failure={on_failure}"
        extra = {headers.IDEMPOTENCY_KEY: idempotency_key or secrets.token_hex(16)}
        budget_s = BUDGET_S + whole.start_timeout_ms / 1000
        answer = await self._change("desire", "POST", path, wire.encode_revealed(whole), extra, budget_s)
        return decoded(Placed, answer.body)

    async def replace(
        self,
        definition: Definition,
        *,
        strategy: str | None = None,
        max_in_flight: int = 1,
        if_match: str | None = None,
        idempotency_key: str | None = None,
    ) -> Placed:
        """Make an LRP be as this definition says; create it if there is none. Returns when every instance is.

        `strategy` is `rolling` (each new instance serves before its old one stops) or `recreate`; None: as the
        definition says. At the first new instance that fails it raises ReplaceFailed, and the old ones go on serving.
        """
        whole = _definition(definition)
        query = {"strategy": strategy, "max_in_flight": max_in_flight}
        extra = {headers.IDEMPOTENCY_KEY: idempotency_key or secrets.token_hex(16)}
        extra |= {"If-Match": if_match} if if_match else {}
        rounds = -(-max(1, whole.instances) // max_in_flight)
        budget_s = BUDGET_S + rounds * (whole.start_timeout_ms / 1000 or BUDGET_S)
        path, body = with_query(lrp_path(whole.process_guid), query), wire.encode_revealed(whole)
        return decoded(Placed, (await self._change("replace", "PUT", path, body, extra, budget_s)).body)

    async def submit(self, definition: Definition, *, idempotency_key: str | None = None) -> str:
        """Hand in an LRP without waiting for its instances. Returns the path at which it can be read."""
        extra = {headers.IDEMPOTENCY_KEY: idempotency_key or secrets.token_hex(16), headers.PREFER: "respond-async"}
        body = wire.encode_revealed(_definition(definition))
        answer = await self._send("submit", "POST", "/v1/desired_lrps", body, extra)
        return answer.headers.get("Location", "")

    async def get(self, process_guid: str) -> DesiredLRP:
        """A desired LRP. Raises DesiredLRPNotFound."""
        return decoded(DesiredLRP, (await self._send("get", "GET", lrp_path(process_guid))).body)

    async def desired_lrps(self, domain: str | None = None) -> list[DesiredLRP]:
        """All desired LRPs, or those of a domain."""
        pages = self._pages("/v1/desired_lrps", {"domain": domain})
        return [converted(DesiredLRP, item) async for item in pages]

    async def update(self, process_guid: str, change: DesiredLRPUpdate, *, if_match: str | None = None) -> Placed:
        """Change an LRP. Returns when it is as asked. Raises PreconditionFailed when `if_match` is not its ETag."""
        extra = {headers.IDEMPOTENCY_KEY: secrets.token_hex(16)} | ({"If-Match": if_match} if if_match else {})
        answer = await self._change("update", "PATCH", lrp_path(process_guid), wire.encode_revealed(change), extra)
        return decoded(Placed, answer.body)

    async def scale(self, process_guid: str, instances: int) -> Placed:
        """Run so many instances. Returns when the new ones are RUNNING and the surplus is gone."""
        return await self.update(process_guid, DesiredLRPUpdate(instances=instances))

    async def delete(self, process_guid: str) -> Deleted:
        """Remove an LRP. Returns when its containers are gone."""
        return loose(Deleted, (await self._change("delete", "DELETE", lrp_path(process_guid))).body)

    async def actual_lrps(
        self,
        process_guid: str | None = None,
        *,
        domain: str | None = None,
        cell_id: str | None = None,
        state: str | None = None,
    ) -> list[ActualLRP]:
        """The instances that match every given filter."""
        query = {"process_guid": process_guid, "domain": domain, "cell_id": cell_id, "state": state}
        return [converted(ActualLRP, item) async for item in self._pages("/v1/actual_lrps", query)]

    async def actual_lrp(self, process_guid: str, index: int) -> ActualLRP:
        """One instance. Raises ActualLRPNotFound."""
        return decoded(ActualLRP, (await self._send("get_instance", "GET", instance_path(process_guid, index))).body)

    async def restart(self, process_guid: str, index: int) -> ActualLRP:
        """Stop an instance and start it again, perhaps on another cell. Returns when the new one is RUNNING."""
        answer = await self._change("restart", "POST", instance_path(process_guid, index) + "/restart", b"{}")
        return decoded(ActualLRP, answer.body)

    async def stop(self, process_guid: str, index: int) -> None:
        """Stop an instance. Convergence starts a new one for as long as the LRP desires it."""
        await self._change("stop", "DELETE", instance_path(process_guid, index))

    async def logs(
        self, process_guid: str, index: int = 0, *, tail: int | None = None, follow: bool = False
    ) -> AsyncIterator[LogLine]:
        """What an instance wrote; with `follow` the lines to come as well, until it ends or the caller stops."""
        async for line in self._log(instance_path(process_guid, index), tail, follow):
            yield line

    async def run_task(
        self,
        task: TaskOrder,
        *,
        until_completed: bool = False,
        on_failure: OnFailure = "keep",
        idempotency_key: str | None = None,
    ) -> Task:
        """Run a task, at most once. Returns when it runs, or with `until_completed` when it has ended well.

        On failure it stays and is tried again if nothing of it has begun, or `rollback` removes it.
        """
        whole = task if isinstance(task, TaskRequest) else decode(TaskRequest, msgspec.json.encode(task))
        body = wire.encode_revealed(whole)
        until = "completed" if until_completed else None
        path = with_query("/v1/tasks", {"on_failure": on_failure, "until": until})
        extra = {headers.IDEMPOTENCY_KEY: idempotency_key or secrets.token_hex(16)}
        budget_s = TASK_BUDGET_S if until_completed else CHANGE_BUDGET_S
        return decoded(Task, (await self._change("run_task", "POST", path, body, extra, budget_s)).body)

    async def task(self, task_guid: str, *, until_completed: bool = False) -> Task:
        """A task; with `until_completed` when it has completed, or as it is after `wait_s`. Raises TaskNotFound."""
        path = with_query(task_path(task_guid), {"until": "completed" if until_completed else None})
        if not until_completed:
            return decoded(Task, (await self._send("get_task", "GET", path)).body)
        return decoded(Task, (await self._change("get_task", "GET", path, budget_s=TASK_BUDGET_S)).body)

    async def tasks(
        self, *, domain: str | None = None, cell_id: str | None = None, state: str | None = None
    ) -> list[Task]:
        """The tasks that match every given filter."""
        query = {"domain": domain, "cell_id": cell_id, "state": state}
        return [converted(Task, item) async for item in self._pages("/v1/tasks", query)]

    async def cancel_task(self, task_guid: str) -> Task:
        """Complete a task as cancelled. Returns when its process is gone."""
        return decoded(Task, (await self._change("cancel_task", "POST", task_path(task_guid) + "/cancel", b"{}")).body)

    async def resolve_task(self, task_guid: str) -> Task:
        """Take the result of a completed task, alone; delete it then."""
        answer = await self._change("resolve_task", "POST", task_path(task_guid) + "/resolve", b"{}")
        return decoded(Task, answer.body)

    async def delete_task(self, task_guid: str) -> Task:
        """Forget a completed task. Raises TaskNotCompleted."""
        return decoded(Task, (await self._change("delete_task", "DELETE", task_path(task_guid))).body)

    async def task_logs(
        self, task_guid: str, *, tail: int | None = None, follow: bool = False
    ) -> AsyncIterator[LogLine]:
        """What a task wrote; with `follow` the lines to come as well."""
        async for line in self._log(task_path(task_guid), tail, follow):
            yield line

    async def _log(self, of: str, tail: int | None, follow: bool) -> AsyncIterator[LogLine]:
        path = with_query(of + "/logs", {"tail": tail, "follow": "true" if follow else None})
        call = Call.begin(self.clock, headers.BUDGET_MS_MAX - 1 if follow else BUDGET_S * 1000)
        try:
            async with self._http.stream(call, self._peer(), path) as content:
                async for line in lines(content):
                    yield loosely(LogLine, line)
        except aiohttp.ClientError as lost:
            broken = ConnectionLost(f"connection to {self.url} broke while the log was read")
            raise _told(broken, call) from lost
        except DiegoError as error:
            raise _told(error, call) from error.__cause__

    async def cells(self) -> list[CellStatus]:
        """Every known cell, live or not."""
        return [loosely(CellStatus, item) async for item in self._pages("/v1/cells", {})]

    async def cell(self, cell_id: str) -> CellStatus:
        """One cell. Raises CellNotFound."""
        return loose(CellStatus, (await self._send("get_cell", "GET", f"/v1/cells/{quote(cell_id, safe='')}")).body)

    async def decisions(
        self, process_guid: str | None = None, *, task_guid: str | None = None, cell_id: str | None = None
    ) -> Decisions:
        """What convergence decided in its last round about what is not as desired, and matches every given filter."""
        query = {"process_guid": process_guid, "task_guid": task_guid, "cell_id": cell_id}
        return loose(Decisions, (await self._send("decisions", "GET", with_query("/v1/decisions", query))).body)

    async def evacuate(self, cell_id: str, *, timeout_s: int = 600) -> int:
        """Empty a cell. Returns how many instances were moved once it has none. Raises EvacuationFailed with the rest.

        The cell takes no work from then on, also when it starts again, until `readmit`.
        """
        path = with_query(f"/v1/cells/{quote(cell_id, safe='')}/evacuate", {"timeout_s": timeout_s})
        answer = await self._change("evacuate", "POST", path, b"{}", budget_s=timeout_s + BUDGET_S)
        return decoded(EvacuatedCell, answer.body).moved

    async def readmit(self, cell_id: str) -> None:
        """Give a cell work again."""
        await self._send("readmit", "POST", f"/v1/cells/{quote(cell_id, safe='')}/readmit", b"{}")

    async def forget_cell(self, cell_id: str) -> None:
        """Forget a cell that is dead for good."""
        await self._send("forget_cell", "DELETE", f"/v1/cells/{quote(cell_id, safe='')}")

    async def failures(
        self,
        process_guid: str | None = None,
        *,
        task_guid: str | None = None,
        code: str | None = None,
        limit: int = 20,
    ) -> list[StoredFailure]:
        """Stored failures, the newest first, at most `limit`."""
        found: list[StoredFailure] = []
        query = {"process_guid": process_guid, "task_guid": task_guid, "code": code}
        async for item in self._pages("/v1/failures", query, limit):
            found.append(loosely(StoredFailure, item))
            if len(found) == limit:
                break
        return found

    async def failure(self, failure_id: str) -> dict[str, Any]:
        """The whole document of one stored failure. Raises FailureNotFound."""
        return object_of((await self._send("get_failure", "GET", f"/v1/failures/{quote(failure_id, safe='')}")).body)

    async def domains(self) -> list[dict[str, Any]]:
        """The domains that are fresh now."""
        return [item async for item in self._pages("/v1/domains", {})]

    async def keep_domain(self, domain: str, ttl_s: int = 0) -> None:
        """Say that all that a domain desires is handed in: true for so many seconds, with 0 for ever."""
        body = msgspec.json.encode({"ttl_s": ttl_s})
        await self._send("keep_domain", "PUT", f"/v1/domains/{quote(domain, safe='')}", body)

    async def plan(self, definition: Definition) -> list[PlannedInstance]:
        """What the auction would do with this definition now. Nothing is stored, reserved or started."""
        body = wire.encode_revealed(_definition(definition))
        answer = await self._send("plan", "POST", "/v1/auctions/dry_run", body)
        return [loosely(PlannedInstance, item) for item in object_of(answer.body).get("assignments", ())]

    async def ready(self) -> dict[str, Any]:
        """What `/readyz?verbose` says. Raises while the BBS is not ready."""
        return object_of((await self._send("readyz", "GET", "/readyz?verbose", budget_s=5.0)).body)

    async def _change(
        self,
        op: str,
        method: str,
        path: str,
        body: bytes | None = None,
        extra: Mapping[str, str] | None = None,
        budget_s: float = CHANGE_BUDGET_S,
    ) -> Answer:
        """Send something that takes its time. A wait bounds how long we wait for it, not how long it may take."""
        if self.wait_s is None:
            return await self._send(op, method, path, body, extra, budget_s)
        asked = {**(extra or {}), headers.PREFER: f"wait={self.wait_s}"}
        return await self._send(op, method, path, body, asked, max(budget_s, self.wait_s + WAIT_MARGIN_S))

    async def _send(
        self,
        op: str,
        method: str,
        path: str,
        body: bytes | None = None,
        extra: Mapping[str, str] | None = None,
        budget_s: float = BUDGET_S,
    ) -> Answer:
        call = Call.begin(self.clock, min(budget_s * 1000, headers.BUDGET_MS_MAX - 1))
        hop = Hop("client", "diego", op, self.clock.monotonic(), self.clock.now())
        try:
            answer = await self._http.request(evolve(call, here=hop), self._peer(), method, path, body, op, extra)
        except DiegoError as error:
            raise _told(error, call) from error.__cause__
        hop.finish(self.clock.monotonic())
        self.told(hop)
        return answer

    async def _pages(
        self, path: str, query: Mapping[str, Any], limit: int = PAGE_ITEMS
    ) -> AsyncIterator[dict[str, Any]]:
        """The items of a list, page after page."""
        cursor: str | None = None
        while True:
            asked = with_query(path, {**query, "limit": min(limit, PAGE_ITEMS), "cursor": cursor})
            page = object_of((await self._send(f"list {path}", "GET", asked)).body)
            for item in page.get("items", ()):
                yield item
            cursor = page.get("next_cursor")
            if cursor is None:
                return

    def _peer(self) -> Peer:
        return Peer("bbs", self.url, self.url)


def _definition(definition: Definition) -> DesiredLRPDefinition:
    """Raises InvalidSpec with every bad field."""
    if isinstance(definition, DesiredLRPDefinition):
        return definition
    return decode(DesiredLRPDefinition, msgspec.json.encode(definition))


def _told(error: DiegoError, call: Call) -> DiegoError:
    """Complete an error that leaves the client: its document, and for tracebacks a note of each hop."""
    if error.problem is None:
        error.problem = msgspec.json.decode(chain.problem(error, call).encode())
    for link in error.links():
        if link.frame is not None and not getattr(link, "__notes__", None):
            frame = link.frame
            link.add_note(f"[{frame.hop} {frame.id}] {frame.op}: {link.code} after {frame.elapsed_ms:.0f} ms")
    return error
