"""What an Idempotency-Key means: one effect for each key, and the same answer however often it is asked for.

A key is stored in the transaction of its effect. Who finds it in flight after its time knows that its owner died, and
takes it over.
"""

from __future__ import annotations

from typing import Final

from attrs import frozen

from bbs.store.idempotency import IdempotencyKey, KeyRecord, StoredAnswer
from bbs.store.transaction import Transaction
from diego_py.call import Call
from diego_py.errors import IdempotencyInFlight, IdempotencyMismatch

RETRY_AFTER_S: Final = 1.0
IN_FLIGHT_GRACE_S: Final = 10.0
"""A key counts as in flight for the budget of its request and this much longer."""


@frozen
class Replay:
    """What is known of a key: nothing, an answer, or that its first owner died under way."""

    answer: StoredAnswer | None = None
    resume: bool = False
    """The effect of the first request is stored and its answer never will be, unless you go on from where it stands.
    The key is yours from now on."""


async def keep(tx: Transaction, key: IdempotencyKey, in_flight_s: float) -> None:
    """Store a key in the transaction of its effect; first of all in it, so that the loser of a race waits here.

    Nothing if the key is ours already. Raises IdempotencyMismatch or IdempotencyInFlight if it is another request's.
    """
    if await tx.idempotency.insert(key, in_flight_s):
        return
    record = await tx.idempotency.get(key.key)
    if record is not None and record.owner == key.owner:
        return
    if record is not None:
        _match(record, key)
    raise _in_flight(key)


async def replay(tx: Transaction, key: IdempotencyKey, in_flight_s: float) -> Replay:
    """What became of the first request with this key.

    Raises IdempotencyInFlight while its owner works on it, IdempotencyMismatch if it was a different request.
    """
    record = await tx.idempotency.get(key.key)
    if record is None or (record.answer is not None and record.expired):
        return Replay()
    _match(record, key)
    if record.answer is not None:
        return Replay(answer=record.answer)
    if record.expired and await tx.idempotency.take_over(key, in_flight_s):
        return Replay(resume=True)
    raise _in_flight(key)


def in_flight_s(call: Call) -> float:
    """How long the key of a request counts as in flight, from now."""
    return max(0.0, call.remaining_ms()) / 1000 + IN_FLIGHT_GRACE_S


def _match(record: KeyRecord, key: IdempotencyKey) -> None:
    if (record.route, record.request_hash) != (key.route, key.request_hash):
        raise IdempotencyMismatch("the Idempotency-Key was used for another request")


def _in_flight(key: IdempotencyKey) -> IdempotencyInFlight:
    told = f"the first request with this Idempotency-Key is still under way: {key.route}"
    return IdempotencyInFlight(told, retry_after_s=RETRY_AFTER_S)
