"""A whole definition is replaced: the new instance serves before the old one stops; what fails leaves the old ones."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from typing import Any

import aiohttp
import pytest

from tests.chain.answers import well_formed
from tests.chain.awaited import VISIT_S, until, until_true
from tests.chain.definitions import HTTP, lrp
from tests.chain.expected import is_stored, nothing_in_books
from tests.chain.installation import Installation

pytestmark = [pytest.mark.chain, pytest.mark.kernel]

WEB = "/v1/desired_lrps/web"


def web(version: str = "one", instances: int = 2, **changes: Any) -> dict[str, Any]:
    """Answers its version, on 8080."""
    serve = f"mkdir -p /tmp/w && echo {version} > /tmp/w/index.html && exec httpd -f -p 8080 -h /tmp/w"
    defined = lrp(script=serve, ports=[8080], check_definition=HTTP, instances=instances)
    return {**defined, "start_timeout_ms": 10_000, **changes}


async def rows(installation: Installation) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = (await installation.request("GET", "/v1/actual_lrps?process_guid=web")).json["items"]
    return items


async def said(installation: Installation) -> list[str]:
    """What each instance answers, in order."""
    answers = []
    for row in await rows(installation):
        url = f"http://{row['net_info']['instance_address']}:8080"
        answers.append((await installation.request("GET", "/", url=url)).body.decode().strip())
    return answers


def containers(installation: Installation) -> int:
    return sum(len(node.garden.containers()) for node in installation.nodes.values())


async def test_replaced_instance_by_instance(two_cells: Installation) -> None:
    created = await two_cells.request("PUT", WEB, web())
    assert created.status == 201, created.body
    assert created.headers["Location"] == WEB
    seen: Counter[tuple[int, int]] = Counter()
    stop = asyncio.Event()

    async def watch() -> None:
        """How many serve at each moment, and how many containers there are."""
        while not stop.is_set():
            serving = {row["index"] for row in await rows(two_cells) if row["state"] == "RUNNING" and row["routable"]}
            seen[len(serving), containers(two_cells)] += 1

    async with asyncio.TaskGroup() as group:
        watching = group.create_task(watch())
        answer = await two_cells.request("PUT", WEB, web("two"), {"If-Match": created.headers["ETag"]})
        stop.set()
        await watching
    assert answer.status == 200, answer.body
    assert await said(two_cells) == ["two", "two"]
    assert [row["revision"] for row in answer.json["actual_lrps"]] == [1, 1]
    assert answer.json["desired_lrp"]["revision"] == 1
    assert {serving for serving, _ in seen} == {2}, "both indices serve all the time"
    assert max(there for _, there in seen) == 3, "one more at a time"
    assert containers(two_cells) == 2
    stale = await two_cells.request("PUT", WEB, web("three"), {"If-Match": created.headers["ETag"]})
    assert (stale.status, well_formed(stale)["code"]) == (412, "precondition_failed")
    again = await two_cells.request("PUT", WEB, web("two"))
    assert again.status == 200
    same = [row["instance_guid"] for row in answer.json["actual_lrps"]]
    assert [row["instance_guid"] for row in again.json["actual_lrps"]] == same, "nothing to do"


@pytest.mark.parametrize("how", ["crashes", "is never healthy", "does not fit"])
async def test_a_bad_definition_leaves_the_old_ones(one_cell: Installation, how: str) -> None:
    first = (await one_cell.request("PUT", WEB, web(instances=3))).json["actual_lrps"]
    bad = {
        "crashes": web("two", 3, action={"run": {"path": "/bin/sh", "args": ["-c", "exit 3"], "user": "root"}}),
        "is never healthy": web("two", 3, check_definition={"checks": [{"tcp": {"port": 81}}]}, start_timeout_ms=300),
        "does not fit": web("two", 3, memory_mb=2_000),
    }[how]
    answer = await one_cell.request("PUT", WEB, bad)
    document = well_formed(answer)
    assert answer.codes[0] == "bbs.replace_failed"
    assert document["code"] == {
        "crashes": "app.exited",
        "is never healthy": "app.never_healthy",
        "does not fit": "auction.no_cell_fits",
    }[how]
    about = document["subject"]
    assert (about["guid"], about["index"], about["new"], about["old"], about["revision"]) == ("web", 0, 0, 3, 1)
    assert [line["state"] for line in document["instances"]] == ["FAILED", "RUNNING", "RUNNING"]
    assert document["instances"][0]["serving"] == {"instance_guid": first[0]["instance_guid"], "revision": 0}
    assert document["outcome"] == "partial"
    await is_stored(one_cell, answer)
    assert await said(one_cell) == ["one"] * 3
    kept = await rows(one_cell)
    assert [row["instance_guid"] for row in kept] == [row["instance_guid"] for row in first]
    assert [(row["presence"], row.get("crash_count", 0), row.get("revision", 0)) for row in kept] == [
        ("ORDINARY", 0, 0)
    ] * 3
    assert (await one_cell.row("web"))["failure"]["instance"] == document["instance"], "the row says why it is old"
    assert containers(one_cell) == 3
    mended = await one_cell.request("PUT", WEB, web("three", 3))
    assert mended.status == 200, mended.body
    assert await said(one_cell) == ["three"] * 3
    assert [row.get("failure") for row in await rows(one_cell)] == [None] * 3


async def test_the_second_one_fails(one_cell: Installation) -> None:
    """What is new stays new; the same request again goes on from there."""
    await one_cell.request("PUT", WEB, web(instances=3))
    script = "[ $INSTANCE_INDEX = 1 ] && [ ! -e /proc/1/nothing ] && exit 3; exec sleep 1000"
    bad = lrp(script=script, instances=3)
    answer = await one_cell.request("PUT", WEB, bad)
    document = well_formed(answer)
    assert (document["subject"]["new"], document["subject"]["old"]) == (1, 2)
    assert [line["revision"] for line in document["instances"]] == [1, 1, 0]
    assert document["chain"][0]["detail"] == "replace web: 1 of 3 instances are new, 2 old"
    before = [row["instance_guid"] for row in await rows(one_cell)]
    again = await one_cell.request("PUT", WEB, bad)
    assert (well_formed(again)["subject"]["new"], again.json["subject"]["index"]) == (1, 1)
    assert [row["instance_guid"] for row in await rows(one_cell)] == before
    good = await one_cell.request("PUT", WEB, web("three", 3), {"Idempotency-Key": "deploy-3"})
    assert good.status == 200
    replayed = await one_cell.request("PUT", WEB, web("three", 3), {"Idempotency-Key": "deploy-3"})
    assert replayed.body == good.body
    assert replayed.headers["Idempotent-Replayed"] == "true"


async def test_recreate_never_runs_two(one_cell: Installation) -> None:
    await one_cell.request("PUT", WEB, web(update_strategy="RECREATE"))
    most = 0
    stop = asyncio.Event()

    async def watch() -> None:
        nonlocal most
        while not stop.is_set():
            most = max(most, containers(one_cell))
            await asyncio.sleep(0.005)

    async with asyncio.TaskGroup() as group:
        group.create_task(watch())
        answer = await one_cell.request("PUT", WEB, web("two", update_strategy="RECREATE"))
        stop.set()
    assert answer.status == 200, answer.body
    assert await said(one_cell) == ["two"] * 2
    assert most == 2
    refused = await one_cell.request("PUT", WEB + "?strategy=none", web())
    assert (refused.status, well_formed(refused)["code"]) == (400, "invalid_parameter")


async def test_scaled_along_and_several_at_a_time(two_cells: Installation) -> None:
    await two_cells.request("PUT", WEB, web(instances=3))
    more = await two_cells.request("PUT", WEB + "?max_in_flight=3", web("two", 5))
    assert more.status == 200, more.body
    assert await said(two_cells) == ["two"] * 5
    fewer = await two_cells.request("PUT", WEB, web("two", 1))
    assert fewer.status == 200, fewer.body
    assert await said(two_cells) == ["two"]
    assert fewer.json["desired_lrp"].get("revision") == 1, "no other containers"
    assert containers(two_cells) == 1


async def test_deleted_while_it_is_replaced(one_cell: Installation) -> None:
    await one_cell.request("PUT", WEB, web(instances=2))
    slow = lrp(script="exec sleep 1000", ports=[8080], check_definition=HTTP, instances=2, start_timeout_ms=10_000)
    async with asyncio.TaskGroup() as group:
        replacing = group.create_task(one_cell.request("PUT", WEB, slow))

        async def beside() -> bool:
            states = [row["state"] for row in await rows(one_cell)]
            return len(states) == 3 and "CLAIMED" in states  # Before that no cell is known to have the new one.

        await until("old and new side by side", beside)
        deleted = await one_cell.delete("web")
        left = one_cell.left()
    assert deleted.status == 200, deleted.body
    assert left == []
    assert replacing.result().status == 500
    assert await rows(one_cell) == []
    nothing_in_books(one_cell)


async def test_nobody_notices(two_cells: Installation) -> None:
    """Whoever follows the rows always finds an instance that answers."""
    created = (await two_cells.request("PUT", WEB, web(instances=1))).json["actual_lrps"]
    missed: list[str] = []
    stop = asyncio.Event()

    async def status_of(row: dict[str, Any]) -> int:
        url = f"http://{row['net_info']['instance_address']}:8080"
        try:
            async with asyncio.timeout(VISIT_S):
                return (await two_cells.request("GET", "/", url=url)).status
        except (OSError, TimeoutError):
            return 0

    async def visit() -> None:
        while not stop.is_set():
            serving = [row for row in await rows(two_cells) if row["state"] == "RUNNING" and row["routable"]]
            # At once: a second later the address of one may be another one's.
            answers = await asyncio.gather(*map(status_of, serving))
            if 200 not in answers:
                missed.append(f"{len(serving)} serve: {answers}")

    async with asyncio.TaskGroup() as group:
        group.create_task(visit())
        for version in ("two", "three"):
            answer = await two_cells.request("PUT", WEB, web(version, 1))
            assert answer.status == 200, answer.body
        stop.set()
    assert missed == []
    assert await said(two_cells) == ["three"]
    assert (await rows(two_cells))[0]["instance_guid"] != created[0]["instance_guid"]


async def test_ready_before_the_old_one_stops(one_cell: Installation) -> None:
    """A new instance that is healthy and never ready does not replace anything, and is no crash."""
    await one_cell.request("PUT", WEB, web(instances=1))
    unready = {"checks": HTTP["checks"], "readiness_checks": [{"tcp": {"port": 81}}]}
    answer = await one_cell.request("PUT", WEB, web("two", 1, check_definition=unready), {"X-Budget-Ms": "4000"})
    document = well_formed(answer)
    assert (document["code"], document["subject"]["old"]) == ("bbs.never_routable", 1)
    (row,) = await rows(one_cell)
    assert (row["presence"], row["routable"]) == ("ORDINARY", True)
    assert (row.get("crash_count", 0), row.get("revision", 0)) == (0, 0)
    assert await said(one_cell) == ["one"]
    assert containers(one_cell) == 1
    ready = {"checks": HTTP["checks"], "readiness_checks": [{"tcp": {"port": 8080}}]}
    good = await one_cell.request("PUT", WEB, web("three", 1, check_definition=ready))
    assert good.status == 200, good.body
    assert good.json["actual_lrps"][0]["routable"]
    assert await said(one_cell) == ["three"]


async def test_egress_rules_change_where_they_run(two_cells: Installation) -> None:
    await two_cells.request("PUT", WEB, web())
    before = [row["instance_guid"] for row in await rows(two_cells)]
    rule = {"protocol": "tcp", "destinations": ["198.51.100.7"], "ports": [443]}
    answer = await two_cells.request("PATCH", WEB, {"egress_rules": [rule]})
    assert answer.status == 200, answer.body
    records = [box.record for node in two_cells.nodes.values() for box in node.garden._boxes.values()]
    assert {record.egress[0].destinations for record in records} == {("198.51.100.7",)}
    by_put = await two_cells.request("PUT", WEB, web())
    assert by_put.status == 200, by_put.body
    assert [row["instance_guid"] for row in await rows(two_cells)] == before, "no other containers"
    records = [box.record for node in two_cells.nodes.values() for box in node.garden._boxes.values()]
    assert [record.egress for record in records] == [(), ()]
    await two_cells.nodes["cell-2"].stop()
    partly = await two_cells.request("PATCH", WEB, {"egress_rules": [rule]})
    document = well_formed(partly)
    assert (partly.status, document["code"], document["outcome"]) == (502, "hop_unreachable", "partial")
    assert [line["state"] for line in document["instances"]].count("FAILED") == 1
    await two_cells.start_cell(2)
    assert (await two_cells.request("PATCH", WEB, {"egress_rules": [rule]})).status == 200


DIED_BEFORE = """
    WITH old AS (UPDATE actual_lrps SET presence = 'EVACUATING' RETURNING *)
    INSERT INTO actual_lrps (process_guid, index, presence, domain, state, instance_guid, since, crash_count, attempts,
                             routable, availability_zone, tag_epoch, tag_index, revision)
    SELECT process_guid, index, 'ORDINARY', domain, 'UNCLAIMED', 'new', now() - interval '40 seconds', 0, 0, false, '',
           'epoch', 0, 1 FROM old
