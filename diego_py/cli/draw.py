"""How a failure and a finished request look to people: lines of text with a style each. Pure: knows no terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attrs import frozen

from diego_py.cli import evidence, table
from diego_py.cli.lines import BAD, DIM, HEAD, Line

OP_CHARACTERS_MAX = 44
STEPS_SHOWN_MAX = 5
BIDS_SHOWN_MAX = 10
INSTANCES_SHOWN_MAX = 20

OUTCOMES = {
    "not_started": "nothing was started",
    "rolled_back": "everything was undone, nothing is left running",
    "partial": "some of it is done, see the instances",
    "running": "it is running all the same",
    "unknown": "nobody knows yet whether it is done",
}


@frozen
class Hop:
    """One line of a waterfall: a hop of the critical path and its own time."""

    hop: str
    id: str
    op: str
    self_ms: float


def failure(document: Mapping[str, Any], at: str = "") -> list[Line]:
    """A failure document as people read it: the chain with its times, the evidence, the cells, what is true, what next.

    `at` is put before the title (when it happened, for stored failures).
    """
    return [
        *_title(document, at),
        *chain(document.get("chain") or ()),
        *_detail(document),
        *evidence.told(document.get("evidence") or {}, said=str(document.get("detail", ""))),
        *placement(document.get("placement"), brief=True),
        *_instances(document.get("instances") or ()),
        *_verdict(document),
        *_next(document.get("next") or ()),
    ]


def chain(frames: Sequence[Mapping[str, Any]]) -> list[Line]:
    """The frames, each inside the one that called it; attempts at the same hop stand below each other."""
    rows = []
    for frame, depth in _nested(frames):
        branch = "  " * (depth - 1) + "└ " if depth else ""
        name = str(frame["hop"]) if frame["hop"] == frame["id"] else f"{frame['hop']} {frame['id']}"
        rows.append((branch + name, _clipped(str(frame["op"])), frame))
    names = max((len(name) for name, _, _ in rows), default=0)
    ops = max((len(op) for _, op, _ in rows), default=0)
    lines = []
    for position, (name, op, frame) in enumerate(rows):
        last = position == len(rows) - 1
        took = duration(frame.get("self_ms", 0.0)).rjust(8)
        told = "   ".join(_remarks(frame, last))
        lines.append(Line(f"  {name.ljust(names)}  {op.ljust(ops)}  {took}   {told}".rstrip(), BAD if last else ""))
    return lines


def waterfall(hops: Sequence[Hop], width: int = 24) -> list[Line]:
    """Where the time of a successful request went: hops in order, each beginning where the one before handed over."""
    total = sum(hop.self_ms for hop in hops) or 1.0
    names = [hop.hop if hop.hop == hop.id else f"{hop.hop} {hop.id}" for hop in hops]
    name_width = max((len(name) for name in names), default=0)
    op_width = max((len(_clipped(hop.op)) for hop in hops), default=0)
    lines, before = [], 0.0
    for name, hop in zip(names, hops, strict=True):
        begin = round(before / total * width)
        before += hop.self_ms
        bar = "█" * max(1, round(before / total * width) - begin)
        text = f"  {name.ljust(name_width)}  {_clipped(hop.op).ljust(op_width)}  {duration(hop.self_ms).rjust(8)}"
        lines.append(Line(f"{text}   {' ' * min(begin, width - 1)}{bar}".rstrip(), DIM))
    return lines


def placement(told: Mapping[str, Any] | None, indent: str = "  ", brief: bool = False) -> list[Line]:
    """What an instance needs and what each cell has, the nearest misses first.

    `brief` leaves out the cells where the auction had a winner: then the failure is not about room.
    """
    if not told or (brief and any(bid.get("verdict") == "won" for bid in told.get("bids") or ())):
        return []
    need, bids = told.get("need") or {}, told.get("bids") or []
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in (told.get("verdicts") or {}).items())
    cells = told.get("cells", len(bids))
    wanted = ", ".join(f"{name} {amount}" for name, amount in need.items())
    lines = [Line(f"{indent}need {wanted} on one of {cells} cell(s){': ' + verdicts if verdicts else ''}", HEAD)]
    rows = [
        [str(bid.get("cell", "-")), str(bid.get("verdict", "-")), *_amounts(bid, need), _lack(bid)]
        for bid in bids[:BIDS_SHOWN_MAX]
    ]
    lines += [Line(f"{indent}  {line}") for line in _short(told.get("short") or {})]
    titles = ["CELL", "VERDICT", *(f"HAVE {name}" for name in need), "WHY"]
    lines += [Line(indent + "  " + line) for line in table.align(titles, rows)]
    if len(bids) > BIDS_SHOWN_MAX:
        lines.append(Line(f"{indent}  … and {len(bids) - BIDS_SHOWN_MAX} more; -o json shows them", DIM))
    return lines


def duration(milliseconds: float) -> str:
    """A time as people say it: 0.4 ms, 57 ms, 1.87 s, 2 m 03 s."""
    if milliseconds < 9.95:
        return f"{milliseconds:.1f} ms"
    if milliseconds < 999.5:
        return f"{milliseconds:.0f} ms"
    if milliseconds < 99_950:
        return f"{milliseconds / 1000:.2f} s"
    minutes, seconds = divmod(round(milliseconds / 1000), 60)
    return f"{minutes} m {seconds:02d} s"


def name_of(subject: Mapping[str, Any] | None) -> str:
    """What a document is about, as users name it: `web/0`."""
    if not subject:
        return ""
    index = subject.get("index")
    return str(subject.get("guid", "")) + (f"/{index}" if index is not None else "")


def _title(document: Mapping[str, Any], at: str) -> Iterator[Line]:
    name = name_of(document.get("subject"))
    about = f"{name}: " if name else ""
    took = duration(document.get("elapsed_ms", 0.0))
    request = f"   request {document['request_id']}" if document.get("request_id") else ""
    yield Line(f"✗ {at}{about}{document.get('title', 'The request failed')}   {took}{request}", BAD)


def _detail(document: Mapping[str, Any]) -> Iterator[Line]:
    if document.get("detail"):
        yield Line(f"  {document['detail']}", HEAD)
    for error in document.get("errors") or ():
        yield Line(f"    {error.get('pointer') or '/'}: {error.get('detail', error.get('code', ''))}")


def _nested(frames: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any], int]]:
    """Each frame with its depth. A further attempt begins where the first attempt of its hop stood."""
    depth = 0
    attempts: dict[str, int] = {}
    for frame in frames:
        if frame.get("attempt") is not None:
            depth = attempts.setdefault(str(frame["hop"]), depth)
        yield frame, depth
        depth += 1


def _remarks(frame: Mapping[str, Any], last: bool) -> Iterator[str]:
    if frame.get("attempt") is not None:
        yield f"attempt {frame['attempt']}"
    steps = [step for step in frame.get("steps") or () if float(step["ms"]) >= 0.5]
    if steps:
        slowest = sorted(steps, key=lambda step: -float(step["ms"]))[:STEPS_SHOWN_MAX]
        yield " · ".join(f"{step['op']} {float(step['ms']):.0f}" for step in steps if step in slowest) + " ms"
    if last:
        yield f"✗ {frame['code']}"


def _instances(instances: Sequence[Mapping[str, Any]]) -> Iterator[Line]:
    if not instances:
        return
    yield Line("  instances", HEAD)
    for instance in instances[:INSTANCES_SHOWN_MAX]:
        told = " ".join(str(instance[key]) for key in ("cell_id", "code", "detail") if instance.get(key))
        if serving := instance.get("serving"):
            told += f"; the old one still serves (revision {serving.get('revision')})"
        failed = instance.get("state") == "FAILED"
        yield Line(f"    {instance.get('index')}  {instance.get('state')}  {told}".rstrip(), BAD if failed else "")
    if len(instances) > INSTANCES_SHOWN_MAX:
        yield Line(f"    … and {len(instances) - INSTANCES_SHOWN_MAX} more", DIM)


def _verdict(document: Mapping[str, Any]) -> Iterator[Line]:
    outcome = str(document.get("outcome", "unknown"))
    parts = [f"fault: {document.get('fault')}", OUTCOMES.get(outcome, outcome)]
    if document.get("retry_after_s") is not None:
        parts.append(f"try again in {document['retry_after_s']:g} s")
    else:
        parts.append("may succeed when tried again" if document.get("retryable") else "unchanged it will fail again")
    yield Line("  " + " · ".join(parts))
    if document.get("next_attempt_at"):
        yield Line(f"  convergence tries again at {document['next_attempt_at']}")
    if document.get("instance"):
        yield Line(f"  stored as {document['instance']}", DIM)


def _next(steps: Sequence[Mapping[str, Any]]) -> Iterator[Line]:
    for position, step in enumerate(steps):
        how = step.get("run") or step.get("href")
        yield Line(f"  {'next:' if position == 0 else '     '}  {step['do']}" + (f":  {how}" if how else ""))


def _amounts(bid: Mapping[str, Any], need: Mapping[str, Any]) -> list[str]:
    have = bid.get("have") or {}
    return [str(have.get(name, "-")) for name in need]


def _lack(bid: Mapping[str, Any]) -> str:
    lacks = bid.get("lacks") or {}
    told = ", ".join(f"{name}: needs {short['need']}, has {short['have']}" for name, short in lacks.items())
    if not told and bid.get("score") is not None:
        told = f"score {bid['score']:g}{_parts(bid.get('parts') or {})}"
        if bid.get("in_zone"):
            told += f"; {bid['in_zone']} in zone {bid.get('zone') or '(none)'}"
    return told or str(bid.get("detail") or "")


def _parts(parts: Mapping[str, Any]) -> str:
    """The terms of a score that matter, when there is more than one."""
    terms = [f"{name} {part:g}" for name, part in parts.items() if part]
    return f" = {' + '.join(terms)}" if len(terms) > 1 else ""


def _short(short: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Of what how many cells have too little."""
    for name, told in short.items():
        yield f"{name}: {told['need']} needed, {told['most']} at most free on {told['cells']} cell(s) that lack it"


def _clipped(text: str) -> str:
    return text if len(text) <= OP_CHARACTERS_MAX else text[: OP_CHARACTERS_MAX - 1] + "…"
