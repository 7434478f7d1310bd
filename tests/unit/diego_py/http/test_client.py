"""Whatever the next hop does, the caller gets the right error with the right frame, or the chain that hop described."""

import json
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import pytest
from aiohttp import web

from diego_py.call import ANSWER_MARGIN_MS, Call
from diego_py.chain import problem
from diego_py.errors import (
    BadAnswer,
    BudgetSpent,
    ConnectionLost,
    DesireFailed,
    DiegoError,
    ExecNotFound,
    HopUnreachable,
    InsufficientResources,
    Outcome,
    RepFailed,
    RequestFailed,
)
from diego_py.http import client as client_module
from diego_py.http.client import HopClient, Peer
from diego_py.http.server import Route, answer
from diego_py.service.clock import SystemClock
from tests.unit.diego_py.http.raw_peer import Script, closed_port, http, raw_peer, saying, silent
from tests.unit.diego_py.http.serving import serving
from tests.unit.diego_py.service.hand_clock import HandClock


@pytest.fixture
async def client() -> AsyncIterator[HopClient]:
    hop_client = HopClient()
    yield hop_client
    await hop_client.close()


def begin(budget_ms: float = 5_000) -> Call:
    return Call.begin(SystemClock(), budget_ms, "request-1")


def rep(url: str) -> Peer:
    return Peer("rep", "cell-1", url)


async def failure_of(client: HopClient, url: str, call: Call | None = None) -> DiegoError:
    with pytest.raises(DiegoError) as caught:
        await client.request(call or begin(), rep(url), "POST", "/v1/instances", b"{}", op="run_instance")
    return caught.value


async def answered_with(client: HopClient, script: Script, call: Call | None = None) -> DiegoError:
    async with raw_peer(script) as peer:
        return await failure_of(client, peer.url, call)


def assert_frame(error: DiegoError, status: int | None) -> None:
    """The frame that the next hop could not make itself."""
    assert error.frame is not None
    assert (error.frame.hop, error.frame.id, error.frame.op) == ("rep", "cell-1", "run_instance")
    assert (error.frame.code, error.frame.status) == (error.code, status)
    assert error.frame.elapsed_ms >= 0


def document(*links: DiegoError) -> dict[str, Any]:
    """What a hop named rep answers when it failed with these."""
    call = Call.begin(HandClock(), 1_000)
    with call.hop("rep", "cell-1", "run_instance", RepFailed) as inner:
        for link in links:
            inner.framed(link)
    for outer, below in pairwise(links):
        outer.__cause__ = below
    told: dict[str, Any] = json.loads(problem(links[0], call).encode())
    return told


# The request does not arrive.


async def test_nobody_listens(client: HopClient) -> None:
    url = f"http://127.0.0.1:{closed_port()}"
    error = await failure_of(client, url)
    assert type(error) is HopUnreachable
    assert error.outcome is Outcome.NOT_STARTED
    assert error.message.startswith(f"connect to {url}: ")
    assert error.retryable
    assert_frame(error, 502)


@pytest.mark.parametrize(
    "url", ["http://no-such-host.invalid:1", "http://a..b", "http://[::", "http://127.0.0.1:99999", "nonsense"]
)
async def test_there_is_no_such_address(client: HopClient, url: str) -> None:
    error = await failure_of(client, url)
    assert type(error) is HopUnreachable
    assert error.outcome is Outcome.NOT_STARTED
    assert_frame(error, 502)


@pytest.mark.parametrize("budget_ms", [-100, 0, ANSWER_MARGIN_MS])
async def test_a_spent_budget_is_not_sent_on(client: HopClient, budget_ms: float) -> None:
    async with raw_peer(silent) as peer:
        error = await failure_of(client, peer.url, begin(budget_ms))
        assert peer.heads == []
    assert type(error) is BudgetSpent
    assert error.outcome is Outcome.NOT_STARTED
    assert error.frame is None, "it is the failure of our own hop"


# The request arrives, and what comes back is no answer.


