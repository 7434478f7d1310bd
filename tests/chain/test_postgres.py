"""Postgres goes away, before, during and at the very end of a request. It is a hop like any other, and comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from tests.chain.answers import Answer, well_formed
from tests.chain.awaited import until
from tests.chain.conftest import in_order
from tests.chain.definitions import HTTP, SERVE, lrp
from tests.chain.installation import Installation
from tests.chain.proxy import Proxy, to_port, to_socket

pytestmark = [pytest.mark.chain, pytest.mark.kernel]

SOCKET = ".s.PGSQL.5432"
SLOW = lrp(script=f"sleep 0.5; {SERVE}", ports=[8080], check_definition=HTTP)


@pytest.fixture
async def database(database_dsn: str, open_directory: Path) -> AsyncIterator[Proxy]:
    """What the BBS goes through to get to Postgres."""
    (directory,) = parse_qs(urlsplit(database_dsn).query)["host"]
    async with Proxy(to_socket(Path(directory) / SOCKET), open_directory / SOCKET) as proxy:
        yield proxy


@pytest.fixture
async def installation(
    image_root: Path, open_directory: Path, database_dsn: str, database: Proxy
) -> AsyncIterator[Installation]:
    name = urlsplit(database_dsn).path.removeprefix("/")
    host = quote(str(open_directory), safe="")
    dsn = f"postgresql://postgres@/{name}?host={host}&port=5432"
    async with Installation(open_directory, image_root, dsn) as made:
        await made.start_bbs()
        yield made
        await in_order(made)


def unavailable(answer: Answer, hops: list[str], outcome: str) -> None:
    document = well_formed(answer)
    assert (answer.status, document["code"]) == (503, "database_unavailable"), document
    assert (document["fault"], document["retryable"]) == ("dependency", True)
    assert answer.hops == hops
    assert document["outcome"] == outcome
    assert document["origin"] == "postgres"
    assert document["evidence"]["postgres"]


async def test_before_the_request(one_cell: Installation, database: Proxy) -> None:
    """Nothing is written, nothing is stored, and the next request works without anybody's help."""
    await database.refuse()
    for method, path in (("GET", "/v1/actual_lrps"), ("DELETE", "/v1/desired_lrps/web")):
        unavailable(await one_cell.request(method, path), ["bbs", "postgres"], "not_started")
    unavailable(await one_cell.desire(lrp()), ["bbs", "postgres"], "not_started")
    ready = await one_cell.request("GET", "/readyz")
    assert (ready.status, "postgres" in ready.json["detail"]) == (503, True)
    assert (await one_cell.request("GET", "/livez")).status == 200
    await database.listen()
    answer = await one_cell.desire(lrp())
    assert answer.status == 201, answer.body
    assert (await one_cell.request("GET", "/readyz")).status == 200


async def test_when_the_bbs_starts(image_root: Path, open_directory: Path, database: Proxy, database_dsn: str) -> None:
    """It starts all the same, says what is wrong, and is whole as soon as Postgres is there."""
    await database.refuse()
    name = urlsplit(database_dsn).path.removeprefix("/")
    dsn = f"postgresql://postgres@/{name}?host={quote(str(open_directory), safe='')}&port=5432"
    async with Installation(open_directory, image_root, dsn) as made:
        await made.start_bbs()
        unavailable(await made.desire(lrp()), ["bbs", "postgres"], "not_started")
        await database.listen()
        assert (await made.request("GET", "/v1/desired_lrps")).json["items"] == []


async def claimed(installation: Installation) -> None:
    async def look() -> bool:
        return (await installation.row("web"))["state"] == "CLAIMED"

    await until("the instance is claimed", look)


async def test_while_the_cell_works(one_cell: Installation, database: Proxy) -> None:
    """The instance runs and nobody could write that down: the answer says so, and the next report mends it."""
    async with asyncio.TaskGroup() as group:
        desiring = group.create_task(one_cell.desire(SLOW, Idempotency_Key="k-1"))
        await _row_exists(one_cell)
        await claimed(one_cell)
        await database.refuse()
    answer = desiring.result()
    unavailable(answer, ["bbs", "auction", "bbs", "postgres"], "running")
    assert "instance" not in answer.json, "it could not be stored"
    await database.listen()
    node = one_cell.nodes["cell-1"]
    (container,) = node.garden.containers()
    await node.report()
    row = await one_cell.row("web")
    assert (row["state"], row["instance_guid"]) == ("RUNNING", container.handle)


async def _row_exists(installation: Installation) -> None:
    async def look() -> bool:
        return (await installation.request("GET", "/v1/actual_lrps/web/0")).status == 200

    await until("the row is written", look)


async def test_when_the_cell_claims(installation: Installation, database: Proxy) -> None:
    """The claim cannot be granted: nothing of the user runs, the container is undone."""
    async with Proxy(to_port(lambda: installation.bbs.listener.port), hold_what=b"/claim") as claims:
        node = await installation.start_cell(1, bbs_urls=(claims.url,))
        async with asyncio.TaskGroup() as group:
            desiring = group.create_task(installation.desire(lrp()))
            await claims.held.wait()
            await database.refuse()
            claims.let_go.set()
        unavailable(desiring.result(), ["bbs", "auction", "rep", "bbs", "postgres"], "rolled_back")
        assert installation.left() == []
        assert list(node.cell.work.books.instances) == []
        await database.listen()
        row = await installation.row("web")
        assert (row["state"], row.get("cell_id")) == ("UNCLAIMED", None)
