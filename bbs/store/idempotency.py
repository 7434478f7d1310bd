"""The table of Idempotency-Keys: one effect for each key, and the same answer however often it is asked for.

A key is stored in the transaction of its effect. Who finds it in flight after its time knows that its owner died, and
takes it over.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

import asyncpg
import msgspec
from attrs import frozen

from diego_py.errors import IdempotencyInFlight, IdempotencyMismatch

KEPT_S: Final = 24 * 3600.0
"""How long an answer can be had again."""
RETRY_AFTER_S: Final = 1.0


@frozen
class IdempotencyKey:
    """A key as a request brings it, and what it was brought for."""

    key: str
    route: str
    """Method and path, such as `POST /v1/desired_lrps`."""
    request_hash: bytes
    """Of the body."""
    owner: str
    """The request that works on it, unlike any other: only its owner may store the answer."""


@frozen
class StoredAnswer:
    """What the first request with the key was answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@frozen
class Replay:
    """What is known of a key: nothing, an answer, or that its first owner died under way."""

    answer: StoredAnswer | None = None
    resume: bool = False
    """The effect of the first request is stored and its answer never will be, unless you go on from where it stands.
    The key is yours from now on."""


INSERT: Final = """
    INSERT INTO idempotency_keys (key, route, request_hash, state, owner, created_at, expires_at)
    VALUES ($1, $2, $3, 'in_flight', $4, clock_timestamp(), clock_timestamp() + $5::interval)
    ON CONFLICT (key) DO UPDATE
    SET route = excluded.route, request_hash = excluded.request_hash, state = 'in_flight', owner = excluded.owner,
        status = NULL, headers = NULL, body = NULL,
        created_at = excluded.created_at, expires_at = excluded.expires_at
    WHERE idempotency_keys.state = 'done' AND idempotency_keys.expires_at <= clock_timestamp()
    RETURNING true
"""


async def insert(connection: asyncpg.Connection, key: IdempotencyKey, in_flight_s: float) -> None:
    """Store a key in the transaction of its effect; first of all in it, so that the loser of a race waits here.

    Nothing if the key is ours already. Raises IdempotencyMismatch or IdempotencyInFlight if it is another request's.
    """
    lasts = timedelta(seconds=in_flight_s)
    if await connection.fetchval(INSERT, key.key, key.route, key.request_hash, key.owner, lasts):
        return
    row = await connection.fetchrow(GET, key.key)
    if row is not None and row["owner"] == key.owner:
        return
    if row is not None:
        _match(row, key)
    raise _in_flight(key)


GET: Final = """
    SELECT route, request_hash, state, owner, status, headers, body, expires_at <= clock_timestamp() AS expired
    FROM idempotency_keys WHERE key = $1
"""


async def replay(connection: asyncpg.Connection, key: IdempotencyKey, in_flight_s: float) -> Replay:
    """What became of the first request with this key.

    Raises IdempotencyInFlight while its owner works on it, IdempotencyMismatch if it was a different request.
    """
    row = await connection.fetchrow(GET, key.key)
    if row is None or (row["state"] == "done" and row["expired"]):
        return Replay()
    _match(row, key)
    if row["state"] == "done":
        headers = msgspec.json.decode(row["headers"], type=dict[str, str])
        return Replay(answer=StoredAnswer(row["status"], headers, row["body"]))
    if row["expired"] and await _take_over(connection, key, in_flight_s):
        return Replay(resume=True)
    raise _in_flight(key)


TAKE_OVER: Final = """
    UPDATE idempotency_keys SET owner = $2, expires_at = clock_timestamp() + $3::interval
    WHERE key = $1 AND state = 'in_flight' AND expires_at <= clock_timestamp()
    RETURNING true
"""


async def _take_over(connection: asyncpg.Connection, key: IdempotencyKey, in_flight_s: float) -> bool:
    return bool(await connection.fetchval(TAKE_OVER, key.key, key.owner, timedelta(seconds=in_flight_s)))


ANSWERED: Final = """
    UPDATE idempotency_keys
    SET state = 'done', status = $3, headers = $4, body = $5, expires_at = clock_timestamp() + $6::interval
    WHERE key = $1 AND owner = $2 AND state = 'in_flight'
    RETURNING true
"""


async def answered(connection: asyncpg.Connection, key: IdempotencyKey, answer: StoredAnswer) -> bool:
    """Store what was answered. False if the key had no effect to store, or belongs to another owner by now."""
    headers = msgspec.json.encode(dict(answer.headers))
    lasts = timedelta(seconds=KEPT_S)
    return bool(await connection.fetchval(ANSWERED, key.key, key.owner, answer.status, headers, answer.body, lasts))


PRUNE: Final = "DELETE FROM idempotency_keys WHERE expires_at < now() - interval '1 day'"


async def prune(connection: asyncpg.Connection) -> None:
    """Forget keys a day after they ran out."""
    await connection.execute(PRUNE)


def _match(row: asyncpg.Record, key: IdempotencyKey) -> None:
    if (row["route"], row["request_hash"]) != (key.route, key.request_hash):
        raise IdempotencyMismatch("the Idempotency-Key was used for another request")


def _in_flight(key: IdempotencyKey) -> IdempotencyInFlight:
    told = f"the first request with this Idempotency-Key is still under way: {key.route}"
    return IdempotencyInFlight(told, retry_after_s=RETRY_AFTER_S)
