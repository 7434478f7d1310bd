"""The headers every hop reads and writes: ids, budget, timings, and who failed. Pure."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from itertools import pairwise

from attrs import frozen

from diego_py.call import ANSWER_MARGIN_MS, Budget, Call, Hop
from diego_py.chain import Problem
from diego_py.errors import BudgetSpent, InvalidHeader, Outcome
from diego_py.service.clock import Clock

REQUEST_ID = "X-Request-Id"
VCAP_REQUEST_ID = "X-Vcap-Request-Id"
TRACEPARENT = "traceparent"
BUDGET_MS = "X-Budget-Ms"
SERVER_TIMING = "Server-Timing"
PROXY_STATUS = "Proxy-Status"
IDEMPOTENCY_KEY = "Idempotency-Key"
PREFER = "Prefer"

BUDGET_MS_MAX = 3_600_000
WAIT_S_MAX = 3_600

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
_TRACE_ID = re.compile(r"[0-9a-f]{32}")
_TIMING = re.compile(r'([a-z_]+);dur=([0-9.]+)(?:;desc="([^"]*)")?')

_PROXY_ERRORS = {
    "hop_unreachable": "destination_unavailable",
    "connection_lost": "connection_terminated",
    "budget_spent": "http_response_timeout",
    "bad_answer": "http_protocol_error",
    "internal": "proxy_internal_error",
    "saturated": "connection_limit_reached",
}
"""Our codes that RFC 9209 section 2.3 has a registered name for."""


@frozen
class Preferences:
    """What the caller said in Prefer (RFC 7240)."""

    wait_s: float | None = None
    respond_async: bool = False
    applied: tuple[str, ...] = ()


def call_from(headers: Mapping[str, str], clock: Clock, default_budget_ms: float) -> Call:
    """The call that a request's headers describe. Ids are made where the caller gave none or unusable ones.

    Raises InvalidHeader for a budget that is no number, BudgetSpent for one that is not positive.
    """
    trace = _TRACEPARENT.fullmatch(headers.get(TRACEPARENT, ""))
    request_id = headers.get(REQUEST_ID) or headers.get(VCAP_REQUEST_ID) or ""
    if not _REQUEST_ID.fullmatch(request_id):
        request_id = ""
    trace_id = trace[1] if trace else request_id.replace("-", "").lower()
    if not _TRACE_ID.fullmatch(trace_id):
        trace_id = secrets.token_hex(16)
    budget = Budget.of(default_budget_ms, clock)
    return Call(request_id or trace_id, trace_id, budget, clock)


def budget_from(headers: Mapping[str, str], clock: Clock) -> Budget | None:
    """The budget a caller gave, None if none. Raises InvalidHeader or BudgetSpent."""
    text = headers.get(BUDGET_MS)
    if text is None:
        return None
    try:
        milliseconds = float(text)
    except ValueError:
        raise InvalidHeader(f"{BUDGET_MS} is not a number of milliseconds") from None
    if not milliseconds < BUDGET_MS_MAX:
        raise InvalidHeader(f"{BUDGET_MS} is not a number below {BUDGET_MS_MAX}")
    if milliseconds <= 0:
        raise BudgetSpent(f"{BUDGET_MS} is spent on arrival", outcome=Outcome.NOT_STARTED)
    return Budget.of(milliseconds, clock)


def preferences_from(headers: Mapping[str, str]) -> Preferences:
    """Read Prefer. Unknown preferences are ignored, as RFC 7240 asks; a malformed wait raises InvalidHeader."""
    wait_s: float | None = None
    respond_async = False
    applied: list[str] = []
    for item in headers.get(PREFER, "").split(","):
        name, _, value = item.strip().partition("=")
        if name == "respond-async":
            respond_async = True
            applied.append("respond-async")
        elif name == "wait":
            if not value.isdigit() or not 0 < int(value) <= WAIT_S_MAX:
                raise InvalidHeader(f"Prefer: wait takes whole seconds from 1 to {WAIT_S_MAX}")
            wait_s = float(value)
            applied.append(f"wait={value}")
    return Preferences(wait_s, respond_async, tuple(applied))


def downstream(call: Call) -> dict[str, str]:
    """Headers for the next hop: the same ids, and the remaining budget less what we need to answer ourselves."""
    return {
        REQUEST_ID: call.request_id,
        TRACEPARENT: f"00-{call.trace_id}-{secrets.token_hex(8)}-01",
        BUDGET_MS: f"{max(0.0, call.remaining_ms() - ANSWER_MARGIN_MS):.0f}",
    }


def identity(call: Call) -> dict[str, str]:
    """Headers of every answer."""
    return {REQUEST_ID: call.request_id, TRACEPARENT: f"00-{call.trace_id}-{secrets.token_hex(8)}-01"}


def server_timing(path: Sequence[Hop]) -> str:
    """Self time of each hop on the critical path, outermost first."""
    return ", ".join(f'{hop.name};dur={hop.self_ms:.2f};desc="{hop.id} {hop.op}"' for hop in path)


def failure_timing(problem: Problem) -> str:
    """The same for a failure, from the frames of its chain."""
    return ", ".join(f'{f.hop};dur={f.self_ms:.2f};desc="{f.id} {_ascii(f.op)}"' for f in problem.chain)


def remote_hops(header: str, began_s: float, call: Call) -> Hop | None:
    """The finished hops of another process as its Server-Timing reports them, nested outermost first."""
    outer: Hop | None = None
    below_ms = 0.0
    for name, duration, description in reversed(_TIMING.findall(header)):
        id_, _, op = description.partition(" ")
        own_ms = float(duration)
        hop = Hop(name, id_, op, began_s, call.clock.now(), elapsed_ms=own_ms + below_ms)
        if outer is not None:
            hop.attach(outer)
        below_ms += own_ms
        outer = hop
    return outer


def proxy_status(problem: Problem) -> str:
    """Proxy-Status (RFC 9209): one member a hop that passed a failure on, the one nearest to it first."""
    members = []
    for frame, below in reversed(list(pairwise(problem.chain))):
        error = _PROXY_ERRORS.get(below.code)
        received = f"; received-status={below.status}" if below.status else ""
        members.append(f'{frame.hop}{received}{f"; error={error}" if error else ""}; details="{below.code}"')
    return ", ".join(members)


def _ascii(text: str) -> str:
    return re.sub(r'[^\x20-\x21\x23-\x5b\x5d-\x7e]', "?", text)[:80]
