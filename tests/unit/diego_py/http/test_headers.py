"""What callers may send in headers, and that no text of ours breaks those we send."""

import re
from itertools import pairwise

import msgspec
import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from diego_py.call import ANSWER_MARGIN_MS, Call, Hop
from diego_py.chain import Problem, problem, rebuild
from diego_py.errors import (
    BudgetSpent,
    DesireFailed,
    DiegoError,
    ExecNotFound,
    Frame,
    HopUnreachable,
    InvalidHeader,
    Outcome,
    PlacementFailed,
    RepFailed,
)
from diego_py.http import headers
from tests.unit.diego_py.http.structured_list import read_list
from tests.unit.diego_py.service.hand_clock import HandClock

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE_ID}-00f067aa0ba902b7-01"
LINE = re.compile(r"[\x20-\x7e]*")

any_text = st.text(st.characters(), max_size=30)
hostile = any_text | st.sampled_from(["a\r\nSet-Cookie: x=1", 'x"; error=y', "\\", ", bbs", "\0", "\x7f", "ü", "a b"])


def with_headers(pairs: dict[str, str]) -> Call:
    return headers.call_from(CIMultiDict(pairs), HandClock(), 5_000)


# Ids.


def test_ids_come_from_the_caller() -> None:
    call = with_headers({"X-Request-Id": "abc-1", "traceparent": TRACEPARENT})
    assert (call.request_id, call.trace_id) == ("abc-1", TRACE_ID)


def test_cloud_foundrys_request_id_is_taken_too() -> None:
    guid = "4bf92f35-77b3-4da6-a3ce-929d0e0e4736"
    call = with_headers({"X-Vcap-Request-Id": guid})
    assert (call.request_id, call.trace_id) == (guid, TRACE_ID)
    both = with_headers({"X-Request-Id": "mine", "X-Vcap-Request-Id": guid})
    assert both.request_id == "mine"
    broken = with_headers({"X-Request-Id": "not ok", "X-Vcap-Request-Id": guid})
    assert broken.request_id == guid


@pytest.mark.parametrize(
    "trace",
    [
        "",
        "garbage",
        TRACEPARENT.upper(),
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"ff-{TRACE_ID}-00f067aa0ba902b7-01",
        TRACEPARENT + "\n",
        TRACEPARENT[:-1],
    ],
)
def test_an_unusable_traceparent_is_replaced(trace: str) -> None:
    call = with_headers({"traceparent": trace})
    assert re.fullmatch("[0-9a-f]{32}", call.trace_id)
    assert call.trace_id not in (TRACE_ID, "0" * 32)
    assert call.request_id == call.trace_id


@given(hostile, hostile, hostile)
def test_any_ids_give_a_call_whose_ids_can_be_sent_on(request_id: str, vcap: str, trace: str) -> None:
    call = with_headers({"X-Request-Id": request_id, "X-Vcap-Request-Id": vcap, "traceparent": trace})
    for made in (headers.downstream(call), headers.identity(call)):
        assert all(LINE.fullmatch(value) for value in made.values())
        assert re.fullmatch(f"00-{call.trace_id}-[0-9a-f]{{16}}-01", made["traceparent"])
        assert made["X-Request-Id"] == call.request_id


@given(st.from_regex(r"[A-Za-z0-9._:-]{1,128}", fullmatch=True))
def test_a_usable_request_id_is_kept(request_id: str) -> None:
    assert with_headers({"X-Request-Id": request_id}).request_id == request_id


# Budget.


def budget_of(text: str) -> float | None:
    clock = HandClock()
    budget = headers.budget_from(CIMultiDict({"X-Budget-Ms": text}), clock)
    return None if budget is None else budget.remaining_ms(clock)


def test_a_budget_is_milliseconds_from_now() -> None:
    assert headers.budget_from(CIMultiDict(), HandClock()) is None
    assert budget_of("1500") == pytest.approx(1_500)
    assert budget_of("0.5") == pytest.approx(0.5)
    assert budget_of("3599999") == pytest.approx(3_599_999)


@pytest.mark.parametrize("text", ["0", "-1", "-0.5", "-999999"])
def test_a_budget_that_is_spent_on_arrival_is_told(text: str) -> None:
    with pytest.raises(BudgetSpent) as caught:
        budget_of(text)
    assert caught.value.outcome is Outcome.NOT_STARTED


