"""One effect a key: stored with the effect, replayed with the answer, resumed when its owner died."""

import pytest
from attrs import evolve

from bbs.lifecycle import Desired
from bbs.store.idempotency import IdempotencyKey, StoredAnswer
from bbs.store.replay import Replay
from diego_py.errors import AlreadyExists, IdempotencyInFlight, IdempotencyMismatch
from diego_py.models.desired_lrp import DesiredLRPUpdate
from diego_py.service.clock import SystemClock
from tests.contract.store.conftest import Scene, definition, outcomes

KEY = IdempotencyKey("key-1", "POST /v1/desired_lrps", b"hash", owner="request-1")
AGAIN = evolve(KEY, owner="request-2")
ANSWER = StoredAnswer(201, {"Location": "/v1/desired_lrps/app"}, b'{"ok": true}')


async def test_a_new_key_says_nothing(scene: Scene) -> None:
    assert await scene.lifecycle.replay(scene.call, KEY) == Replay()


async def test_the_answer_is_replayed(scene: Scene) -> None:
    await scene.lifecycle.desire(scene.call, definition(), KEY)
    with pytest.raises(IdempotencyInFlight):
        await scene.lifecycle.replay(scene.call, AGAIN)
    await scene.lifecycle.answered(scene.call, KEY, ANSWER)
    assert await scene.lifecycle.replay(scene.call, AGAIN) == Replay(answer=ANSWER)


async def test_a_key_is_for_one_request(scene: Scene) -> None:
    await scene.lifecycle.desire(scene.call, definition(), KEY)
    for other in (evolve(AGAIN, request_hash=b"other"), evolve(AGAIN, route="PATCH /x")):
        with pytest.raises(IdempotencyMismatch):
            await scene.lifecycle.replay(scene.call, other)
        with pytest.raises(IdempotencyMismatch):
            await scene.lifecycle.desire(scene.call, definition("other"), other)
    assert len(await scene.store.read(scene.call, "list", lambda tx: tx.actual_lrps.list_all())) == 1


async def test_a_key_without_an_effect_is_not_kept(scene: Scene) -> None:
    await scene.lifecycle.desire(scene.call, definition())
    with pytest.raises(AlreadyExists):
        await scene.lifecycle.desire(scene.call, definition(), KEY)
    await scene.lifecycle.answered(scene.call, KEY, ANSWER)
    assert await scene.lifecycle.replay(scene.call, AGAIN) == Replay()


async def test_of_twenty_requests_with_one_key_one_has_an_effect(scene: Scene) -> None:
    keys = [evolve(KEY, owner=f"request-{number}") for number in range(20)]
    results = await outcomes([scene.lifecycle.desire(scene.call, definition(), key) for key in keys])
    assert sum(isinstance(result, Desired) for result in results) == 1
    assert sum(isinstance(result, IdempotencyInFlight) for result in results) == 19


async def test_a_dead_owners_key_is_taken_over_once(scene: Scene) -> None:
    await scene.lifecycle.desire(scene.call, definition(), KEY)
    await scene.tampering.put("idempotency_keys", "expires_at", SystemClock().now())
    keys = [evolve(KEY, owner=f"later-{number}") for number in range(10)]
    results = await outcomes([scene.lifecycle.replay(scene.call, key) for key in keys])
    assert sum(result == Replay(resume=True) for result in results) == 1
    assert sum(isinstance(result, IdempotencyInFlight) for result in results) == 9
    heir = keys[results.index(Replay(resume=True))]
    await scene.lifecycle.answered(scene.call, KEY, evolve(ANSWER, status=500))
    await scene.lifecycle.update(scene.call, "app", DesiredLRPUpdate(instances=2), None, heir)
    await scene.lifecycle.answered(scene.call, heir, ANSWER)
    assert await scene.lifecycle.replay(scene.call, AGAIN) == Replay(answer=ANSWER)


async def test_an_answer_is_kept_for_a_day(scene: Scene) -> None:
    await scene.lifecycle.desire(scene.call, definition(), KEY)
    await scene.lifecycle.answered(scene.call, KEY, ANSWER)
    (until,) = await scene.tampering.column("idempotency_keys", "expires_at")
    assert (until - SystemClock().now()).total_seconds() == pytest.approx(24 * 3600, abs=10)
    await scene.tampering.put("idempotency_keys", "expires_at", SystemClock().now())
    assert await scene.lifecycle.replay(scene.call, AGAIN) == Replay()
    await scene.lifecycle.undesire(scene.call, "app", AGAIN)
    with pytest.raises(IdempotencyInFlight):
        await scene.lifecycle.replay(scene.call, KEY)
