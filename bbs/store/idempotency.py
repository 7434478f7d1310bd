"""The table of Idempotency-Keys. What a key found there means is decided in replay.py."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

import asyncpg
import msgspec
from attrs import frozen

KEPT_S: Final = 24 * 3600.0
"""How long an answer can be had again."""


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


@frozen(kw_only=True)
class KeyRecord:
    """A stored key."""

    route: str
    request_hash: bytes
    owner: str
    answer: StoredAnswer | None
    """None while the owner works on it."""
    expired: bool
    """Its time, or that of its answer, was over when it was read."""


@frozen
class PostgresIdempotency:
    """Idempotency-Keys in Postgres. What each method means is said in `tables.IdempotencyTable`."""

    connection: asyncpg.Connection

    INSERT = """
        INSERT INTO idempotency_keys (key, route, request_hash, state, owner, created_at, expires_at)
        VALUES ($1, $2, $3, 'in_flight', $4, clock_timestamp(), clock_timestamp() + $5::interval)
        ON CONFLICT (key) DO UPDATE
        SET route = excluded.route, request_hash = excluded.request_hash, state = 'in_flight', owner = excluded.owner,
            status = NULL, headers = NULL, body = NULL,
            created_at = excluded.created_at, expires_at = excluded.expires_at
        WHERE idempotency_keys.state = 'done' AND idempotency_keys.expires_at <= clock_timestamp()
        RETURNING true
    """

    async def insert(self, key: IdempotencyKey, in_flight_s: float) -> bool:
        lasts = timedelta(seconds=in_flight_s)
        return bool(await self.connection.fetchval(self.INSERT, key.key, key.route, key.request_hash, key.owner, lasts))

    GET = """
        SELECT route, request_hash, state, owner, status, headers, body, expires_at <= clock_timestamp() AS expired
        FROM idempotency_keys WHERE key = $1
    """

    async def get(self, key: str) -> KeyRecord | None:
        row = await self.connection.fetchrow(self.GET, key)
        return None if row is None else _record(row)

    TAKE_OVER = """
        UPDATE idempotency_keys SET owner = $2, expires_at = clock_timestamp() + $3::interval
        WHERE key = $1 AND state = 'in_flight' AND expires_at <= clock_timestamp()
        RETURNING true
    """

    async def take_over(self, key: IdempotencyKey, in_flight_s: float) -> bool:
        return bool(await self.connection.fetchval(self.TAKE_OVER, key.key, key.owner, timedelta(seconds=in_flight_s)))

    ANSWERED = """
        UPDATE idempotency_keys
        SET state = 'done', status = $3, headers = $4, body = $5, expires_at = clock_timestamp() + $6::interval
        WHERE key = $1 AND owner = $2
        RETURNING true
    """

    async def answered(self, key: IdempotencyKey, answer: StoredAnswer) -> bool:
        headers = msgspec.json.encode(dict(answer.headers))
        lasts = timedelta(seconds=KEPT_S)
        return bool(
            await self.connection.fetchval(
                self.ANSWERED, key.key, key.owner, answer.status, headers, answer.body, lasts
            )
        )

    PRUNE = "DELETE FROM idempotency_keys WHERE expires_at < now() - interval '1 day'"

    async def prune(self) -> None:
        await self.connection.execute(self.PRUNE)


def _record(row: asyncpg.Record) -> KeyRecord:
    answer = None
    if row["state"] == "done":
        headers = msgspec.json.decode(row["headers"], type=dict[str, str])
        answer = StoredAnswer(row["status"], headers, row["body"])
    return KeyRecord(
        route=row["route"],
        request_hash=row["request_hash"],
        owner=row["owner"],
        answer=answer,
        expired=row["expired"],
    )