@pytest.mark.parametrize(
    "script",
    [
        saying(b""),
        saying(b"", reset=True),
        saying(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"),
        saying(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", reset=True),
        saying(b"HTTP/1.1 500 No\r\nContent-Length: 100\r\n\r\n{"),
        saying(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"),
    ],
    ids=["closed", "reset", "closed in the body", "reset in the body", "closed in a failure", "closed in a chunk"],
)
async def test_the_connection_breaks(client: HopClient, script: Script) -> None:
    error = await answered_with(client, script)
    assert type(error) is ConnectionLost
    assert error.outcome is Outcome.UNKNOWN
    assert error.__cause__ is not None
    assert_frame(error, 502)


async def half_an_answer(writer: Any) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
    await silent(writer)


@pytest.mark.parametrize("script", [silent, half_an_answer])
async def test_the_answer_does_not_come_in_time(client: HopClient, script: Script) -> None:
    error = await answered_with(client, script, begin(ANSWER_MARGIN_MS + 30))
    assert type(error) is BudgetSpent
    assert error.outcome is Outcome.UNKNOWN
    assert_frame(error, 504)
    assert error.frame is not None
    assert error.frame.elapsed_ms < 2_000


NONSENSE = {
    "html": (502, b"<html>Bad Gateway</html>"),
    "empty": (500, b""),
    "list": (500, b"[]"),
    "other JSON": (404, b'{"error": "not found"}'),
    "no chain": (500, json.dumps(document(RepFailed("x")) | {"chain": []}).encode()),
    "broken UTF-8": (500, b'{"chain": "\xff"}'),
    "bottomless": (500, b"[" * 100_000),
    "redirect": (302, b""),
}


@pytest.mark.parametrize(("status", "body"), NONSENSE.values(), ids=NONSENSE)
async def test_a_failure_that_is_no_document(client: HopClient, status: int, body: bytes) -> None:
    error = await answered_with(client, saying(http(status, body, "Location: /elsewhere")))
    assert type(error) is BadAnswer
    assert error.outcome is Outcome.UNKNOWN
    assert error.message == f"status {status} without a failure document"
    assert_frame(error, status)


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH_9\r\n", b"HTTP/1.1 many OK\r\n\r\n", b"\0\0\0\0\r\n\r\n"])
async def test_what_is_no_http(client: HopClient, answer: bytes) -> None:
    error = await answered_with(client, saying(answer))
    assert type(error) is BadAnswer
    assert_frame(error, 502)


async def test_an_answer_without_end_is_not_read_to_its_end(client: HopClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "ANSWER_BYTES_MAX", 1_000)
    error = await answered_with(client, saying(http(200, b"x" * 1_001)))
    assert type(error) is BadAnswer
    assert_frame(error, 502)


# The next hop failed and says how.


async def test_a_document_becomes_the_chain_it_describes(client: HopClient) -> None:
    told = document(RepFailed("run it"), ExecNotFound("execute /app/serve", evidence={"exit_status": 127}))
    error = await answered_with(client, saying(http(500, json.dumps(told).encode())))
    assert [type(link) for link in error.links()] == [RepFailed, ExecNotFound]
    assert error.root.evidence == {"exit_status": 127}
    assert error.problem == told
    assert error.frame is not None
    assert error.frame.elapsed_ms == told["chain"][0]["elapsed_ms"]


async def test_a_refusal_of_the_next_hop_is_a_503_of_ours(client: HopClient) -> None:
    told = document(InsufficientResources("reserve 512 MB"))
    assert told["status"] == 409
    call = begin()
    async with raw_peer(saying(http(409, json.dumps(told).encode()))) as peer:
        with pytest.raises(DesireFailed) as caught, call.hop("bbs", "bbs-1", "desire_lrp", DesireFailed) as inner:
            await client.request(inner, rep(peer.url), "POST", "/v1/instances", b"{}")
    ours = problem(caught.value, call)
    assert (ours.status, ours.code, ours.origin) == (503, "rep.insufficient_resources", "rep")
    assert [frame.hop for frame in ours.chain] == ["bbs", "rep"]


# What goes down, and what comes up.


async def test_ids_and_budget_go_down(client: HopClient) -> None:
    async with raw_peer(saying(http(200, b"{}"))) as peer:
        call = begin(2_000)
        result = await client.request(call, rep(peer.url), "POST", "/v1/x", b'{"a": 1}', extra={"Prefer": "wait=1"})
    (head,) = peer.heads
    assert (result.status, result.body) == (200, b"{}")
    assert head["first line"] == "POST /v1/x HTTP/1.1"
    assert (head["body"], head["Content-Type"], head["Prefer"]) == ('{"a": 1}', "application/json", "wait=1")
    assert head["X-Request-Id"] == "request-1"
    assert head["traceparent"].split("-")[1] == call.trace_id
    assert 1_000 < float(head["X-Budget-Ms"]) <= 2_000 - ANSWER_MARGIN_MS


async def test_each_hop_gets_a_margin_less_than_the_one_before(client: HopClient) -> None:
    budgets: list[float] = []

    async def relay(request: web.Request, call: Call) -> web.StreamResponse:
        budgets.append(call.budget.total_ms)
        depth = int(request.match_info["depth"])
        if depth:
            own = f"{request.scheme}://{request.host}"
            await client.request(call, Peer("rep", f"cell-{depth}", own), "GET", f"/relay/{depth - 1}")
        return answer({"depth": depth})

    async with serving([Route("GET", "/relay/{depth}", "relay", relay, RequestFailed, counted=False)]) as served:
        call = begin(4_000)
        with call.hop("client", "me", "ask", RequestFailed) as inner:
            await client.request(inner, rep(served.url), "GET", "/relay/3")
    assert len(budgets) == 4
    assert budgets[0] <= 4_000 - ANSWER_MARGIN_MS
    for outer, below in pairwise(budgets):
        assert below <= outer - ANSWER_MARGIN_MS + 0.5
    assert inner.here is not None
    path = inner.here.critical_path()
    assert [hop.name for hop in path] == ["client", "bbs", "bbs", "bbs", "bbs"]
    assert sum(hop.self_ms for hop in path) == pytest.approx(inner.here.elapsed_ms, abs=0.1)


async def test_a_failed_request_counts_as_time_below(client: HopClient) -> None:
    call = begin()
    async with raw_peer(saying(b"")) as peer:
        with pytest.raises(DesireFailed) as caught, call.hop("bbs", "bbs-1", "desire_lrp", DesireFailed) as inner:
            await client.request(inner, rep(peer.url), "GET", "/")
    outer, below = caught.value.frame, caught.value.root.frame
    assert outer is not None
    assert below is not None
    assert outer.self_ms <= outer.elapsed_ms - below.elapsed_ms + 0.1


# Streams.


async def lines_of(client: HopClient, url: str, call: Call | None = None) -> list[bytes]:
    async with client.stream(call or begin(), rep(url), "/logs") as content:
        return [line async for line in content]


async def test_a_stream_is_read_as_it_comes(client: HopClient) -> None:
    async with raw_peer(saying(http(200, b"one\ntwo\n"))) as peer:
        assert await lines_of(client, peer.url) == [b"one\n", b"two\n"]


STREAMS = [
    (saying(http(500, json.dumps(document(RepFailed("x"))).encode())), RepFailed),
    (saying(http(404, b"nothing")), BadAnswer),
    (saying(b""), ConnectionLost),
    (saying(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\none\n"), ConnectionLost),
    (silent, BudgetSpent),
]


@pytest.mark.parametrize(("script", "kind"), STREAMS, ids=lambda value: getattr(value, "code", ""))
async def test_a_stream_fails_as_a_request_does(client: HopClient, script: Script, kind: type[DiegoError]) -> None:
    async with raw_peer(script) as peer:
        with pytest.raises(DiegoError) as caught:
            await lines_of(client, peer.url, begin(ANSWER_MARGIN_MS + 100))
    assert type(caught.value) is kind
    assert caught.value.frame is not None
    assert caught.value.frame.hop == "rep"


async def test_nobody_listens_for_a_stream(client: HopClient) -> None:
    with pytest.raises(HopUnreachable):
        await lines_of(client, f"http://127.0.0.1:{closed_port()}")


async def test_what_the_reader_of_a_stream_raises_is_its_own(client: HopClient) -> None:
    async with raw_peer(saying(http(200, b"one\n"))) as peer:
        with pytest.raises(ConnectionResetError):
            async with client.stream(begin(), rep(peer.url), "/logs"):
                raise ConnectionResetError("of somebody else")


async def test_a_closed_client_connects_again(client: HopClient) -> None:
    async with raw_peer(saying(http(200, b"{}"))) as peer:
        for _ in range(2):
            assert (await client.request(begin(), rep(peer.url), "GET", "/")).status == 200
            await client.close()
            await client.close()
