"""Scaling, stopping, restarting, deleting, undoing: answered when it is true on the cells, at that very moment."""

from __future__ import annotations

import asyncio

import pytest

from tests.chain.answers import well_formed
from tests.chain.awaited import until_true
from tests.chain.definitions import HTTP, SERVE, lrp
from tests.chain.expected import is_stored, nothing_in_books
from tests.chain.installation import Installation

pytestmark = [pytest.mark.chain, pytest.mark.kernel]

WEB = "/v1/desired_lrps/web"
SERVED = lrp(script=SERVE, ports=[8080], check_definition=HTTP)


def containers(installation: Installation) -> int:
    return sum(len(node.garden.containers()) for node in installation.nodes.values())


async def states(installation: Installation) -> list[str]:
    rows = (await installation.request("GET", "/v1/actual_lrps?process_guid=web")).json["items"]
    return [row["state"] for row in rows]


async def serves(installation: Installation, row: dict[str, object]) -> None:
    """Both addresses of an instance answer."""
    net = row["net_info"]
    assert isinstance(net, dict)
    (port,) = net["ports"]
    for url in (f"http://{net['instance_address']}:8080", f"http://{net['address']}:{port['host_port']}"):
        answer = await installation.request("GET", "/", url=url)
        assert (answer.status, answer.body) == (200, b"hello\n"), url


async def test_created_is_served(two_cells: Installation) -> None:
    """201: every instance answers now, and they are spread over the zones."""
    answer = await two_cells.desire({**SERVED, "instances": 2})
    assert answer.status == 201, answer.body
    assert answer.headers["Location"] == WEB
    for row in answer.json["actual_lrps"]:
        assert row["state"] == "RUNNING"
        await serves(two_cells, row)
    assert {row["cell_id"] for row in answer.json["actual_lrps"]} == {"cell-1", "cell-2"}
    assert answer.headers["Server-Timing"].startswith("bbs;dur=")


async def test_scaled_is_true_when_answered(two_cells: Installation) -> None:
    await two_cells.desire(SERVED)
    up = await two_cells.request("PATCH", WEB, {"instances": 4})
    assert up.status == 200, up.body
    assert containers(two_cells) == 4
    assert await states(two_cells) == ["RUNNING"] * 4
    for row in up.json["actual_lrps"]:
        await serves(two_cells, row)
    down = await two_cells.request("PATCH", WEB, {"instances": 1})
    assert down.status == 200, down.body
    assert containers(two_cells) == 1
    assert await states(two_cells) == ["RUNNING"]
    none = await two_cells.request("PATCH", WEB, {"instances": 0})
    assert none.status == 200
    assert two_cells.left() == []
    nothing_in_books(two_cells)


async def test_scaled_beyond_the_room(installation: Installation) -> None:
    """What fits runs; the answer is 503, partial, with each instance's own reason."""
    await installation.start_cell(1, memory_mb=150)
    await installation.desire(lrp())
    answer = await installation.request("PATCH", WEB, {"instances": 4})
    assert (answer.status, answer.json["code"], answer.json["outcome"]) == (503, "auction.no_cell_fits", "partial")
    assert answer.codes == ["bbs.update_failed", "auction.no_cell_fits"]
    assert sorted(await states(installation)) == ["RUNNING", "RUNNING", "UNCLAIMED", "UNCLAIMED"]
    await is_stored(installation, answer)
    assert len(await installation.failures()) == 2, "one document for each failed instance"


async def test_deleted_is_true_when_answered(two_cells: Installation) -> None:
    await two_cells.desire({**SERVED, "instances": 3})
    answer = await two_cells.delete("web")
    left = two_cells.left()
    assert (answer.status, answer.json["stopped"]) == (200, 3)
    assert left == []
    nothing_in_books(two_cells)
    again = await two_cells.delete("web")
    assert (again.status, again.json["code"]) == (404, "desired_lrp_not_found")


async def test_a_stubborn_process_is_gone_when_answered(one_cell: Installation) -> None:
    await one_cell.desire(lrp(script="trap '' TERM; while :; do sleep 0.1; done"))
    answer = await one_cell.delete("web")
    assert answer.status == 200
    assert one_cell.left() == []


