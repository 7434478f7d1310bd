"""Instances that a cell is asked for at the same moment go to it in one request, and each is answered by itself.

Who asks while a request to that cell is still being sent, or is still to be made, goes along; nobody waits for more
to come.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Iterable
from typing import Any

import msgspec
from attrs import define, field

from diego_py import chain, wire
from diego_py.call import ANSWER_MARGIN_MS, Call, Hop, result_within
from diego_py.clients.answered import told
from diego_py.clients.turns import Turns
from diego_py.errors import BadAnswer, BudgetSpent, ConnectionLost, DiegoError, HopUnreachable, Outcome, twin
from diego_py.http import headers
from diego_py.http.client import HopClient, Peer, Told
from diego_py.http.parts import Line, lines_of
from diego_py.models.desired_lrp import DesiredLRPDefinition
from diego_py.models.work import WORKS_MAX, Started, Work

CELLS_IN_A_TURN = 2
"""Requests made in one turn of the event loop: the more a process has to do, the longer its turns, and the more
instances go together."""
OP = "run_instance"
PATH = "/v1/instances"
BODY_BYTES_MAX = 1024 * 1024
"""Definitions in one request, unless one alone has more."""
KEPT_BYTES_MAX = 8 * 1024 * 1024
"""Of definitions that may be asked for again."""


@define
class Definitions:
    """Definitions as JSON. Those of late are kept: all instances of an LRP have the same."""

    _kept: OrderedDict[int, tuple[DesiredLRPDefinition, bytes]] = field(factory=OrderedDict, init=False)
    _bytes: int = field(default=0, init=False)

    def encoded(self, definition: DesiredLRPDefinition) -> bytes:
        """With its secrets in it."""
        kept = self._kept.get(id(definition))
        if kept is None:
            kept = (definition, wire.encode_revealed(definition))
            self._kept[id(definition)] = kept
            self._bytes += len(kept[1])
            while self._bytes > KEPT_BYTES_MAX:
                self._bytes -= len(self._kept.popitem(last=False)[1][1])
        return kept[1]


@define(eq=False)
class _Asked:
    """One instance, and who waits for it."""

    call: Call
    work: Work
    line: asyncio.Future[Line]
    under_way: _Request | None = None
    part: int = -1
    """Which one of that request it is."""


@define(eq=False)
class _Request:
    """One request to the cell, and those in it who have no answer yet."""

    waiting: dict[int, _Asked]
    task: asyncio.Task[None] | None = None
    sent: bool = False

    def leave(self, part: int) -> None:
        """He waits no longer; when nobody does, nobody reads the answer."""
        self.waiting.pop(part, None)
        if not self.waiting and self.task is not None:
            self.task.cancel()


@define(eq=False)
class _Cell:
    """What is on its way to one cell."""

    peer: Peer
    queue: deque[_Asked] = field(factory=deque)
    sending: bool = False


@define
class CellWorks:
    """Sends instances to cells."""

    http: HopClient
    _definitions: Definitions = field(factory=Definitions, init=False)
    _cells: dict[Peer, _Cell] = field(factory=dict, init=False)
    _turns: Turns[_Cell] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._turns = Turns(CELLS_IN_A_TURN, self._begin)

    async def run(self, call: Call, peer: Peer, work: Work) -> Started:
        """Have the cell run an instance; returns when it is RUNNING. Errors as `HopClient.request`."""
        if call.remaining_ms() <= ANSWER_MARGIN_MS:
            raise BudgetSpent(f"no time left to ask {peer.hop} {peer.id}", outcome=Outcome.NOT_STARTED)
        began = Hop(peer.hop, peer.id, OP, call.clock.monotonic(), call.clock.now())
        try:
            line = await self._line(call, peer, work)
            if line.failure is not None:
                raise _failure(line.failure)
            started = told(Started, line.given)
        except DiegoError as error:
            error.frame = error.frame or began.frame(error, call.clock.monotonic())
            began.elapsed_ms = error.frame.elapsed_ms
            _attach(call, began)
            raise
        _attach(call, headers.remote_hops(line.timing, began.began_s, call))
        return started

    async def _line(self, call: Call, peer: Peer, work: Work) -> Line:
        asked = _Asked(call, work, asyncio.get_running_loop().create_future())
        cell = self._cells.setdefault(peer, _Cell(peer))
        cell.queue.append(asked)
        if not cell.sending:
            self._send_next(cell)
        try:
            return await result_within(call.remaining_ms() / 1000, asked.line)
        except TimeoutError as late:
            outcome = Outcome.NOT_STARTED if asked.under_way is None else Outcome.UNKNOWN
            problem = f"no answer from {peer.url} within {call.budget.total_ms:.0f} ms"
            raise BudgetSpent(problem, outcome=outcome) from late
        finally:
            if asked.under_way is not None:
                asked.under_way.leave(asked.part)
            elif asked in cell.queue:
                cell.queue.remove(asked)

    def _send_next(self, cell: _Cell) -> None:
        """Have the next request made when it is its turn: who asks until then goes with it."""
        cell.sending = True
        self._turns.take(cell)

    def _begin(self, cell: _Cell) -> None:
        request = _Request({})
        request.task = asyncio.get_running_loop().create_task(self._exchange(cell, request))

    async def _exchange(self, cell: _Cell, request: _Request) -> None:
        """Send who waits by now, and give each his line. What fails, fails all who have none yet."""
        try:
            body = self._body(cell, request)
            if not request.waiting:
                return
            calls = [asked.call for asked in request.waiting.values()]
            call = max(calls, key=lambda each: each.budget.deadline_s)
            sent = Told(body, lambda: self._was_sent(cell, request))
            async with self.http.stream(call, cell.peer, PATH, body=sent, op=OP) as content:
                async for line in lines_of(content.iter_any()):
                    asked = request.waiting.get(line.part)
                    if asked is not None and not asked.line.done():
                        asked.line.set_result(line)
            if not all(asked.line.done() for asked in request.waiting.values()):
                raise ConnectionLost(f"connection to {cell.peer.url} broke", outcome=Outcome.UNKNOWN)
        except DiegoError as failure:
            _fail(request.waiting.values(), failure)
            if isinstance(failure, HopUnreachable) and not request.sent:
                _fail(cell.queue, failure)  # it is the same network that they would not get through
        except Exception as defect:
            for asked in request.waiting.values():
                if not asked.line.done():
                    asked.line.set_exception(defect)
        finally:
            self._was_sent(cell, request)

    def _was_sent(self, cell: _Cell, request: _Request) -> None:
        """The way is free for those who came meanwhile."""
        if request.sent:
            return
        request.sent = True
        if cell.queue:
            self._send_next(cell)
        else:
            cell.sending = False
            self._cells.pop(cell.peer, None)

    def _body(self, cell: _Cell, request: _Request) -> bytes:
        """Take the next ones from the queue, as many as fit in one request."""
        known: dict[int, int] = {}
        definitions: list[msgspec.Raw] = []
        instances: list[dict[str, object]] = []
        size = 0
        while cell.queue and len(instances) < WORKS_MAX:
            work = cell.queue[0].work
            encoded = self._definitions.encoded(work.definition)
            if id(work.definition) not in known:
                size += len(encoded)
                if definitions and size > BODY_BYTES_MAX:
                    break
                known[id(work.definition)] = len(definitions)
                definitions.append(msgspec.Raw(encoded))
            asked = cell.queue.popleft()
            asked.under_way, asked.part = request, len(instances)
            request.waiting[asked.part] = asked
            instances.append(_instance(asked, known[id(work.definition)]))
        return msgspec.json.encode({"definitions": definitions, "instances": instances})


def _instance(asked: _Asked, definition: int) -> dict[str, object]:
    """An InstanceWork as JSON."""
    work, call = asked.work, asked.call
    return {
        "process_guid": work.process_guid,
        "index": work.index,
        "domain": work.domain,
        "instance_guid": work.instance_guid,
        "definition": definition,
        "request_id": call.request_id,
        "trace_id": call.trace_id,
        "budget_ms": max(0, int(call.remaining_ms() - ANSWER_MARGIN_MS)),
        "epoch": work.epoch,
    }


def _fail(waiting: Iterable[_Asked], failure: DiegoError) -> None:
    """Each of them gets this failure as one of his own."""
    for asked in list(waiting):
        if not asked.line.done():
            asked.line.set_exception(twin(failure))


def _failure(document: dict[str, Any]) -> DiegoError:
    try:
        return chain.rebuild(document)
    except ValueError as malformed:
        error = BadAnswer("an instance failed without a failure document", outcome=Outcome.UNKNOWN)
        error.__cause__ = malformed
        return error


def _attach(call: Call, remote: Hop | None) -> None:
    """Count the cell's time as below us."""
    if remote is not None and call.here is not None:
        call.here.children.append(remote)
