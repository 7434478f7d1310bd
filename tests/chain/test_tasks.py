"""Tasks, every hop real: run, ended, failed, cancelled, taken, deleted; and what each failure says and leaves."""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta
from pathlib import Path

import aiohttp
import asyncpg
import pytest

from tests.chain.answers import well_formed
from tests.chain.awaited import process_of, processes_of, until, until_true
from tests.chain.definitions import task
from tests.chain.expected import is_stored, nothing_in_books
from tests.chain.installation import Installation

pytestmark = [pytest.mark.chain, pytest.mark.kernel]

UNTIL = "?until=completed"


async def test_a_task_runs_and_ends(one_cell: Installation) -> None:
    answer = await one_cell.run_task(task(script="exec sleep 0.3"))
    assert answer.status == 201, answer.body
    assert (answer.json["state"], answer.json["cell_id"]) == ("RUNNING", "cell-1")
    assert answer.headers["Location"] == "/v1/tasks/job"
    twice = await one_cell.run_task(task())
    assert (twice.status, twice.json["code"]) == (409, "task_exists")
    early = await one_cell.request("DELETE", "/v1/tasks/job")
    document = well_formed(early)
    assert (early.status, document["code"]) == (409, "task_not_completed")
    assert document["next"][0]["run"] == "diego task cancel job"
    ended = await one_cell.request("GET", "/v1/tasks/job" + UNTIL)
    assert (ended.status, ended.json["state"], ended.json["failed"]) == (200, "COMPLETED", False)
    assert ended.json["first_completed_at"] is not None
    assert one_cell.left() == []
    nothing_in_books(one_cell)


async def test_the_answer_is_the_end_or_the_failure(one_cell: Installation) -> None:
    well = await one_cell.run_task(task(), UNTIL)
    assert (well.status, well.json["state"], well.json["failed"]) == (201, "COMPLETED", False)
    assert well.headers["Server-Timing"].count("dur=") >= 3
    badly = await one_cell.run_task(task("bad", "echo oops; exit 3"), UNTIL)
    left = one_cell.left()
    document = well_formed(badly)
    assert left == []
    assert (badly.status, document["code"], document["detail"]) == (500, "app.exited", "exited with status 3")
    assert document["outcome"] == "rolled_back"  # it ran
    assert badly.hops == ["bbs", "rep", "executor"]
    assert document["evidence"]["app_log_tail"] == ["oops"]
    assert document["subject"]["guid"] == "bad"
    row = await one_cell.task("bad")
    assert (row["state"], row["failed"], row["failure_reason"]) == ("COMPLETED", True, "exited with status 3")
    assert row["failure"]["instance"] == document["instance"]
    stored = (await one_cell.request("GET", "/v1/failures?task_guid=bad")).json["items"]
    assert [failure["document"]["instance"] for failure in stored] == [document["instance"]]


async def test_what_a_command_cannot_begin_with_is_told_and_not_tried_again(two_cells: Installation) -> None:
    answer = await two_cells.run_task(task(run_path="/nowhere"))
    left = two_cells.left()
    document = well_formed(answer)
    assert (answer.status, document["code"], document["outcome"]) == (500, "runtime.exec_not_found", "not_started")
    assert answer.hops == ["bbs", "auction", "rep", "garden", "runc"]
    assert left == []
    await is_stored(two_cells, answer)
    row = await two_cells.task()
    assert (row["state"], row["failed"], row["failure"]) == ("COMPLETED", True, document)
    nothing_in_books(two_cells)


async def test_no_room_is_a_503_and_the_task_waits(one_cell: Installation) -> None:
    answer = await one_cell.run_task(task(memory_mb=2000))
    document = well_formed(answer)
    assert (answer.status, document["code"], document["outcome"]) == (503, "auction.no_cell_fits", "not_started")
    assert document["placement"]["bids"][0]["lacks"]["memory_mb"] == {"need": 2000, "have": 1024}
    row = await one_cell.task()
    assert (row["state"], row["rejection_reason"]) == ("PENDING", document["detail"])
    assert (row["rejection_count"], row["attempts"]) == (0, 1), "want of room is no rejection"
    assert row["failure"] == document
    assert row["next_attempt_at"] is not None
    rolled_back = await one_cell.run_task(task("other", memory_mb=2000), "?on_failure=rollback")
    assert rolled_back.status == 503
    assert "next_attempt_at" not in rolled_back.json
    assert (await one_cell.request("GET", "/v1/tasks/other")).status == 404
    await is_stored(one_cell, rolled_back)


