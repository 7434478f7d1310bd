"""The document says what the exceptions say, the exceptions come back from it, and nothing makes it leak or burst."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from attrs import evolve
from hypothesis import assume, given
from hypothesis import strategies as st

from diego_py.call import Call
from diego_py.chain import (
    CHAIN_FRAMES_MAX,
    DOCUMENT_BYTES_MAX,
    READ_FRAMES_MAX,
    TEXT_HEAD_BYTES,
    TEXT_TAIL_BYTES,
    Problem,
    clip,
    main_line,
    problem,
    rebuild,
)
from diego_py.errors import (
    BudgetSpent,
    DesireFailed,
    DiegoError,
    ExecNotFound,
    Fault,
    Frame,
    InsufficientResources,
    InvalidSpec,
    NoCellFits,
    Outcome,
    PlacementFailed,
    RemoteError,
    RepFailed,
    Saturated,
    Step,
    registry,
)
from diego_py.secret import Secret
from tests.unit.diego_py.service.hand_clock import HandClock

CANARY = "canary-51c2"
KINDS = [kind for kind in registry().values() if kind is not RemoteError]
REQUIRED_MEMBERS = {
    *("type", "title", "status", "detail", "code", "origin", "fault", "outcome", "retryable", "request_id"),
    *("trace_id", "budget_ms", "elapsed_ms", "chain", "next"),
}

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
said = words.filter(bool)
milliseconds = st.integers(0, 10**7).map(lambda hundredths: hundredths / 100)
steps = st.lists(st.builds(Step, op=words, ms=milliseconds), max_size=2).map(tuple)


def call() -> Call:
    return Call.begin(HandClock(), 30_000, "request-1")


def linked(*errors: DiegoError) -> DiegoError:
    """The errors, outermost first, each caused by the next, each with a frame of its own hop."""
    for position, error in enumerate(errors):
        error.frame = error.frame or Frame(f"hop{position}", f"id{position}", "op", error.code, error.message)
    for outer, inner in pairwise(errors):
        outer.__cause__ = inner
    return errors[0]


@st.composite
def chains(draw: st.DrawFn, links_max: int = 4, attempts_max: int = 2) -> DiegoError:
    """A failure with its causes and the attempts that its links set aside, which are such chains themselves."""
    links = []
    for _ in range(draw(st.integers(1, links_max))):
        kind = draw(st.sampled_from(KINDS))
        attempts = draw(st.lists(chains(links_max=2, attempts_max=attempts_max - 1), max_size=attempts_max))
        error = kind(draw(said), attempts=attempts)
        error.frame = Frame(
            hop=draw(st.sampled_from(["bbs", "auction", "rep", "garden"])),
            id=draw(said),
            op=draw(said),
            code=error.code,
            detail=error.message,
            status=draw(st.none() | st.integers(400, 504)),
            started_at=draw(st.none() | said),
            elapsed_ms=draw(milliseconds),
            self_ms=draw(milliseconds),
            attempt=draw(st.none() | st.integers(1, 3)),
            steps=draw(steps),
        )
        links.append(error)
    return linked(*links)


def told(error: DiegoError) -> Any:
    """All of a chain that has to survive the way through a document."""
    attempts = [told(attempt) for attempt in error.attempts]
    cause = told(error.__cause__) if isinstance(error.__cause__, DiegoError) else None
    return (type(error), error.code, error.message, error.frame, attempts, cause)


def size(error: DiegoError) -> int:
    return sum(1 + sum(size(attempt) for attempt in link.attempts) for link in error.links())


def document_of(error: DiegoError, subject: dict[str, Any] | None = None) -> dict[str, Any]:
    body = problem(error, call(), subject).encode()
    assert len(body) <= DOCUMENT_BYTES_MAX
    document: dict[str, Any] = json.loads(body)
    return document


@given(chains())
def test_a_chain_survives_the_way_through_its_document(error: DiegoError) -> None:
    assume(size(error) <= CHAIN_FRAMES_MAX)
    document = document_of(error)
    rebuilt = rebuild(document)
    assert told(rebuilt) == told(error)
    assert rebuilt.problem == document
    assert len(document["chain"]) == size(error)
    assert rebuilt.root.code == document["code"]
    assert rebuilt.outcome == document["outcome"]


@given(chains())
def test_a_hop_that_passes_a_chain_on_keeps_all_of_it(error: DiegoError) -> None:
    assume(size(error) < CHAIN_FRAMES_MAX)
    outer = DesireFailed("desire web")
    outer.__cause__ = rebuild(document_of(error))
    first, second = document_of(outer), document_of(error)
    assert first["chain"][1:] == second["chain"]
    assert {name: first[name] for name in ("code", "type", "title", "detail", "origin", "fault", "retryable")} == {
        name: second[name] for name in ("code", "type", "title", "detail", "origin", "fault", "retryable")
    }


@given(chains(links_max=8, attempts_max=1))
def test_a_chain_has_its_two_ends_however_long_it_is(error: DiegoError) -> None:
    document = document_of(error)
    assert 1 <= len(document["chain"]) <= CHAIN_FRAMES_MAX
    rebuilt = rebuild(document)
    assert (rebuilt.code, rebuilt.message) == (error.code, error.message)
    assert (rebuilt.root.code, rebuilt.root.message) == (error.root.code, error.root.message)


def test_a_very_long_chain_loses_attempts_first_and_then_its_middle() -> None:
    attempts = [linked(*(RepFailed(f"try {n}") for n in range(10)))]
    outer = PlacementFailed("place", attempts=attempts)
    error = linked(outer, *(RepFailed(f"run {n}") for n in range(20)))
    assert [frame["detail"] for frame in document_of(error)["chain"]] == ["place", *(f"run {n}" for n in range(20))]
    error = linked(*(RepFailed(f"run {n}") for n in range(100)))
    details = [frame["detail"] for frame in document_of(error)["chain"]]
    assert details == [f"run {n}" for n in (*range(12), *range(88, 100))]


def test_the_innermost_cause_names_the_problem() -> None:
    root = ExecNotFound("execute /app/serve", evidence={"exit_status": 127})
    error = linked(DesireFailed("desire web", placement={"cells": 2}), PlacementFailed("place web/0"), root)
    subject = {"kind": "lrp", "guid": "web", "index": 0}
    document = document_of(error, subject)
    assert document.keys() >= REQUIRED_MEMBERS
    assert document["type"] == "/errors/runtime.exec_not_found"
    assert document["title"] == ExecNotFound.title
    assert document["detail"] == "execute /app/serve"
    assert (document["status"], document["fault"], document["origin"]) == (500, "app", "hop2")
    assert document["evidence"] == {"exit_status": 127}
    assert document["placement"] == {"cells": 2}
    assert document["subject"] == subject
    assert [frame["code"] for frame in document["chain"]] == [link.code for link in error.links()]


def test_attempts_that_were_all_set_aside_do_not_become_the_cause() -> None:
    tried = [linked(RepFailed(f"run it on {cell}"), InsufficientResources("reserve")) for cell in ("a", "b")]
    error = linked(DesireFailed("desire web"), NoCellFits("none is left", attempts=tried))
    document = document_of(error)
    assert (document["code"], document["origin"]) == ("auction.no_cell_fits", "hop1")
    assert [frame.get("set_aside") for frame in document["chain"]] == [None, None, 2, None, 2, None]
    rebuilt = rebuild(document)
    assert type(rebuilt.root) is NoCellFits
    assert [attempt.message for attempt in rebuilt.root.attempts] == ["run it on a", "run it on b"]
    assert rebuilt.find(InsufficientResources) is None
    assert rebuilt.root.attempts[0].find(InsufficientResources) is not None


def test_an_error_without_a_frame_stands_within_the_hop_that_it_happened_in() -> None:
    error = linked(RepFailed("run it"))
    error.__cause__ = ExecNotFound("execute it", attempts=[BudgetSpent("first")])
    frames = document_of(error)["chain"]
    assert [(frame["hop"], frame["id"]) for frame in frames] == [("hop0", "id0")] * 3
    (frame,) = document_of(RepFailed("nowhere"))["chain"]
    assert (frame["hop"], frame["op"]) == ("process", "nowhere")


def test_what_a_reader_is_told_to_run_names_the_subject() -> None:
    error = linked(DesireFailed("desire web"))
    assert document_of(error, {"guid": "web"})["next"][0]["run"] == "diego explain web"
    assert document_of(error)["next"][0]["run"] == "diego explain PROCESS_GUID"
    assert document_of(error, {"guid": "a; rm -rf /"})["next"][0]["run"] == "diego explain 'a; rm -rf /'"
    assert document_of(error, {"guid": None})["next"][0]["run"] == "diego explain PROCESS_GUID"


def test_an_error_may_say_itself_what_it_is_about() -> None:
    inner = RepFailed("run it")
    inner.subject = {"kind": "lrp", "guid": "web"}
    document = document_of(linked(DesireFailed("x"), inner))
    assert document["subject"] == inner.subject
    assert document["next"][0]["run"] == "diego explain web"
    assert document_of(linked(DesireFailed("x"), inner), {"guid": "other"})["subject"] == {"guid": "other"}


# Status: 4xx only when nothing was tried; then 500, 502, 503, 504 by what happened at the bottom.


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.code)
def test_a_4xx_is_kept_only_where_it_was_made(kind: type[DiegoError]) -> None:
    assert document_of(linked(kind("here")))["status"] == kind.status
    entered = document_of(linked(DesireFailed("desire web"), kind("below")))["status"]
    if kind.status >= 500:
        assert entered == kind.status
    else:
        assert entered == (503 if kind.fault is Fault.CAPACITY else 500)


def test_retry_after_is_given_where_a_retry_may_help() -> None:
    assert document_of(linked(Saturated("full", retry_after_s=7.5)))["retry_after_s"] == 7.5
    assert document_of(linked(NoCellFits("none")))["retry_after_s"] == 1.0
    assert document_of(linked(DesireFailed("x"), NoCellFits("none")))["retry_after_s"] == 1.0
    assert document_of(linked(DesireFailed("x"), InsufficientResources("full")))["retry_after_s"] == 1.0
    assert "retry_after_s" not in document_of(linked(InsufficientResources("full")))
    assert "retry_after_s" not in document_of(linked(ExecNotFound("x")))


def test_the_outermost_link_that_knows_says_what_is_true_now() -> None:
    below = RepFailed("run it", outcome=Outcome.ROLLED_BACK)
    assert document_of(linked(DesireFailed("x"), below))["outcome"] == "rolled_back"
    assert document_of(linked(DesireFailed("x", outcome=Outcome.PARTIAL), below))["outcome"] == "partial"
    assert document_of(linked(DesireFailed("x")))["outcome"] == "not_started"


# Documents of other versions, and what is no document.


def test_an_unknown_code_is_kept_with_all_that_was_said_of_it() -> None:
    document = document_of(linked(RepFailed("run it"), ExecNotFound("execute it"))) | {
        "code": "rep.from_the_future",
        "title": "It rains",
        "fault": "capacity",
        "status": 503,
        "retryable": True,
        "next": [{"do": "Wait", "new": 1}],
        "new_member": [1],
    }
    document["chain"][1] |= {"code": "rep.from_the_future", "status": 503, "new_member": {}}
    error = rebuild(document)
    assert type(error.root) is RemoteError
    assert error.root.code == "rep.from_the_future"
    outer = DesireFailed("desire web")
    outer.__cause__ = error
    again = document_of(outer)
    kept = ("type", "code", "title", "fault", "status", "retryable")
    assert {name: again[name] for name in kept} == {name: document[name] for name in kept} | {
        "type": "/errors/rep.from_the_future"
    }
    assert again["next"] == [{"do": "Wait"}]
    assert RemoteError.code == "remote_error"
    assert RemoteError.fault is Fault.PLATFORM


def damaged(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    document = document_of(linked(RepFailed("run it"), InvalidSpec("x", errors=[{"pointer": "/a"}])))
    change(document)
    return document


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"chain": []},
        damaged(lambda d: d.pop("chain")),
        damaged(lambda d: d.update(chain=[])),
        damaged(lambda d: d.update(chain="abc")),
        damaged(lambda d: d.update(chain=[1])),
        damaged(lambda d: d.update(chain=[{}])),
        damaged(lambda d: d.update(chain=d["chain"] * READ_FRAMES_MAX)),
        damaged(lambda d: d["chain"][0].update(elapsed_ms="long")),
        damaged(lambda d: d["chain"][0].update(steps=[{"op": 1}])),
        damaged(lambda d: d.update(status="500")),
        damaged(lambda d: d.update(outcome="wonderful")),
        damaged(lambda d: d.update(fault="nobody")),
        damaged(lambda d: d.update(errors="abc")),
        damaged(lambda d: d.update(evidence=[])),
        damaged(lambda d: d.update(retry_after_s="soon")),
        damaged(lambda d: d.pop("title")),
    ],
)
def test_what_is_no_document_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="failure document"):
        rebuild(document)


@given(st.lists(st.none() | st.integers(-3, 9), min_size=1, max_size=8))
def test_a_lie_about_attempts_loses_no_frame(set_aside: list[int | None]) -> None:
    document = document_of(linked(RepFailed("run it")))
    document["chain"] = [{**document["chain"][0], "op": f"{n}", "set_aside": n} for n in set_aside]
    assert size(rebuild(document)) == len(set_aside)


@given(chains())
def test_the_main_line_is_the_chain_without_attempts(error: DiegoError) -> None:
    assume(size(error) <= CHAIN_FRAMES_MAX)
    line = main_line(problem(error, call()).chain)
    assert [frame.detail for frame in line] == [link.message for link in error.links()]


# At most 64 KiB, whatever is put in.

anything: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.builds(Secret, st.just(CANARY))
    | st.builds(object)
    | st.just(Path("/x"))
    | st.just(datetime(2026, 1, 1, tzinfo=UTC)),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=4)
        | st.sets(st.text(), max_size=4)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), anything, max_size=4))
def test_any_evidence_can_be_told(evidence: dict[str, Any]) -> None:
    error = linked(RepFailed("run it", evidence=evidence))
    body = problem(error, call()).encode()
    assert CANARY.encode() not in body
    assert rebuild(msgspec.json.decode(body)).code == RepFailed.code


BIG = {
    "text": "x" * 300_000,
    "controls": "\0" * 100_000,
    "lone surrogates": "\ud800" * 10_000,
    "wide": "\N{PILE OF POO}" * 100_000,
    "list": list(range(100_000)),
    "table": {f"key{n}": n for n in range(50_000)},
    "long keys": {f"{n}" * 5_000: n for n in range(50)},
    "deep": [[[[[["x" * 9_000] * 5] * 5] * 5] * 5] * 5],
    "integer": 10**5_000,
}


def bottomless() -> list[Any]:
    inner: list[Any] = []
    for _ in range(5_000):
        inner = [inner]
    return inner


@pytest.mark.parametrize("value", [*BIG.values(), BIG, bottomless()], ids=[*BIG, "all", "bottomless"])
def test_no_evidence_makes_a_document_burst(value: Any) -> None:
    placement = {"bids": [{"cell": "c", "detail": value}] * 100}
    error = linked(DesireFailed("desire web"), RepFailed("run it", evidence={"it": value}, placement=placement))
    document = document_of(error, {"guid": "web", "more": value})
    assert [frame["code"] for frame in document["chain"]] == [DesireFailed.code, RepFailed.code]
    rebuild(document)


def test_what_gave_way_is_said_and_the_ends_of_texts_stay() -> None:
    stderr = "first line\n" + "x" * 100_000 + "\nlast line"
    document = document_of(linked(RepFailed("run it", evidence={"stderr": stderr, "exit_status": 1})))
    assert document["evidence"]["truncated"] is True
    assert document["evidence"]["exit_status"] == 1
    assert document["evidence"]["stderr"].startswith("first line\n")
    assert document["evidence"]["stderr"].endswith("\nlast line")


def test_nothing_gives_way_in_a_document_that_fits() -> None:
    evidence = {"stderr": clip("x" * 20_000), "lines": ["y" * 100] * 200}
    assert document_of(linked(RepFailed("run it", evidence=evidence)))["evidence"] == evidence


def test_texts_instances_and_errors_give_way_too() -> None:
    text = "\0" * 90_000
    frame = Frame(text, text, text, text, text, steps=(Step(text, 1.0),) * 9)
    frames = (frame,) * CHAIN_FRAMES_MAX
    full = evolve(
        problem(linked(RepFailed(text)), call()),
        chain=frames,
        instances=({"index": 1, "detail": text},) * 1_000,
        errors=({"pointer": text, "code": text, "detail": text},) * 100,
    )
    assert len(full.encode()) <= DOCUMENT_BYTES_MAX
    many = evolve(full, chain=frames[:1], detail="x", instances=tuple({"index": n} for n in range(9_000)))
    document = msgspec.json.decode(many.encode())
    assert document["evidence"]["truncated"] is True


def test_secrets_are_never_told() -> None:
    secret = Secret(CANARY)
    error = RepFailed(f"log in with {secret}", evidence={"env": [secret], "at": {"deep": {"er": secret}}})
    error.placement = {"bid": secret}
    body = problem(linked(DesireFailed("x"), error), call(), {"guid": secret}).encode()
    assert CANARY.encode() not in body
    assert json.loads(body)["evidence"] == {"env": ["***"], "at": {"deep": {"er": "***"}}}


def test_plain_kinds_of_values_are_told_as_people_write_them() -> None:
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    evidence = {"path": Path("/a/b"), "at": moment, "fault": Fault.APP, 7: (1, 2), "raw": b"\x00", "what": object()}
    assert document_of(linked(RepFailed("x", evidence=evidence)))["evidence"] == {
        "path": "/a/b",
        "at": "2026-01-02T00:00:00+00:00",
        "fault": "app",
        "<int>": [1, 2],
        "raw": "<bytes>",
        "what": "<object>",
    }


@given(st.text(st.characters(), max_size=100))
def test_a_short_text_is_clipped_to_itself(text: str) -> None:
    clipped = clip(text)
    assert clipped["truncated"] is False
    assert clipped["text"] == text.encode(errors="replace").decode()
    assert clipped["bytes"] == len(text.encode(errors="replace"))


def test_a_long_text_keeps_head_and_tail() -> None:
    clipped = clip("a" * TEXT_HEAD_BYTES + "b" * 1_000 + "c" * TEXT_TAIL_BYTES)
    assert clipped["truncated"] is True
    assert re.fullmatch(r"a{4096}\n\[\.\.\.\]\nc{12288}", clipped["text"])
    assert clipped["bytes"] == TEXT_HEAD_BYTES + 1_000 + TEXT_TAIL_BYTES


def test_members_that_say_nothing_are_left_out() -> None:
    document = document_of(linked(RepFailed("run it")))
    assert not {"instance", "evidence", "placement", "errors", "instances", "subject"} & document.keys()
    assert not {"attempt", "set_aside", "steps", "status", "started_at"} & document["chain"][0].keys()
    assert isinstance(problem(linked(RepFailed("x")), call()), Problem)


def test_a_link_that_no_hop_framed_is_told_as_of_the_hop_it_is_in() -> None:
    """As the end of the budget before another hop was asked: with all that is told of every frame of a hop."""
    with pytest.raises(PlacementFailed) as failed, call().hop("auction", "bbs-1", "place web/0", PlacementFailed):
        raise PlacementFailed("place web/0") from BudgetSpent("no time left to ask rep cell-1")
    outer, inner = problem(failed.value, call()).chain
    assert (inner.hop, inner.id, inner.detail) == ("auction", "bbs-1", "no time left to ask rep cell-1")
    assert inner.started_at == outer.started_at is not None
