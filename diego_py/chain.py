"""An exception and its causes <-> the problem document (RFC 9457 with a chain).

In Python the chain is the exception chain: `problem` writes down each link with its frame, outermost first; `rebuild`
makes the same exceptions again, linked by ``__cause__``, so that ``except`` and ``error.find`` work across hosts.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import islice
from os import PathLike, fspath
from typing import Any

import msgspec
from attrs import asdict, define, evolve, frozen

from diego_py.call import Call
from diego_py.errors import DiegoError, Fault, Frame, Next, Outcome, RemoteError, registry
from diego_py.secret import REDACTED, Secret

MEDIA_TYPE = "application/problem+json"
DOCUMENT_BYTES_MAX = 64 * 1024
CHAIN_FRAMES_MAX = 24
READ_FRAMES_MAX = 256
"""Of a document from elsewhere; one with more frames is none of ours."""
DEPTH_MAX = 12
"""Of what is nested in a member; what lies deeper is only named."""
TEXT_HEAD_BYTES = 4 * 1024
TEXT_TAIL_BYTES = 12 * 1024
_STAGES = ((DOCUMENT_BYTES_MAX, DOCUMENT_BYTES_MAX), (16_384, 1_000), (4_096, 100), (1_024, 20), (256, 10))
"""How much of each text (characters) and of each free list (items) stays, until the document is small enough."""
_LAST_STAGE = (40, 10)
_FREE = ("evidence", "placement", "subject", "instances", "errors", "next")
"""Members that may hold any number of items."""
_INTEGER_MAX = 2**63 - 1
TASK_COMMANDS = {
    "diego explain {process_guid}": "diego task show {task_guid}",
    "diego ps {process_guid}": "diego task show {task_guid}",
    "diego logs {process_guid}": "diego task logs {task_guid}",
}
"""What a command that is meant for LRPs is for a task."""


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
        """The JSON document, at most 64 KiB: long texts and lists give way, then evidence, and evidence says so."""
        slim = self
        for text_max, items_max in _STAGES:
            with suppress(_TooLong):
                body = slim._encode(_Plain(text_max, items_max, DOCUMENT_BYTES_MAX))
                if len(body) <= DOCUMENT_BYTES_MAX:
                    return body
            slim = evolve(self, evidence={"truncated": True, **(self.evidence or {})})
        frames = tuple(evolve(frame, steps=()) for frame in self.chain)
        slim = evolve(self, chain=frames, evidence={"truncated": True}, subject=None, instances=(), errors=())
        return evolve(slim, placement=None)._encode(_Plain(*_LAST_STAGE, DOCUMENT_BYTES_MAX))

    def _encode(self, plain: _Plain) -> bytes:
        members = _present(self).items()
        return msgspec.json.encode({name: plain.value(value, free=name in _FREE) for name, value in members})


def problem(error: DiegoError, call: Call, subject: Mapping[str, Any] | None = None) -> Problem:
    """Write the document of `error`. The innermost cause names the problem; the outer links say what was going on."""
    links = list(error.links())
    about = dict(subject or _first(link.subject for link in links) or {})
    root = links[-1]
    frames = _shortened(_frames(error))
    status = _status(root, entered=len(frames) > 1)
    return Problem(
        type=f"/errors/{root.code}",
        title=root.title,
        status=status,
        detail=root.message,
        code=root.code,
        origin=main_line(frames)[-1].hop,
        fault=str(root.fault),
        outcome=str(_first(link.outcome for link in links) or Outcome.NOT_STARTED),
        retryable=root.retryable,
        retry_after_s=_retry_after_s(links, root, status),
        request_id=call.request_id,
        trace_id=call.trace_id,
        budget_ms=round(call.budget.total_ms),
        elapsed_ms=frames[0].elapsed_ms,
        chain=tuple(frames),
        subject=about or None,
        placement=_first(link.placement for link in links),
        evidence=_first(link.evidence for link in reversed(links)),
        next=tuple(_fill(step, about) for step in root.next),
        errors=root.errors,
    )


def rebuild(document: Mapping[str, Any]) -> DiegoError:
    """The exception chain that a document describes. Unknown codes become RemoteError and keep their code.

    Raises ValueError when the document is not one of ours.
    """
    try:
        told = msgspec.convert(document, _Told)
    except msgspec.ValidationError as malformed:
        raise ValueError("not a failure document of this protocol") from malformed
    if not 0 < len(told.chain) <= READ_FRAMES_MAX:
        raise ValueError(f"a failure document has 1 to {READ_FRAMES_MAX} frames")
    outermost = _link(told.chain)
    root = outermost.root
    root.evidence = told.evidence
    root.errors = told.errors
    if isinstance(root, RemoteError):
        _keep(root, title=told.title, status=told.status, fault=told.fault, retryable=told.retryable, next=told.next)
    outermost.placement = told.placement
    outermost.outcome = told.outcome
    outermost.retry_after_s = told.retry_after_s
    outermost.problem = dict(document)
    return outermost


def main_line(frames: Sequence[Frame]) -> list[Frame]:
    """The frames from the outermost hop to the one that names the problem, without attempts that were set aside."""
    line: list[Frame] = []
    skipped = 0
    for frame in frames:
        skipped = skipped or frame.set_aside or 0
        if skipped > 0:
            skipped -= 1
        else:
            line.append(frame)
    return line


def clip(text: str) -> dict[str, Any]:
    """Free text as evidence: head and tail of it, how long it was, and whether something is missing."""
    raw = text.encode(errors="replace")
    truncated = len(raw) > TEXT_HEAD_BYTES + TEXT_TAIL_BYTES
    kept = raw[:TEXT_HEAD_BYTES] + b"\n[...]\n" + raw[-TEXT_TAIL_BYTES:] if truncated else raw
    return {"text": kept.decode(errors="replace"), "bytes": len(raw), "truncated": truncated}


@frozen
class _Told:
    """What is read of a document from elsewhere; it may say more."""

    title: str
    status: int
    code: str
    fault: Fault
    outcome: Outcome
    retryable: bool
    chain: tuple[Frame, ...]
    retry_after_s: float | None = None
    placement: dict[str, Any] | None = None
    evidence: dict[str, Any] | None = None
    next: tuple[Next, ...] = ()
    errors: tuple[dict[str, str], ...] = ()


def _status(root: DiegoError, entered: bool) -> int:
    """4xx only when nothing was tried: a refusal further down is a 503 for want of capacity, else a 500."""
    if root.status >= 500 or not entered:
        return root.status
    return 503 if root.fault == "capacity" else 500


def _retry_after_s(links: Sequence[DiegoError], root: DiegoError, status: int) -> float | None:
    given: float | None = _first(link.retry_after_s for link in links)
    if given is None and root.retryable and status in (429, 503):
        return 1.0
    return given


def _frames(error: DiegoError, within: Frame | None = None) -> list[Frame]:
    """Frames of all links in order; the attempts that a link set aside stand before the one that decided."""
    frames: list[Frame] = []
    for link in error.links():
        frame = link.frame
        if frame is None:
            # Of the hop that it was raised in, and nobody knows when: not before that began.
            hop, id_, started_at = (within.hop, within.id, within.started_at) if within else ("process", "-", None)
            told = link.message
            frame = Frame(hop, id_, op=told, code=link.code, detail=told, status=link.status, started_at=started_at)
        within = frame
        frames.append(evolve(frame, set_aside=None))
        for attempt in link.attempts:
            first, *rest = _frames(attempt, within)
            frames += [evolve(first, set_aside=1 + len(rest)), *rest]
    return frames


def _shortened(frames: list[Frame]) -> list[Frame]:
    """At most CHAIN_FRAMES_MAX: attempts that were set aside give way first, then the middle."""
    if len(frames) > CHAIN_FRAMES_MAX:
        frames = main_line(frames)
    if len(frames) > CHAIN_FRAMES_MAX:
        frames = frames[: CHAIN_FRAMES_MAX // 2] + frames[-CHAIN_FRAMES_MAX // 2 :]
    return frames


def _link(frames: Sequence[Frame]) -> DiegoError:
    """Exceptions linked outermost to innermost, each with the attempts that it set aside."""
    error = _make(frames[0])
    rest = frames[1:]
    attempts = []
    while rest and rest[0].set_aside is not None:
        size = max(1, rest[0].set_aside)
        attempts.append(_link(rest[:size]))
        rest = rest[size:]
    error.attempts = tuple(attempts)
    if rest:
        error.__cause__ = _link(rest)
    return error


def _make(frame: Frame) -> DiegoError:
    kind = registry().get(frame.code, RemoteError)
    error = kind(frame.detail or frame.op)
    if kind is RemoteError:
        _keep(error, code=frame.code, status=frame.status or RemoteError.status)
    error.frame = evolve(frame, set_aside=None)
    return error


def _keep(error: DiegoError, **said: object) -> None:
    """What a hop of another version said of its error goes with this one instance, over what its class says."""
    for name, value in said.items():
        setattr(error, name, value)


def _fill(step: Next, subject: Mapping[str, Any]) -> Next:
    """Put the subject's names into a command template; a template whose name is unknown keeps its placeholder."""
    if step.run is None:
        return step
    of_task = subject.get("kind") == "task"
    command = TASK_COMMANDS.get(step.run, step.run) if of_task else step.run
    names = {**subject, "task_guid" if of_task else "process_guid": subject.get("guid")}

    def filled(placeholder: re.Match[str]) -> str:
        value = names.get(placeholder[1])
        return placeholder[1].upper() if value is None else shlex.quote(str(value))

    return evolve(step, run=re.sub(r"\{(\w+)\}", filled, command))


