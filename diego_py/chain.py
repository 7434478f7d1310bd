"""An exception and its causes <-> the problem document (RFC 9457 with a chain).

In Python the chain is the exception chain: `problem` writes down each link with its frame, outermost first; `rebuild`
makes the same exceptions again, linked by ``__cause__``, so that ``except`` and ``error.find`` work across hosts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import msgspec
from attrs import asdict, define, evolve, frozen

from diego_py.call import Call
from diego_py.errors import DiegoError, Frame, Next, Outcome, RemoteError, Step, registry

MEDIA_TYPE = "application/problem+json"
DOCUMENT_BYTES_MAX = 64 * 1024
CHAIN_FRAMES_MAX = 24
BIDS_MAX = 20
TEXT_HEAD_BYTES = 4 * 1024
TEXT_TAIL_BYTES = 12 * 1024


@frozen
class Problem:
    """The failure document: what went wrong, at which hop, on which cell, in whose words, and what to do next."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    origin: str
    fault: str
    outcome: str
    retryable: bool
    request_id: str
    trace_id: str
    budget_ms: float
    elapsed_ms: float
    chain: tuple[Frame, ...]
    instance: str | None = None
    retry_after_s: float | None = None
    next_attempt_at: str | None = None
    subject: dict[str, Any] | None = None
    placement: dict[str, Any] | None = None
    evidence: dict[str, Any] | None = None
    next: tuple[Next, ...] = ()
    errors: tuple[dict[str, str], ...] = ()
    instances: tuple[dict[str, Any], ...] = ()

    def encode(self) -> bytes:
        """The JSON document, at most 64 KiB: evidence is what gives way, and it says so."""
        body = msgspec.json.encode(_present(self))
        if len(body) <= DOCUMENT_BYTES_MAX:
            return body
        slim = evolve(self, evidence={"truncated": True}, instances=self.instances[:BIDS_MAX])
        return msgspec.json.encode(_present(slim))


def problem(error: DiegoError, call: Call, subject: Mapping[str, Any] | None = None) -> Problem:
    """Write the document of `error`. The innermost cause names the problem; the outer links say what was going on."""
    links = list(error.links())
    root = links[-1]
    frames = _frames(error)
    outermost = frames[0]
    entered = len(frames) > 1
    return Problem(
        type=f"/errors/{root.code}",
        title=root.title,
        status=_status(root, entered),
        detail=root.message,
        code=root.code,
        origin=frames[-1].hop,
        fault=str(root.fault),
        outcome=str(_first(link.outcome for link in links) or Outcome.NOT_STARTED),
        retryable=root.retryable,
        retry_after_s=_retry_after_s(links, root),
        request_id=call.request_id,
        trace_id=call.trace_id,
        budget_ms=round(call.budget.total_ms),
        elapsed_ms=outermost.elapsed_ms,
        chain=tuple(frames[:CHAIN_FRAMES_MAX]),
        subject=dict(subject) if subject else None,
        placement=_first(link.placement for link in links),
        evidence=_first(link.evidence for link in reversed(links)),
        next=tuple(_fill(step, subject or {}) for step in root.next),
        errors=root.errors,
    )


def rebuild(document: Mapping[str, Any]) -> DiegoError:
    """The exception chain that a document describes. Unknown codes become RemoteError and keep their code.

    Raises ValueError when the document is not one of ours.
    """
    try:
        frames = [_frame(raw) for raw in document["chain"]]
        head = msgspec.convert(
            {key: document[key] for key in ("title", "status", "code", "fault", "outcome", "retryable")}, _Head
        )
    except (KeyError, TypeError, msgspec.ValidationError) as malformed:
        raise ValueError("not a failure document of this protocol") from malformed
    if not frames:
        raise ValueError("a failure document has at least one frame")
    outermost = _link(frames)
    root = outermost.root
    root.evidence = document.get("evidence")
    root.errors = tuple(document.get("errors") or ())
    outermost.placement = document.get("placement")
    outermost.outcome = Outcome(head.outcome)
    outermost.retry_after_s = document.get("retry_after_s")
    outermost.problem = dict(document)
    return outermost