WORDS = ["", "abc", "nan", "inf", "-inf", "1e9", "1_000", "3600000", "9" * 400, "0x10", "\uff11\uff12", "1,5", "+5"]


@pytest.mark.parametrize("text", WORDS)
def test_a_budget_that_is_no_number_below_an_hour_is_refused(text: str) -> None:
    with pytest.raises(InvalidHeader):
        budget_of(text)


@given(any_text)
def test_any_budget_is_taken_or_refused(text: str) -> None:
    try:
        budget = budget_of(text)
    except (InvalidHeader, BudgetSpent):
        return
    assert budget is not None
    assert 0 < budget < headers.BUDGET_MS_MAX


def test_the_next_hop_gets_what_is_left_less_the_margin() -> None:
    clock = HandClock()
    call = Call.begin(clock, 1_000)
    clock.pass_ms(200)
    assert headers.downstream(call)["X-Budget-Ms"] == f"{800 - ANSWER_MARGIN_MS:.0f}"
    clock.pass_ms(10_000)
    assert headers.downstream(call)["X-Budget-Ms"] == "0"


# Prefer.


def preferences(*lines: str) -> headers.Preferences:
    return headers.preferences_from(CIMultiDict([("Prefer", line) for line in lines]))


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], headers.Preferences()),
        (["wait=10"], headers.Preferences(10.0, False, ("wait=10",))),
        (["respond-async"], headers.Preferences(None, True, ("respond-async",))),
        (["respond-async, wait=10"], headers.Preferences(10.0, True, ("respond-async", "wait=10"))),
        (["respond-async", "wait=10"], headers.Preferences(10.0, True, ("respond-async", "wait=10"))),
        (["WAIT = 5 ; note=x"], headers.Preferences(5.0, False, ("wait=5",))),
        (['wait="7"'], headers.Preferences(7.0, False, ("wait=7",))),
        (["wait=3, wait=9"], headers.Preferences(3.0, False, ("wait=3",))),
        (["handling=lenient, foo; bar, ,"], headers.Preferences()),
        (["wait=3600"], headers.Preferences(3600.0, False, ("wait=3600",))),
    ],
)
def test_preferences_are_read_as_rfc_7240_says(lines: list[str], expected: headers.Preferences) -> None:
    assert preferences(*lines) == expected


@pytest.mark.parametrize("value", ["", "0", "-1", "3601", "ten", "1.5", "²", "9" * 5_000, "inf"])
def test_a_wrong_wait_is_refused(value: str) -> None:
    with pytest.raises(InvalidHeader, match="whole seconds from 1 to 3600"):
        preferences(f"wait={value}")


@given(any_text)
def test_any_preference_is_read_or_refused(text: str) -> None:
    try:
        applied = preferences(text).applied
    except InvalidHeader:
        return
    assert all(LINE.fullmatch(one) for one in applied)


# Server-Timing.

hop_names = st.sampled_from(["bbs", "auction", "rep", "executor", "garden", "runc"])
quotable = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters='"\\'), max_size=20)


@st.composite
def paths(draw: st.DrawFn) -> list[Hop]:
    """Hops on a critical path, outermost first, each with its own time."""
    count = draw(st.integers(1, 6))
    own = [draw(st.integers(0, 100_000)) / 100 for _ in range(count)]
    clock = HandClock()
    made = []
    for n in range(count):
        name, id_, op = draw(hop_names), draw(quotable.filter(bool)), draw(quotable)
        made.append(Hop(name, id_, op, 5.0, clock.now(), elapsed_ms=sum(own[n:])))
    for outer, inner in pairwise(made):
        outer.children.append(inner)
    return made


@given(paths())
def test_timings_come_back_from_the_header(path: list[Hop]) -> None:
    header = headers.server_timing(path)
    call = Call.begin(HandClock(), 1)
    remote = headers.remote_hops(header, 5.0, call)
    assert remote is not None
    read = remote.critical_path()
    assert [(hop.name, hop.id, hop.op) for hop in read] == [(hop.name, hop.id, hop.op) for hop in path]
    for there, here in zip(path, read, strict=True):
        assert here.self_ms == pytest.approx(there.self_ms, abs=0.011)
    assert remote.elapsed_ms == pytest.approx(path[0].elapsed_ms, abs=0.1)