def broken_runtime(directory: Path) -> str:
    """A runtime that makes nothing."""
    program = directory / "runc"
    program.write_text("#!/bin/sh\necho the moon is full >&2\nexit 1\n")
    program.chmod(0o755)
    return str(program)


async def test_another_cell_is_tried_though_the_first_one_claimed_it(
    installation: Installation, open_directory: Path
) -> None:
    """No process of it began there, and the cell says so."""
    first = await installation.start_cell(1, runtime_path=broken_runtime(open_directory))
    await installation.start_cell(2)
    answer = await installation.run_task(task(), UNTIL)
    assert answer.status == 201, answer.body
    assert (answer.json["cell_id"], answer.json["rejection_count"]) == ("cell-2", 1)
    assert "the moon is full" in answer.json["rejection_reason"]
    assert first.garden.containers() == []


async def test_a_task_that_no_cell_can_begin_with_is_given_up(installation: Installation, open_directory: Path) -> None:
    """Three rejections are counted; the fourth is its end."""
    await installation.start_cell(1, runtime_path=broken_runtime(open_directory))
    answer = await installation.run_task(task())
    document = well_formed(answer)
    assert (answer.status, document["code"], document["outcome"]) == (500, "runtime.failed", "not_started")
    row = await installation.task()
    assert (row["state"], row["rejection_count"], row["attempts"]) == ("PENDING", 1, 1)
    assert row["next_attempt_at"] is not None
    await _restarted(installation)

    async def given_up() -> bool:
        await _age(installation, "next_attempt_at")
        return (await installation.task())["state"] == "COMPLETED"

    await until("it is given up", given_up)
    row = await installation.task()
    assert (row["failed"], row["rejection_count"]) == (True, 3)
    assert row["failure"]["code"] == "runtime.failed"


async def test_cancel_answers_when_the_process_is_gone(one_cell: Installation) -> None:
    assert (await one_cell.run_task(task(script="exec sleep 734551"))).status == 201
    await process_of("sleep", "734551")
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(one_cell.request("GET", "/v1/tasks/job" + UNTIL))
        answer = await one_cell.request("POST", "/v1/tasks/job/cancel", {})
    assert processes_of("sleep", "734551") == []
    assert one_cell.left() == []
    assert (answer.status, answer.json["state"], answer.json["failed"]) == (200, "COMPLETED", True)
    assert answer.json["failure_reason"] == "the task was cancelled"
    assert answer.json["failure"]["code"] == "bbs.task_cancelled"
    assert waiting.result().json["failed"] is True
    again = await one_cell.request("POST", "/v1/tasks/job/cancel", {})
    assert (again.status, again.json) == (200, answer.json), "it is what was asked"
    await one_cell.run_task(task("done"), UNTIL)
    late = await one_cell.request("POST", "/v1/tasks/done/cancel", {})
    assert (late.status, well_formed(late)["code"]) == (409, "illegal_transition")


async def test_the_result_is_taken_once(one_cell: Installation) -> None:
    await one_cell.run_task(task(), UNTIL)
    async with asyncio.TaskGroup() as group:
        path = "/v1/tasks/job/resolve"
        asked = [group.create_task(one_cell.request("POST", path, {})) for _ in range(4)]
    assert sorted(one.result().status for one in asked) == [200, 409, 409, 409]
    assert (await one_cell.task())["state"] == "RESOLVING"
    deleted = await one_cell.request("DELETE", "/v1/tasks/job")
    assert (deleted.status, deleted.json["task_guid"]) == (200, "job")
    assert (await one_cell.request("GET", "/v1/tasks/job")).json["code"] == "task_not_found"


