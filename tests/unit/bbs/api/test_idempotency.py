"""The same key, the same answer: what is kept of the first request and what is refused."""

import asyncio
import json
from io import StringIO
from typing import Any, cast

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from attrs import define, field

from bbs.api.idempotency import Idempotency
from bbs.lifecycle import Lifecycle
from bbs.store.idempotency import IdempotencyKey, StoredAnswer
from bbs.store.replay import Replay
from diego_py.call import Call
from diego_py.chain import problem, rebuild
from diego_py.errors import (
    DatabaseUnavailable,
    DesireFailed,
    DiegoError,
    InvalidHeader,
    InvalidSpec,
    RepFailed,
    RequestFailed,
)
from diego_py.service.log import logger
from tests.unit.diego_py.service.hand_clock import HandClock


@define
class Answers:
    """The two methods of the lifecycle that matter here, over a dict."""

    stored: dict[str, StoredAnswer] = field(factory=dict)
    budgets_ms: list[float] = field(factory=list)
    unstored: DiegoError | None = None

    async def replay(self, call: Call, key: IdempotencyKey) -> Replay:
        return Replay(self.stored.get(key.key), resume=key.key == "died")

    async def answered(self, call: Call, key: IdempotencyKey, answer: StoredAnswer) -> None:
        if self.unstored is not None:
            raise self.unstored
        self.budgets_ms.append(call.remaining_ms())
        self.stored[key.key] = answer


@pytest.fixture
def answers() -> Answers:
    return Answers()


@pytest.fixture
def written() -> StringIO:
    return StringIO()


@pytest.fixture
def idempotency(answers: Answers, written: StringIO) -> Idempotency:
    return Idempotency(cast(Lifecycle, answers), "bbs-1:1", logger("bbs", "bbs-1", written))


def call(budget_ms: float = 30_000) -> Call:
    outer = Call.begin(HandClock(), budget_ms)
    with outer.hop("bbs", "bbs-1", "desire_lrp", DesireFailed) as inner:
        return inner


def key_of(idempotency: Idempotency, text: str, path: str = "/v1/x", body: bytes = b"{}") -> IdempotencyKey:
    key = idempotency.key_of(make_mocked_request("POST", path, headers={"Idempotency-Key": text}), body)
    assert key is not None
    return key


def test_a_request_without_a_key_has_none(idempotency: Idempotency) -> None:
    assert idempotency.key_of(make_mocked_request("POST", "/v1/x"), b"{}") is None


def test_a_key_says_what_it_was_used_for(idempotency: Idempotency) -> None:
    first, again = key_of(idempotency, "k"), key_of(idempotency, "k")
    assert (first.key, first.route) == ("k", "POST /v1/x")
    assert first.request_hash == again.request_hash != key_of(idempotency, "k", body=b"[]").request_hash
    assert first.owner != again.owner
    assert key_of(idempotency, "k", "/v1/x?on_failure=keep").route == "POST /v1/x?on_failure=keep"
    assert len(key_of(idempotency, "k", "/" + "x" * 5_000).route) == 500


@pytest.mark.parametrize("text", ["", " ", "a b", "é", "x" * 201, "a\tb"])
def test_a_key_that_is_none_is_refused(idempotency: Idempotency, text: str) -> None:
    with pytest.raises(InvalidHeader):
        key_of(idempotency, text)


async def test_a_new_key_does_the_work_and_keeps_its_answer(idempotency: Idempotency, answers: Answers) -> None:
    key = key_of(idempotency, "k")
    before = await idempotency.before(call(), key)
    assert (before.answer, before.resume) == (None, False)

    async def work() -> web.Response:
        return web.json_response({"a": 1}, status=201, headers={"ETag": '"1"', "X-Other": "x"})

    response = await idempotency.remember(call(), key, RequestFailed, work)
    assert response.status == 201
    kept = answers.stored["k"]
    assert (kept.status, json.loads(kept.body)) == (201, {"a": 1})
    assert set(kept.headers) == {"Content-Type", "ETag"}
    again = (await idempotency.before(call(), key)).answer
    assert again is not None
    assert (again.status, again.body, again.headers["ETag"]) == (201, kept.body, '"1"')
    assert again.headers["Idempotent-Replayed"] == "true"


async def test_without_a_key_nothing_is_kept(idempotency: Idempotency, answers: Answers) -> None:
    async def work() -> web.Response:
        return web.Response()

    assert (await idempotency.before(call(), None)).answer is None
    await idempotency.remember(call(), None, RequestFailed, work)
    assert answers.stored == {}


async def test_the_key_of_a_dead_owner_goes_on(idempotency: Idempotency) -> None:
    before = await idempotency.before(call(), key_of(idempotency, "died"))
    assert before.resume


def from_below(error: DiegoError) -> DiegoError:
    """`error` as the client rebuilds it from the answer of a cell."""
    with pytest.raises(DiegoError) as caught, call().hop("rep", "cell-1", "run_instance", RepFailed):
        raise error
    document: dict[str, Any] = json.loads(problem(caught.value, call()).encode())
    return rebuild(document)


def finished() -> DiegoError:
    inside = call()
    error = inside.framed(DesireFailed("desire web"))
    error.problem = problem(error, inside)
    return error


FAILURES = [
    (InvalidSpec("wrong"), 422, ["bbs"]),
    (finished(), 500, ["bbs"]),
    (from_below(RepFailed("run it")), 500, ["bbs", "rep"]),
]


@pytest.mark.parametrize(("error", "status", "hops"), FAILURES, ids=["own", "finished", "from below"])
async def test_a_failure_is_kept_exactly_as_it_is_answered(
    idempotency: Idempotency, answers: Answers, error: DiegoError, status: int, hops: list[str]
) -> None:
    async def work() -> web.Response:
        raise error

    outer = Call.begin(HandClock(), 100)
    with pytest.raises(DiegoError) as caught, outer.hop("bbs", "bbs-1", "desire_lrp", DesireFailed) as inner:
        await idempotency.remember(inner, key_of(idempotency, "k"), DesireFailed, work)
    kept = answers.stored["k"]
    assert kept.status == status
    assert caught.value.finished
    assert kept.body == caught.value.problem.encode()
    assert [frame["hop"] for frame in json.loads(kept.body)["chain"]] == hops
    assert kept.headers["Content-Type"] == "application/problem+json"


async def test_an_answer_is_kept_also_when_the_budget_is_spent(idempotency: Idempotency, answers: Answers) -> None:
    async def work() -> web.Response:
        return web.Response()

    await idempotency.remember(call(-500), key_of(idempotency, "k"), RequestFailed, work)
    assert answers.budgets_ms == [pytest.approx(5_000)]


async def test_an_answer_that_cannot_be_kept_is_given_all_the_same(
    idempotency: Idempotency, answers: Answers, written: StringIO
) -> None:
    answers.unstored = DatabaseUnavailable("store_answer")

    async def work() -> web.Response:
        return web.Response(status=201)

    assert (await idempotency.remember(call(), key_of(idempotency, "k"), RequestFailed, work)).status == 201
    assert json.loads(written.getvalue())["event"] == "answer_not_stored"


async def test_cancelled_work_is_not_kept_as_an_answer(idempotency: Idempotency, answers: Answers) -> None:
    async def work() -> web.Response:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await idempotency.remember(call(), key_of(idempotency, "k"), RequestFailed, work)
    assert answers.stored == {}