async def test_deleted_while_it_starts(one_cell: Installation) -> None:
    """Both callers are told the truth: the delete worked, the create did not."""
    async with asyncio.TaskGroup() as group:
        waiting = lrp(script="exec sleep 1000", ports=[8080], check_definition=HTTP)
        desiring = group.create_task(one_cell.desire(waiting))
        await until_true("the container is there", one_cell.nodes["cell-1"].garden.containers)
        deleted = await one_cell.delete("web")
        left = one_cell.left()
    assert deleted.status == 200, deleted.body
    assert left == []
    document = well_formed(desiring.result())
    assert (document["status"], document["outcome"]) == (500, "rolled_back")
    assert document["code"] in ("app.stopped_while_starting", "rep.claim_refused")
    assert (await one_cell.request("GET", "/v1/actual_lrps")).json["items"] == []


async def test_restarted_is_another_one(one_cell: Installation) -> None:
    first = (await one_cell.desire(SERVED)).json["actual_lrps"][0]
    answer = await one_cell.request("POST", "/v1/actual_lrps/web/0/restart", {})
    assert answer.status == 200, answer.body
    assert answer.json["instance_guid"] != first["instance_guid"]
    await serves(one_cell, answer.json)
    assert containers(one_cell) == 1


async def test_stopped_is_gone(one_cell: Installation) -> None:
    await one_cell.desire(SERVED)
    answer = await one_cell.request("DELETE", "/v1/actual_lrps/web/0")
    assert answer.status == 200, answer.body
    assert one_cell.left() == []


async def test_deleted_on_a_cell_that_cannot_be_reached(installation: Installation) -> None:
    """The row is gone, nobody knows of the container, and the answer says so. Once the cell is back it stops it."""
    node = await installation.start_cell(1)
    await installation.desire(lrp())
    await node.stop()
    answer = await installation.delete("web")
    document = well_formed(answer)
    assert (answer.status, document["code"], document["outcome"]) == (502, "hop_unreachable", "unknown")
    assert answer.codes == ["bbs.delete_failed", "hop_unreachable"]
    await is_stored(installation, answer)
    assert (await installation.request("GET", "/v1/actual_lrps")).json["items"] == []
    back = await installation.start_cell(1)
    await until_true("the cell has stopped what is not its own", lambda: not back.garden.containers())
    assert installation.left() == []


ROLLED_BACK = {"all of it": ("exit 3", 1), "some of it": ("[ $INSTANCE_INDEX = 0 ] || exit 3; exec sleep 1000", 2)}


@pytest.mark.parametrize("name", ROLLED_BACK)
async def test_rollback_leaves_no_row(one_cell: Installation, name: str) -> None:
    """Also not of the instances that ran; the story stays."""
    script, instances = ROLLED_BACK[name]
    answer = await one_cell.desire(lrp(script=script, instances=instances), "?on_failure=rollback")
    left = one_cell.left()
    document = well_formed(answer)
    assert (answer.status, document["code"], document["outcome"]) == (500, "app.exited", "rolled_back")
    assert left == []
    for path in ("desired_lrps", "actual_lrps"):
        assert (await one_cell.request("GET", f"/v1/{path}")).json["items"] == []
    await is_stored(one_cell, answer)
    nothing_in_books(one_cell)


async def test_a_change_of_what_was_read(one_cell: Installation) -> None:
    created = await one_cell.desire(lrp())
    etag = created.headers["ETag"]
    assert (await one_cell.request("GET", WEB)).headers["ETag"] == etag
    stale = await one_cell.request("PATCH", WEB, {"instances": 2}, {"If-Match": '"something-else"'})
    document = well_formed(stale)
    assert (stale.status, document["code"]) == (412, "precondition_failed")
    assert containers(one_cell) == 1
    fresh = await one_cell.request("PATCH", WEB, {"instances": 2}, {"If-Match": etag})
    assert fresh.status == 200, fresh.body
    assert fresh.headers["ETag"] != etag
    again = await one_cell.request("PATCH", WEB, {"instances": 3}, {"If-Match": etag})
    assert again.status == 412
    assert containers(one_cell) == 2


async def test_two_changes_of_the_same_read(one_cell: Installation) -> None:
    """One of them wins."""
    etag = (await one_cell.desire(lrp())).headers["ETag"]
    async with asyncio.TaskGroup() as group:
        asked = [
            group.create_task(one_cell.request("PATCH", WEB, {"instances": count}, {"If-Match": etag}))
            for count in (2, 3)
        ]
    assert sorted(task.result().status for task in asked) == [200, 412]
    wanted = (await one_cell.request("GET", WEB)).json["definition"]["instances"]
    assert containers(one_cell) == wanted
