"""The headers every hop reads and writes: ids, budget, timings, and who failed. Pure."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import pairwise

from attrs import frozen
from multidict import MultiMapping

from diego_py.call import ANSWER_MARGIN_MS, Budget, Call, Hop
from diego_py.chain import Problem, main_line
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
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_TRACE_ID = re.compile(r"(?!0{32})[0-9a-f]{32}")
_MILLISECONDS = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,6})?")
_SECONDS = re.compile(r"[0-9]{1,4}")
_TIMING = re.compile(r'([A-Za-z0-9_.-]+);dur=([0-9]{1,12}(?:\.[0-9]{1,6})?)(?:;desc="([^"]*)")?')
_TIMINGS_MAX = 64
NAMES_KEPT = 512
"""Names of hops, their ids and what they do, as they are written in headers: each answer has the same."""

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

    Never raises, so that every answer has its ids; `budget_from` judges the budget the caller gave.
    """
    trace = _TRACEPARENT.fullmatch(headers.get(TRACEPARENT, ""))
    given = (headers.get(REQUEST_ID, ""), headers.get(VCAP_REQUEST_ID, ""))
    request_id = next((text for text in given if _REQUEST_ID.fullmatch(text)), "")
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
    if not _MILLISECONDS.fullmatch(text):
        raise InvalidHeader(f"{BUDGET_MS} is not a number of milliseconds")
    milliseconds = float(text)
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
    lines = headers.getall(PREFER, []) if isinstance(headers, MultiMapping) else [headers.get(PREFER, "")]
    for item in ",".join(lines).split(","):
        preference, _, _ = item.partition(";")  # what follows are parameters, and we know none
        name, _, value = (part.strip() for part in preference.partition("="))
        name, value = name.lower(), value.strip('"')
        if name == "respond-async" and not respond_async:
            respond_async = True
            applied.append("respond-async")
        elif name == "wait" and wait_s is None:  # the first one counts
            if not _SECONDS.fullmatch(value) or not 0 < int(value) <= WAIT_S_MAX:
                raise InvalidHeader(f"Prefer: wait takes whole seconds from 1 to {WAIT_S_MAX}")
            wait_s = float(value)
            applied.append(f"wait={int(value)}")
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
    return ", ".join(_timing(hop.name, hop.self_ms, hop.id, hop.op) for hop in path)


def failure_timing(problem: Problem) -> str:
    """The same for a failure, from the frames of its chain."""
    return ", ".join(_timing(frame.hop, frame.self_ms, frame.id, frame.op) for frame in problem.chain)


def remote_hops(header: str, began_s: float, call: Call) -> Hop | None:
    """The finished hops of another process as its Server-Timing reports them, nested outermost first."""
    outer: Hop | None = None
    below_ms, now = 0.0, call.clock.now()
    for name, duration, description in reversed(_TIMING.findall(header)[:_TIMINGS_MAX]):
        id_, _, op = description.partition(" ")
        own_ms = float(duration)
        hop = Hop(name, id_, op, began_s, now, elapsed_ms=own_ms + below_ms)
        if outer is not None:
            hop.children.append(outer)
        below_ms += own_ms
        outer = hop
    return outer


def proxy_status(problem: Problem) -> str:
    """Proxy-Status (RFC 9209): one member a hop that passed a failure on, the one nearest to it first."""
    members = []
    for frame, below in reversed(list(pairwise(main_line(problem.chain)))):
        error = _PROXY_ERRORS.get(below.code)
        received = f"; received-status={below.status}" if below.status else ""
        reason = f"; error={error}" if error else ""
        members.append(f'{_token(frame.hop)}{received}{reason}; details="{_quotable(below.code)}"')
    return ", ".join(members)


def _timing(hop: str, self_ms: float, id: str, op: str) -> str:
    return f'{_token(hop)};dur={self_ms:.2f};desc="{_quotable(id).replace(" ", "_")} {_quotable(op)}"'


@lru_cache(maxsize=NAMES_KEPT)
def _token(text: str) -> str:
    """A name as a token of RFC 8941: names of hops may come from elsewhere."""
    token = re.sub(r"[^A-Za-z0-9_.-]", "_", text)[:80]
    return token if token[:1].isalpha() else f"x{token}"


@lru_cache(maxsize=NAMES_KEPT)
def _quotable(text: str) -> str:
    """Free text for between the quotes of a header: nothing that ends the quotes or the line."""
    return re.sub(r"[^\x20-\x21\x23-\x5b\x5d-\x7e]", "?", text)[:80]
