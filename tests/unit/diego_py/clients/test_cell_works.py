"""Instances asked for together go in one request, and whatever the cell does, each has the outcome that is its own."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from diego_py.call import Call
from diego_py.chain import problem
from diego_py.clients.cell_works import CellWorks
from diego_py.errors import (
    BadAnswer,
    BudgetSpent,
    ConnectionLost,
    DiegoError,
    HopUnreachable,
    InsufficientResources,
    Outcome,
    RepFailed,
    Saturated,
)
from diego_py.http.client import HopClient, Peer
from diego_py.models.work import Started
from diego_py.service.clock import SystemClock
from tests.fakes.cell import work
from tests.unit.diego_py.http.raw_peer import Script, closed_port, http, raw_peer, saying, silent

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def chunk(*lines: dict[str, Any]) -> bytes:
    told = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    return b"%x\r\n%b\r\n" % (len(told), told)


def given(part: int) -> dict[str, Any]:
    room = {"memory_mb": 1, "disk_mb": 1, "containers": 1}
    net_info = {"address": "192.0.2.1", "ports": [], "instance_address": "10.0.0.2"}
    started = {"instance_guid": f"i-{part}", "net_info": net_info, "available": room, "sequence": 1, "routable": True}
    return {"part": part, "timing": "", "given": started}


def failed(part: int) -> dict[str, Any]:
    call = Call.begin(SystemClock(), 1_000, f"request-{part}")
    with pytest.raises(DiegoError) as caught, call.hop("rep", "cell-1", "run_instance", RepFailed):
        raise InsufficientResources("not enough memory_mb", outcome=Outcome.NOT_STARTED)
    return {"part": part, "failure": json.loads(problem(caught.value, call).encode())}


def begin(budget_ms: float = 5_000) -> Call:
    return Call.begin(SystemClock(), budget_ms)


async def asked(url: str, *budgets_ms: float) -> list[Started | DiegoError]:
    """What became of instances that were asked for at the same moment."""
    http_client = HopClient()
    works = CellWorks(http_client)
    peer = Peer("rep", "cell-1", url)
    try:
        runs = [works.run(begin(ms), peer, work(f"i-{n}", index=n)) for n, ms in enumerate(budgets_ms)]
        outcomes = await asyncio.gather(*runs, return_exceptions=True)
    finally:
        await http_client.close()
    for outcome in outcomes:
        assert isinstance(outcome, Started | DiegoError), outcome
        if isinstance(outcome, DiegoError):
            assert outcome.frame is not None
            assert (outcome.frame.hop, outcome.frame.id, outcome.frame.op) == ("rep", "cell-1", "run_instance")
    assert not works._cells, "nothing is on its way any more"
    return outcomes  # type: ignore[return-value]


async def asked_of(script: Script, *budgets_ms: float) -> tuple[list[Started | DiegoError], list[dict[str, Any]]]:
    async with raw_peer(script) as peer:
        outcomes = await asked(peer.url, *budgets_ms)
        return outcomes, [json.loads(head["body"]) for head in peer.heads]


async def test_one_request_with_the_definition_once_and_lines_in_any_order() -> None:
    said = HEAD + chunk(given(2)) + chunk(failed(1), given(0)) + END
    outcomes, requests = await asked_of(saying(said), 900, 800, 700)
    assert [getattr(outcome, "instance_guid", None) for outcome in outcomes] == ["i-0", None, "i-2"]
    (request,) = requests
    assert [(each["index"], each["instance_guid"]) for each in request["instances"]] == [
        (0, "i-0"),
        (1, "i-1"),
        (2, "i-2"),
    ]
    budgets = [each["budget_ms"] for each in request["instances"]]
    assert all(ms - 150 < told <= ms - 50 for ms, told in zip((900, 800, 700), budgets, strict=True))
    assert len({each["trace_id"] for each in request["instances"]}) == 3
    assert isinstance(outcomes[1], InsufficientResources)
    assert outcomes[1].outcome is Outcome.NOT_STARTED


async def test_who_has_no_line_when_the_answer_breaks_off_does_not_know() -> None:
    for rest in (b"", b"5\r\n{\"pa"):
        outcomes, _ = await asked_of(saying(HEAD + chunk(given(1)) + rest, reset=True), 5_000, 5_000)
        assert isinstance(outcomes[1], Started)
        assert isinstance(outcomes[0], ConnectionLost)
        assert outcomes[0].outcome is Outcome.UNKNOWN


async def test_an_answer_that_ends_without_a_line_for_each() -> None:
    outcomes, _ = await asked_of(saying(HEAD + chunk(given(0)) + END), 5_000, 5_000)
    assert isinstance(outcomes[0], Started)
    assert isinstance(outcomes[1], ConnectionLost)
    assert outcomes[1].outcome is Outcome.UNKNOWN


@pytest.mark.parametrize("nonsense", [b"nonsense\n", b'{"part":"x"}\n', b'{"part":0,"given":{}}\n', b'{"part":0}\n'])
async def test_a_line_that_is_none(nonsense: bytes) -> None:
    outcomes, _ = await asked_of(saying(http(200, nonsense)), 5_000)
    assert isinstance(outcomes[0], BadAnswer)
    assert outcomes[0].outcome is Outcome.UNKNOWN


async def test_a_slow_one_holds_up_nobody_and_each_has_a_deadline_of_its_own() -> None:
    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + chunk(given(1)))
        await writer.drain()
        await asyncio.Event().wait()

    clock = SystemClock()
    began_s = clock.monotonic()
    outcomes, _ = await asked_of(script, 200, 60_000)
    assert clock.monotonic() - began_s < 30
    assert isinstance(outcomes[1], Started)
    assert isinstance(outcomes[0], BudgetSpent)
    assert outcomes[0].outcome is Outcome.UNKNOWN


async def test_nobody_listens() -> None:
    outcomes = await asked(f"http://127.0.0.1:{closed_port()}", 5_000, 5_000)
    assert [type(outcome) for outcome in outcomes] == [HopUnreachable] * 2
    assert outcomes[0] is not outcomes[1]
    assert {outcome.outcome for outcome in outcomes if isinstance(outcome, DiegoError)} == {Outcome.NOT_STARTED}


async def test_the_whole_request_is_refused() -> None:
    call = begin()
    with pytest.raises(DiegoError) as caught, call.hop("rep", "cell-1", "run_instance", RepFailed):
        raise Saturated("full", outcome=Outcome.NOT_STARTED)
    refusal = problem(caught.value, call).encode()
    outcomes, _ = await asked_of(saying(http(503, refusal)), 5_000, 5_000)
    assert [type(outcome) for outcome in outcomes] == [Saturated] * 2


async def test_a_frozen_cell_keeps_nobody_from_asking_again() -> None:
    """What was sent is out of the way: the next one goes on a connection of its own."""
    arrived = asyncio.Event()

    async def frozen(writer: asyncio.StreamWriter) -> None:
        arrived.set()
        await silent(writer)

    client = HopClient()
    works = CellWorks(client)
    async with raw_peer(frozen) as peer:
        to = Peer("rep", "cell-1", peer.url)
        async with asyncio.TaskGroup() as group:
            first = group.create_task(works.run(begin(60_000), to, work("i-0")))
            await arrived.wait()
            with pytest.raises(BudgetSpent) as caught:
                await works.run(begin(500), to, work("i-1", index=1))
            first.cancel()
        assert caught.value.outcome is Outcome.UNKNOWN
        assert len(peer.heads) == 2
        await client.close()
