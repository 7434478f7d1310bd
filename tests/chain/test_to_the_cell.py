"""Between the BBS and a cell, both ways: unreachable, cut off, refusing, draining, and claims that come to nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from diego_py.models.identifiers import InstanceGuid
from diego_py.models.workload import Resources
from tests.chain.awaited import until, until_true
from tests.chain.definitions import HTTP, SERVE, lrp
from tests.chain.expected import Expected, failed
from tests.chain.installation import Installation, Node
from tests.chain.proxy import Proxy, to_port

pytestmark = [pytest.mark.chain, pytest.mark.kernel]

TO_CELL = ("bbs", "auction", "rep")
UNREACHABLE = Expected(code="hop_unreachable", status=502, outcome="not_started", hops=TO_CELL)


@pytest.fixture
async def wire(installation: Installation) -> AsyncIterator[Proxy]:
    """What the BBS goes through to get to cell 1."""
    async with Proxy(to_port(lambda: installation.nodes["cell-1"].cell.listener.port)) as proxy:
        yield proxy


@pytest.fixture
async def claims(installation: Installation) -> AsyncIterator[Proxy]:
    """What cell 1 goes through to get to the BBS."""
    async with Proxy(to_port(lambda: installation.bbs.listener.port)) as proxy:
        yield proxy


async def test_the_only_cell_refuses_the_connection(installation: Installation, wire: Proxy) -> None:
    await installation.start_cell(1, url=wire.url)
    await wire.refuse()
    document = await failed(installation, await installation.desire(lrp()), UNREACHABLE)
    assert document["detail"] == f"connect to {wire.url}: Connection refused"
    assert (document["fault"], document["retryable"]) == ("platform", True)
    assert document["chain"][-1]["id"] == "cell-1"
    assert document["chain"][-1]["attempt"] == 1
    assert [bid["verdict"] for bid in document["placement"]["bids"]] == ["tried"]


async def test_another_cell_is_tried(installation: Installation, wire: Proxy) -> None:
    await installation.start_cell(1, url=wire.url)
    await installation.start_cell(2)
    await wire.refuse()
    answer = await installation.desire(lrp())
    assert answer.status == 201, answer.body
    assert answer.json["actual_lrps"][0]["cell_id"] == "cell-2"
    assert (await installation.failures()) == []


async def test_no_cell_can_be_reached(two_cells: Installation) -> None:
    """Each attempt is a frame; the last one names the problem."""
    for node in two_cells.nodes.values():
        await node.stop()
    expected = Expected(code="hop_unreachable", status=502, outcome="not_started", hops=(*TO_CELL, "rep"))
    document = await failed(two_cells, await two_cells.desire(lrp()), expected)
    assert [(frame["id"], frame["attempt"]) for frame in document["chain"][2:]] == [("cell-1", 1), ("cell-2", 2)]
    assert document["chain"][2]["set_aside"] == 1
    assert "set_aside" not in document["chain"][3]


SLOW = lrp(script=f"sleep 0.4; {SERVE}", ports=[8080], check_definition=HTTP)
"""Healthy after a while, so that there is time to cut it off."""


async def _cut_once_claimed(installation: Installation, wire: Proxy) -> None:
    async def claimed() -> bool:
        rows = (await installation.request("GET", "/v1/actual_lrps")).json["items"]
        return [row["state"] for row in rows] == ["CLAIMED"]

    await until("the instance is claimed", claimed)
    await wire.cut()


async def test_the_connection_is_lost_and_there_is_no_other_cell(installation: Installation, wire: Proxy) -> None:
    """Nobody knows whether the cell went on, and the answer says so. It did; its report brings the order to stop."""
    node = await installation.start_cell(1, url=wire.url)
    async with asyncio.TaskGroup() as group:
        desiring = group.create_task(installation.desire(SLOW))
        await _cut_once_claimed(installation, wire)
    answer = desiring.result()
    assert (answer.status, answer.json["code"], answer.json["outcome"]) == (502, "connection_lost", "unknown")
    assert answer.hops == list(TO_CELL)
    row = await installation.row("web")
    assert (row["state"], row.get("cell_id")) == ("UNCLAIMED", None)
    assert row["failure"] == answer.json
    await _nothing_left_after_reports(installation, node)
    await _deleted(installation)


async def test_the_connection_is_lost_and_another_cell_takes_over(installation: Installation, wire: Proxy) -> None:
    """One instance, on the second cell; what the first one made of the lost request is stopped again."""
    first = await installation.start_cell(1, url=wire.url)
    await installation.start_cell(2)
    async with asyncio.TaskGroup() as group:
        desiring = group.create_task(installation.desire(SLOW))
        await _cut_once_claimed(installation, wire)
    answer = desiring.result()
    assert answer.status == 201, answer.body
    (instance,) = answer.json["actual_lrps"]
    assert (instance["cell_id"], instance["state"]) == ("cell-2", "RUNNING")
    await _nothing_of(installation, first)
    assert (await installation.row("web"))["instance_guid"] == instance["instance_guid"]
    await _deleted(installation)


async def _deleted(installation: Installation) -> None:
    """While the cell can be reached: it is asked whether the attempt that was given up is gone."""
    answer = await installation.request("DELETE", "/v1/desired_lrps/web")
    assert answer.status == 200, answer.body


async def _nothing_left_after_reports(installation: Installation, node: Node) -> None:
    await _nothing_of(installation, node)
    assert installation.left() == []


async def _nothing_of(installation: Installation, node: Node) -> None:
    async def gone() -> bool:
        await node.report()
        return not node.garden.containers() and not list(node.cell.work.books.instances)

    await until(f"{node.id} has stopped what is not its own", gone)


def fill(node: Node) -> None:
    """Take all room of a cell, without the BBS hearing of it."""
    all_of_it = Resources(memory_mb=node.config.memory_mb, disk_mb=0)
    node.cell.work.books.reservations.reserve(InstanceGuid("taken-otherwise"), all_of_it)


def empty(node: Node) -> None:
    node.cell.work.books.reservations.release(InstanceGuid("taken-otherwise"))


async def test_the_cell_knows_better_and_another_one_takes_it(two_cells: Installation) -> None:
    fill(two_cells.nodes["cell-1"])
    answer = await two_cells.desire(lrp())
    assert answer.status == 201, answer.body
    assert answer.json["actual_lrps"][0]["cell_id"] == "cell-2"


async def test_every_cell_knows_better(two_cells: Installation) -> None:
    """The books of the cells decide. A refusal for want of room is 503 at the BBS, with each cell's frame."""
    for node in two_cells.nodes.values():
        fill(node)
    answer = await two_cells.desire(lrp())
    for node in two_cells.nodes.values():
        empty(node)
    expected = Expected(
        code="rep.insufficient_resources", status=503, outcome="not_started", hops=(*TO_CELL, "rep")
    )
    document = await failed(two_cells, answer, expected)
    assert [frame["status"] for frame in document["chain"][2:]] == [409, 409]
    assert [frame["attempt"] for frame in document["chain"][2:]] == [1, 2]
    assert document["fault"] == "capacity"


