"""What was found at the place of a failure, for people: exit status, the runtime's words, the app's lines. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from diego_py.cli.lines import DIM, HEAD, Line

LINES_SHOWN_MAX = 20
VALUE_CHARACTERS_MAX = 300

TEXTS = {
    "runtime_log": "the runtime's log",
    "runtime_stderr": "the runtime's standard error",
    "stderr": "standard error",
    "stdout": "standard output",
    "app_log_tail": "the app's last lines",
    "log_tail": "the app's last lines",
}
"""Evidence that is text of its own; everything else is a value."""

_ENDING = ("exit_status", "signal", "oom_killed")


def told(evidence: Mapping[str, Any]) -> list[Line]:
    """Everything in `evidence` that says something, texts last."""
    lines = list(_ending(evidence))
    for name, value in evidence.items():
        if name in _ENDING or name in TEXTS or value in (None, "", [], {}):
            continue
        lines.append(Line(f"  {name.replace('_', ' ')}: {_value(value)}"))
    for name, title in TEXTS.items():
        lines += _block(title, evidence.get(name))
    return lines


def _ending(evidence: Mapping[str, Any]) -> Iterator[Line]:
    if evidence.get("oom_killed"):
        yield Line("  out of memory: the kernel killed it at its limit", HEAD)
    if evidence.get("signal"):
        yield Line(f"  killed by signal {evidence['signal']}", HEAD)
    if evidence.get("exit_status") is not None:
        yield Line(f"  exit status {evidence['exit_status']}", HEAD)


def _block(title: str, value: Any) -> Iterator[Line]:
    lines = list(_texts(value))
    if not lines:
        return
    left_out = max(0, len(lines) - LINES_SHOWN_MAX)
    yield Line(f"  {title}" + (f", the last {LINES_SHOWN_MAX} of {len(lines)} lines" if left_out else ""), HEAD)
    yield from (Line(f"  │ {line}", DIM) for line in lines[left_out:])


def _texts(value: Any) -> Iterator[str]:
    """The lines of a text however the hop wrote it down: a string, a clipped text, log entries, or a list of those."""
    match value:
        case str():
            yield from value.splitlines()
        case Mapping() if "msg" in value:
            yield f"{value.get('level', '')} {value['msg']}".strip()
        case Mapping() if "text" in value:
            yield from _texts(value["text"])
            if value.get("truncated"):
                yield f"[{value.get('bytes')} bytes in all]"
        case Sequence():
            for item in value:
                yield from _texts(item)


def _value(value: Any) -> str:
    match value:
        case str():
            text = value
        case Mapping():
            text = ", ".join(f"{name} {_value(item)}" for name, item in value.items() if item not in (None, ""))
        case _:
            text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= VALUE_CHARACTERS_MAX else text[:VALUE_CHARACTERS_MAX] + "…"
