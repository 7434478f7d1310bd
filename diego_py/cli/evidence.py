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


def told(evidence: Mapping[str, Any], said: str = "") -> list[Line]:
    """Everything in `evidence` that says something, texts last. What was `said` above them is not said again."""
    lines = list(_ending(evidence))
    for name, value in evidence.items():
        if name in _ENDING or name in TEXTS or value in (None, "", [], {}):
            continue
        lines.append(Line(f"  {name.replace('_', ' ')}: {_check(value) if name == 'check' else _value(value)}"))
    shown = said
    for name, title in TEXTS.items():
        texts = [text for text in _texts(evidence.get(name))]
        if all(text.strip() in shown for text in texts):
            continue
        lines += _block(title, texts)
        shown += "\n" + "\n".join(texts)
    return lines


def _ending(evidence: Mapping[str, Any]) -> Iterator[Line]:
    if evidence.get("oom_killed"):
        yield Line("  out of memory: the kernel killed it at its limit", HEAD)
    if evidence.get("signal"):
        yield Line(f"  killed by signal {evidence['signal']}", HEAD)
    if evidence.get("exit_status") is not None:
        yield Line(f"  exit status {evidence['exit_status']}", HEAD)


def _block(title: str, lines: Sequence[str]) -> Iterator[Line]:
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
            text = ", ".join(_amount(name, item) for name, item in value.items() if item not in (None, "", 0))
        case _:
            text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= VALUE_CHARACTERS_MAX else text[:VALUE_CHARACTERS_MAX] + "…"


def _check(value: Any) -> str:
    """The last answer of a check: `http http://10.254.0.2:8080/ answered: connection refused (13 attempts in 3 s)`."""
    if not isinstance(value, Mapping) or "answer" not in value:
        return _value(value)
    what = " ".join(str(value[name]) for name in ("kind", "target") if value.get(name))
    took_s = float(value.get("elapsed_ms") or 0) / 1000
    return f"{what} answered: {_value(value['answer'])} ({value.get('attempts', 0)} attempts in {took_s:.1f} s)"


def _amount(name: str, value: Any) -> str:
    if name.endswith("_bytes") and isinstance(value, int):
        return f"{name.removesuffix('_bytes').replace('_', ' ')} {value / 2**20:.1f} MiB"
    return f"{name.replace('_', ' ')} {_value(value)}"