async def test_a_cell_drains_and_the_bbs_has_not_heard(one_cell: Installation) -> None:
    node = one_cell.nodes["cell-1"]
    node.cell.work.admission.drain.on = True
    expected = Expected(code="rep.draining", status=503, outcome="not_started", hops=TO_CELL)
    document = await failed(one_cell, await one_cell.desire(lrp()), expected)
    assert [bid["verdict"] for bid in document["placement"]["bids"]] == ["tried"]


async def test_the_claim_is_refused(installation: Installation, claims: Proxy) -> None:
    """The row is deleted while the cell is about to claim it: nothing of the user runs, and nothing is left."""
    claims.hold_what = b"/claim"
    await installation.start_cell(1, bbs_urls=(claims.url,))
    async with asyncio.TaskGroup() as group:
        desiring = group.create_task(installation.desire(lrp(script="exec sleep 734522")))
        await claims.held.wait()
        deleted = await installation.delete("web")
        claims.let_go.set()
    assert (deleted.status, deleted.json["stopped"]) == (200, 0)
    expected = Expected(
        code="rep.claim_refused", status=500, outcome="rolled_back", hops=(*TO_CELL, "bbs"), state=""
    )
    await failed(installation, desiring.result(), expected)
    assert (await installation.request("GET", "/v1/actual_lrps")).json["items"] == []


async def test_no_bbs_for_the_claim(installation: Installation, claims: Proxy) -> None:
    await installation.start_cell(1, bbs_urls=(claims.url,))
    await claims.refuse()
    expected = Expected(code="hop_unreachable", status=502, hops=(*TO_CELL, "bbs"))
    document = await failed(installation, await installation.desire(lrp()), expected)
    assert [frame["code"] for frame in document["chain"][2:]] == ["rep.claim_lost", "hop_unreachable"]


async def test_a_cell_that_no_bbs_has_heard_of_for_long(installation: Installation, claims: Proxy) -> None:
    """It claims nothing on a presence that has run out, also when it could."""
    await installation.stop_bbs()
    await installation.start_bbs(presence_ttl_s=0.3)
    node = await installation.start_cell(1)
    await until_true("the lease is over", lambda: not node.cell.work.admission.lease.held())
    await installation.make_presence_last("cell-1")
    expected = Expected(code="rep.claim_lost", status=500, outcome="not_started", hops=TO_CELL)
    await failed(installation, await installation.desire(lrp()), expected)