def _first(values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _present(value: Problem) -> dict[str, Any]:
    """The document without members that say nothing."""
    document = asdict(value, recurse=False)
    document["chain"] = [_said(asdict(frame)) for frame in value.chain]
    document["next"] = [_said(asdict(step)) for step in value.next]
    return {key: item for key, item in document.items() if item is not None and item != () and item != []}


def _said(members: dict[str, Any]) -> dict[str, Any]:
    return {key: item for key, item in members.items() if item is not None and item != () and item != ""}


class _TooLong(Exception):
    """More was met than a document can hold."""


@define
class _Plain:
    """Values as JSON can say them, and no more of them than told. What is no plain data is only named."""

    text_max: int
    items_max: int
    left: int
    """Characters and values that may still come; fewer than their bytes, so that it never ends too early."""

    def value(self, value: Any, free: bool, depth: int = 0) -> Any:
        """Raises _TooLong."""
        self.left -= 1
        if self.left < 0:
            raise _TooLong
        if isinstance(value, Mapping | list | tuple | set | frozenset):
            return self._items(value, free, depth) if depth < DEPTH_MAX else f"<{type(value).__name__}>"
        if value is None or isinstance(value, bool | float):
            return value
        if isinstance(value, int) and -_INTEGER_MAX <= value <= _INTEGER_MAX:
            return int(value)
        return self._text(value)

    def _items(self, value: Any, free: bool, depth: int) -> Any:
        items_max = self.items_max if free else None
        if isinstance(value, Mapping):
            items = islice(value.items(), items_max)
            return {self._text(key): self.value(item, free, depth + 1) for key, item in items}
        return [self.value(item, free, depth + 1) for item in islice(value, items_max)]

    def _text(self, value: object) -> str:
        """A scalar as a text that every parser takes. Of a long one head and tail stay."""
        text = _written(value)
        if len(text) > self.text_max:
            head = self.text_max // 4
            text = f"{text[:head]}[...]{text[head - self.text_max :]}"
        self.left -= len(text)
        return text.encode(errors="replace").decode()


def _written(value: object) -> str:
    match value:
        case str():
            return str(value)
        case PathLike():
            return str(fspath(value))
        case datetime():
            return value.isoformat()
        case Secret():
            return REDACTED
        case _:
            return f"<{type(value).__name__}>"


__all__ = ["MEDIA_TYPE", "Problem", "clip", "main_line", "problem", "rebuild"]
