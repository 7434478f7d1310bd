"""The cell's client of the BBS: which BBS it asks, and for how long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from diego_py.call import Call
from diego_py.clients.bbs_internal import BBSInternalClient
from diego_py.errors import BudgetSpent, ClaimLost
from diego_py.http.client import HopClient
from diego_py.models.identifiers import CellId, InstanceGuid, ProcessGuid
from diego_py.models.work import ClaimGranted, Claims, InstanceClaim
from diego_py.service.clock import SystemClock

RESULTS = b'{"results":[{"granted":{"egress":null}}]}'
GRANTED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(RESULTS) + RESULTS
CLAIM = Claims(
    cell_id=CellId("cell-1"),
    boot_id="boot",
    instances=(
        InstanceClaim(
            process_guid=ProcessGuid("web"), index=0, instance_guid=InstanceGuid("i"), request_id="r", trace_id="t"
        ),
    ),
)
BUDGET_MS = 1_000
LATE_S = 10.0
"""How much later an answer may be on a busy machine: without a budget it never comes."""


@asynccontextmanager
async def listening(answer: bytes) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A BBS that says `answer` to everything, or nothing, like one that is frozen; and what it was asked."""
    asked: list[bytes] = []
    left: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left.append(writer)
        while line := await reader.readline():
            if b"POST" in line:  # after the body of the last one
                asked.append(line)
            if line == b"\r\n" and answer:
                writer.write(answer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked
        for writer in left:
            writer.close()
            await writer.wait_closed()


@asynccontextmanager
async def client_of(*urls: str) -> AsyncIterator[BBSInternalClient]:
    client = BBSInternalClient(HopClient(), urls, CellId("cell-1"))
    try:
        yield client
    finally:
        await client.stop()


async def claim(client: BBSInternalClient) -> None:
    (granted,) = await client.claim(Call.begin(SystemClock(), BUDGET_MS), CLAIM)
    assert granted == ClaimGranted()


async def test_a_frozen_bbs_leaves_time_for_the_next_one_which_is_asked_first_from_then_on() -> None:
    async with (
        listening(b"") as (frozen, heard),
        listening(GRANTED) as (alive, asked),
        client_of(frozen, alive) as client,
    ):
        await claim(client)
        await claim(client)
    assert len(heard) == 1
    assert len(asked) == 2


async def test_when_every_bbs_is_frozen_the_claim_is_lost_within_its_budget() -> None:
    clock = SystemClock()
    async with listening(b"") as (one, _), listening(b"") as (other, _), client_of(one, other) as client:
        began_s = clock.monotonic()
        with pytest.raises(ClaimLost) as lost:
            await claim(client)
    assert isinstance(lost.value.root, BudgetSpent)
    assert len(lost.value.root.attempts) == 1
    assert clock.monotonic() - began_s < BUDGET_MS / 1000 + LATE_S