async def test_lists(one_cell: Installation) -> None:
    names = [f"job-{number}" for number in range(5)]
    async with asyncio.TaskGroup() as group:
        for name in names:
            group.create_task(one_cell.run_task(task(name), UNTIL))
    assert (await one_cell.run_task(task("runs", "exec sleep 1000"))).status == 201
    page = await one_cell.request("GET", "/v1/tasks?limit=2&state=COMPLETED")
    assert [item["task_guid"] for item in page.json["items"]] == names[:2]
    following = await one_cell.request("GET", f"/v1/tasks?limit=10&cursor={page.json['next_cursor']}&domain=shop")
    assert [item["task_guid"] for item in following.json["items"]] == [*names[2:], "runs"]
    lines = await one_cell.request("GET", "/v1/tasks?cell_id=cell-1", headers={"Accept": "application/x-ndjson"})
    assert len(lines.body.splitlines()) == 6
    assert (await one_cell.request("GET", "/v1/tasks?cell_id=cell-9")).json["items"] == []
    assert (await one_cell.request("GET", "/v1/tasks?state=RUNNING")).json["items"][0]["task_guid"] == "runs"
    assert (await one_cell.request("GET", "/v1/tasks?state=SLEEPING")).status == 400


async def test_bad_requests_change_nothing(one_cell: Installation) -> None:
    bad = task("no spaces", memory_mb=-1)
    answer = await one_cell.run_task(bad)
    document = well_formed(answer)
    assert (answer.status, document["code"]) == (422, "invalid_spec")
    assert {error["pointer"] for error in document["errors"]} == {"/task_guid", "/definition/memory_mb"}
    unsupported = task(metrics_guid="m")
    assert (await one_cell.run_task(unsupported)).status == 422
    for path, status in (("?until=never", 400), ("?on_failure=perhaps", 400)):
        assert (await one_cell.run_task(task(), path)).status == status
    assert (await one_cell.request("POST", "/v1/tasks/nobody/cancel", {})).status == 404
    assert (await one_cell.request("GET", "/v1/tasks")).json["items"] == []
    assert await one_cell.failures() == []


async def test_the_same_key_gets_the_same_answer(one_cell: Installation) -> None:
    """Also who asks for the end, after an answer that was only the start."""
    wanted = task(script="echo once >> /tmp/x; exec sleep 0.3")
    first = await one_cell.run_task(wanted, Idempotency_Key="k")
    again = await one_cell.run_task(wanted, Idempotency_Key="k")
    assert (first.status, again.status, again.body) == (201, 201, first.body)
    assert again.headers["Idempotent-Replayed"] == "true"
    ends = [await one_cell.run_task(task("end", "exit 4"), UNTIL, Idempotency_Key="e") for _ in range(2)]
    assert [end.status for end in ends] == [500, 500]
    assert ends[0].body == ends[1].body
    other = await one_cell.run_task(task("other"), Idempotency_Key="k")
    assert (other.status, other.json["code"]) == (422, "idempotency_mismatch")


async def test_not_waiting(one_cell: Installation) -> None:
    at_once = await one_cell.run_task(task("later", "exec sleep 0.2"), Prefer="respond-async")
    assert (at_once.status, at_once.headers["Location"]) == (202, "/v1/tasks/later")
    short = await one_cell.run_task(task(script="exec sleep 2"), UNTIL, Prefer="wait=1")
    assert (short.status, short.json["outcome"]) == (504, "unknown")
    still = await one_cell.request("GET", "/v1/tasks/job" + UNTIL, headers={"Prefer": "wait=1"})
    assert still.status == 200
    assert (await one_cell.request("GET", "/v1/tasks/job" + UNTIL)).json["failed"] is False
    assert (await one_cell.request("GET", "/v1/tasks/later" + UNTIL)).json["failed"] is False


async def test_logs_of_a_task(one_cell: Installation) -> None:
    await one_cell.run_task(task(script="echo one; echo two"), UNTIL)
    log = await one_cell.request("GET", "/v1/tasks/job/logs?tail=1")
    assert b'"two"' in log.body
    assert b'"one"' not in log.body