@given(hostile, hostile, hostile)
def test_no_text_breaks_the_timing_header(name: str, id_: str, op: str) -> None:
    hop = Hop(name, id_, op, 0.0, HandClock().now(), elapsed_ms=1.5)
    header = headers.server_timing([hop, hop])
    assert LINE.fullmatch(header)
    one = r'[A-Za-z0-9_.-]+;dur=1\.50;desc="[^"\\]*"'
    assert re.fullmatch(f"{one}, {one}", header)
    remote = headers.remote_hops(header, 0.0, Call.begin(HandClock(), 1))
    assert remote is not None
    assert len(remote.critical_path()) == 2


@given(any_text | st.sampled_from(["a;dur=1.2.3", "a;dur=.", "a;dur=" + "9" * 400, 'a;dur=1;desc="', "a;dur=1," * 500]))
def test_a_strange_timing_header_of_a_peer_does_no_harm(header: str) -> None:
    remote = headers.remote_hops(header, 0.0, Call.begin(HandClock(), 1))
    if remote is not None:
        assert len(remote.critical_path()) <= 64


# Proxy-Status, and failures.


def failed(*links: tuple[str, DiegoError]) -> Problem:
    for hop, error in links:
        error.frame = Frame(hop, "id", "op", error.code, error.message, error.status, elapsed_ms=3.0, self_ms=1.0)
    for (_, outer), (_, inner) in pairwise(links):
        outer.__cause__ = inner
    return problem(links[0][1], Call.begin(HandClock(), 1_000))


def test_each_hop_that_passed_the_failure_on_is_named() -> None:
    failure = failed(
        ("bbs", DesireFailed("x")), ("auction", PlacementFailed("x")), ("rep", HopUnreachable("connect to it"))
    )
    assert read_list(headers.proxy_status(failure)) == [
        (
            "auction",
            {"received-status": 502, "error": "destination_unavailable", "details": "hop_unreachable"},
        ),
        ("bbs", {"received-status": 500, "details": "auction.placement_failed"}),
    ]


def test_attempts_that_were_set_aside_are_not_in_the_way() -> None:
    last, first = ExecNotFound("x"), RepFailed("x")
    first.frame = Frame("rep", "cell-1", "run", "rep.work_failed")
    failure = failed(("auction", PlacementFailed("x", attempts=[first])), ("rep", last))
    assert read_list(headers.proxy_status(failure)) == [
        ("auction", {"received-status": 500, "details": "runtime.exec_not_found"})
    ]
    assert headers.failure_timing(failure).count("dur=") == 3


@given(st.lists(st.tuples(hostile, hostile, hostile, hostile), min_size=2, max_size=4))
def test_no_text_of_another_hop_breaks_the_headers_of_a_failure(texts: list[tuple[str, str, str, str]]) -> None:
    failure = failed(("bbs", DesireFailed("x")))
    frames = tuple(Frame(hop, id_, op, code or "c", status=500) for hop, id_, op, code in texts)
    failure = evolve(failure, chain=frames)
    proxy = headers.proxy_status(failure)
    assert LINE.fullmatch(proxy)
    assert len(read_list(proxy)) == len(texts) - 1
    assert LINE.fullmatch(headers.failure_timing(failure))


@pytest.mark.parametrize(
    "text", ["a,", ",a", "a b", "a;b", 'a;b="', "a;B=1", 'a;b="\\x"', "a;b=1.5", "é", "a;b=c,,d", 'a;b="\x01"']
)
def test_the_reader_of_lists_is_strict(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_list(text)


def test_a_rebuilt_failure_has_the_same_headers() -> None:
    failure = failed(("bbs", DesireFailed("x")), ("rep", RepFailed("x")))
    again = problem(rebuild(_document(failure)), Call.begin(HandClock(), 1_000))
    assert headers.proxy_status(again) == headers.proxy_status(failure)
    assert headers.failure_timing(again) == headers.failure_timing(failure)


def _document(failure: Problem) -> dict[str, object]:
    document: dict[str, object] = msgspec.json.decode(failure.encode())
    return document