def clip(text: str) -> dict[str, Any]:
    """Free text as evidence: head and tail of it, how long it was, and whether something is missing."""
    raw = text.encode()
    truncated = len(raw) > TEXT_HEAD_BYTES + TEXT_TAIL_BYTES
    if truncated:
        kept = raw[:TEXT_HEAD_BYTES] + b"\n[...]\n" + raw[-TEXT_TAIL_BYTES:]
        text = kept.decode(errors="replace")
    return {"text": text, "bytes": len(raw), "truncated": truncated}


@define
class _Head:
    title: str
    status: int
    code: str
    fault: str
    outcome: str
    retryable: bool


def _status(root: DiegoError, entered: bool) -> int:
    """4xx only when nothing was tried: a refusal further down is a 503 for want of capacity, else a 500."""
    if root.status >= 500 or not entered:
        return root.status
    return 503 if root.fault == "capacity" else 500


def _retry_after_s(links: Sequence[DiegoError], root: DiegoError) -> float | None:
    given: float | None = _first(link.retry_after_s for link in links)
    if given is None and root.retryable and root.status in (429, 503):
        return 1.0
    return given


def _frames(error: DiegoError) -> list[Frame]:
    """Frames of all links in order; earlier attempts of a link stand before the attempt that decided."""
    frames: list[Frame] = []
    within: Frame | None = None
    for link in error.links():
        frame = link.frame
        if frame is None:
            hop, id_ = (within.hop, within.id) if within else ("process", "-")
            frame = Frame(hop=hop, id=id_, op=link.message, code=link.code, detail=link.message, status=link.status)
        frames.append(frame)
        within = frame
        for attempt in link.attempts:
            frames.extend(_frames(attempt))
    return frames


def _link(frames: list[Frame]) -> DiegoError:
    """Exceptions linked outermost to innermost; a run of frames that a later attempt follows is set aside."""
    error = _make(frames[0])
    rest = frames[1:]
    starts = [i for i, frame in enumerate(rest) if frame.attempt is not None and frame.hop == rest[0].hop]
    if rest and rest[0].attempt is not None and len(starts) > 1:
        bounds = [*starts, len(rest)]
        runs = [rest[a:b] for a, b in pairwise(bounds)]
        error.attempts = tuple(_link(run) for run in runs[:-1])
        rest = runs[-1]
    if rest:
        error.__cause__ = _link(rest)
    return error


def _make(frame: Frame) -> DiegoError:
    kind = registry().get(frame.code)
    error: DiegoError
    if kind is None:
        error = RemoteError(frame.detail or frame.op)
        error.code = frame.code  # type: ignore[misc]  # an instance keeps the code it came with
    else:
        error = kind(frame.detail or frame.op)
    error.frame = frame
    return error


def _frame(raw: Mapping[str, Any]) -> Frame:
    return msgspec.convert({**raw, "steps": [Step(**step) for step in raw.get("steps", ())]}, Frame)


def _fill(step: Next, subject: Mapping[str, Any]) -> Next:
    """Put the subject's names into a command template; a template whose name is unknown keeps its placeholder."""
    if step.run is None:
        return step
    names = {**subject, "process_guid": subject.get("guid", "PROCESS_GUID")}
    return evolve(step, run=re.sub(r"\{(\w+)\}", lambda m: str(names.get(m[1], m[1].upper())), step.run))


def _first(values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _present(value: Problem) -> dict[str, Any]:
    """The document without members that say nothing."""
    document = asdict(value, recurse=True)
    document["chain"] = [
        {key: item for key, item in frame.items() if item is not None and item != () and item != ""}
        for frame in document["chain"]
    ]
    document["next"] = [{key: item for key, item in step.items() if item is not None} for step in document["next"]]
    return {key: item for key, item in document.items() if item is not None and item != () and item != []}


__all__ = ["MEDIA_TYPE", "Problem", "clip", "problem", "rebuild"]