async def test_a_log_is_followed_as_long_as_somebody_reads(one_cell: Installation) -> None:
    await one_cell.run_task(task(script="echo one; exec sleep 60"))
    async with aiohttp.ClientSession() as http:
        following = await http.get(f"{one_cell.url}/v1/tasks/job/logs?follow=true")
        assert b'"one"' in await following.content.readline()
        assert _watches() == 1
        following.close()
        await until_true("nobody follows the log", lambda: _watches() == 0)
    await one_cell.request("POST", "/v1/tasks/job/cancel")


def _watches() -> int:
    """Files that this process, which is BBS and cell in one, wants to hear of."""
    links = [os.readlink(entry.path) for entry in os.scandir("/proc/self/fd") if os.path.islink(entry.path)]
    return links.count("anon_inode:inotify")


async def _age(installation: Installation, *age: str) -> None:
    """Let an hour pass for these columns of every task."""
    connection = await asyncpg.connect(installation.dsn)
    try:
        for column in age:
            await connection.execute(f"UPDATE tasks SET {column} = {column} - $1::interval", timedelta(hours=1))
    finally:
        await connection.close()


async def _restarted(installation: Installation) -> None:
    """The BBS again, with convergence on."""
    await installation.stop_bbs()
    await installation.start_bbs(
        listen_port=int(installation.nodes["cell-1"].config.bbs_urls[0].rpartition(":")[2]),
        convergence_interval_s=0.05,
    )


async def test_what_nobody_works_on_is_seen_to(one_cell: Installation) -> None:
    """Expired, placed when there is room, deleted when nobody took the result."""
    assert (await one_cell.run_task(task("old", memory_mb=2000))).status == 503
    await _age(one_cell, "created_at")
    assert (await one_cell.run_task(task("full", "exec sleep 1000", memory_mb=1024))).status == 201
    assert (await one_cell.run_task(task("waits", memory_mb=1000))).status == 503
    assert (await one_cell.run_task(task("done", memory_mb=0), UNTIL)).status == 201
    await _restarted(one_cell)

    async def expired() -> bool:
        return (await one_cell.task("old"))["state"] == "COMPLETED"

    await until("the old one is given up", expired)
    old = await one_cell.task("old")
    assert (old["failed"], old["failure"]["code"]) == (True, "bbs.task_expired")
    assert (await one_cell.request("POST", "/v1/tasks/full/cancel", {})).status == 200
    waited = await one_cell.request("GET", "/v1/tasks/waits" + UNTIL)
    assert (waited.json["state"], waited.json["failed"]) == ("COMPLETED", False)
    await _age(one_cell, "first_completed_at")

    async def none() -> bool:
        return (await one_cell.request("GET", "/v1/tasks")).json["items"] == []

    await until("completed ones are deleted", none)


async def test_a_cell_that_vanished_takes_its_task_along(two_cells: Installation) -> None:
    """It is not run again; should the cell come back, it stops the process."""
    answer = await two_cells.run_task(task(script="exec sleep 734552"))
    node = two_cells.nodes[answer.json["cell_id"]]
    await node.stop()
    await two_cells.let_presence_run_out(node.id)
    await _restarted(two_cells)
    (other,) = (each for each in two_cells.nodes.values() if each is not node)

    async def completed() -> bool:
        await other.report()
        return (await two_cells.task("job"))["state"] == "COMPLETED"

    await until("a new leader has watched for a whole presence", completed, 40)
    ended = await two_cells.task("job")
    assert (ended["failed"], ended["failure"]["code"]) == (True, "bbs.task_lost")
    assert "disappeared" in ended["failure_reason"]
    assert len(processes_of("sleep", "734552")) == 1
    back = await two_cells.start_cell(int(node.id.rpartition("-")[2]))
    await until_true("the cell has stopped what is not wanted", lambda: not back.garden.containers())
    assert processes_of("sleep", "734552") == []