"""
"""What is left of a BBS that died when the old instance had stepped aside and the new one was sent nowhere yet."""
DIED_AFTER = """
    UPDATE actual_lrps
    SET since = since - interval '40 seconds', stop_asked_at = stop_asked_at - interval '40 seconds'
"""


async def _cut_off(installation: Installation, definition: dict[str, Any]) -> None:
    """A replacement whose BBS dies before it answers, or answers with its last breath."""
    with contextlib.suppress(aiohttp.ClientError):
        answer = await installation.request("PUT", WEB, definition)
        assert answer.status >= 500


@pytest.mark.parametrize("runs", [True, False])
async def test_a_bbs_that_died_half_way(one_cell: Installation, runs: bool) -> None:
    """Convergence ends the old one where the new one runs; else it recalls it. The same request goes on from there."""
    (first,) = (await one_cell.request("PUT", WEB, web(instances=1))).json["actual_lrps"]
    port = one_cell.bbs.listener.port
    await one_cell.stop_bbs()
    await one_cell.start_bbs(listen_port=port, route_grace_s=3_600.0, stop_grace_s=0.1)
    await one_cell.nodes["cell-1"].report()
    if runs:
        async with asyncio.TaskGroup() as group:
            group.create_task(_cut_off(one_cell, web("two", 1)))

            async def both_run() -> bool:
                return [row["state"] for row in await rows(one_cell)] == ["RUNNING", "RUNNING"]

            await until("both run", both_run)
            await one_cell.stop_bbs()
    else:
        await one_cell.stop_bbs()
    await one_cell.sql(DIED_AFTER if runs else DIED_BEFORE)
    await one_cell.start_bbs(listen_port=port, convergence_interval_s=0.1)
    await one_cell.nodes["cell-1"].report()

    async def settled() -> bool:
        return len(await rows(one_cell)) == 1

    await until("one row is left", settled)
    (row,) = await rows(one_cell)
    assert (row["presence"], row["state"]) == ("ORDINARY", "RUNNING")
    assert (row["instance_guid"] == first["instance_guid"]) is not runs
    await until_true("one container is left", lambda: containers(one_cell) == 1)
    assert await said(one_cell) == [("two" if runs else "one")]
    again = await one_cell.request("PUT", WEB, web("two", 1))
    assert again.status == 200, again.body
    assert await said(one_cell) == ["two"]
