"""Idempotency-Key: one effect for each key, and the same answer byte for byte, failures included."""

from __future__ import annotations

import asyncio

import pytest

from tests.chain.answers import Answer, well_formed
from tests.chain.awaited import until
from tests.chain.definitions import lrp
from tests.chain.installation import Installation

pytestmark = [pytest.mark.chain, pytest.mark.kernel]

KEY = {"Idempotency_Key": "the-key"}
ALIKE = 10


def replayed(first: Answer, again: Answer) -> None:
    assert (again.status, again.body) == (first.status, first.body)
    assert again.headers["Idempotent-Replayed"] == "true"
    for name in ("Content-Type", "Location", "ETag"):
        assert again.headers.get(name) == first.headers.get(name)


async def test_a_success_is_told_again(one_cell: Installation) -> None:
    first = await one_cell.desire(lrp(), **KEY)
    assert first.status == 201, first.body
    replayed(first, await one_cell.desire(lrp(), **KEY))
    assert len(one_cell.nodes["cell-1"].garden.containers()) == 1


@pytest.mark.parametrize("definition", [lrp(run_path="/bin/nope", run_args=[]), lrp(memory_mb=9_999)])
async def test_a_failure_is_told_again(one_cell: Installation, definition: dict[str, object]) -> None:
    """The same document, and the work is not tried a second time."""
    first = await one_cell.desire(definition, **KEY)
    assert first.status >= 500
    attempts = (await one_cell.row("web"))["attempts"]
    replayed(first, await one_cell.desire(definition, **KEY))
    assert (await one_cell.row("web"))["attempts"] == attempts
    assert len(await one_cell.failures()) == 1


async def test_a_refusal_has_no_effect_that_a_key_could_keep(one_cell: Installation) -> None:
    """Once corrected, the request may go with the same key."""
    refused = await one_cell.desire(lrp(memory_mb=-1), **KEY)
    assert refused.status == 422
    assert (await one_cell.desire(lrp(), **KEY)).status == 201


async def test_another_body_is_refused(one_cell: Installation) -> None:
    first = await one_cell.desire(lrp(), **KEY)
    answer = await one_cell.desire(lrp(memory_mb=32), **KEY)
    document = well_formed(answer)
    assert (answer.status, document["code"]) == (422, "idempotency_mismatch")
    other_route = await one_cell.desire(lrp(), "?on_failure=rollback", **KEY)
    assert (other_route.status, other_route.json["code"]) == (422, "idempotency_mismatch")
    replayed(first, await one_cell.desire(lrp(), **KEY))


async def test_many_at_once_have_one_effect(one_cell: Installation) -> None:
    """One of them works; the others are told that it is under way, and later what came of it."""
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(one_cell.desire(lrp(), **KEY)) for _ in range(ALIKE)]
    answers = [task.result() for task in asked]
    first = next(answer for answer in answers if answer.status == 201 and "Idempotent-Replayed" not in answer.headers)
    for answer in answers:
        if answer.status == 201:
            assert answer.body == first.body
        else:
            document = well_formed(answer)
            assert (answer.status, document["code"], document["retryable"]) == (409, "idempotency_in_flight", True)
            assert float(answer.headers["Retry-After"]) >= 1
    assert len(one_cell.nodes["cell-1"].garden.containers()) == 1
    replayed(first, await one_cell.desire(lrp(), **KEY))


async def test_a_key_of_a_change(one_cell: Installation) -> None:
    await one_cell.desire(lrp())
    headers = {"Idempotency-Key": "scale"}
    first = await one_cell.request("PATCH", "/v1/desired_lrps/web", {"instances": 3}, headers)
    assert first.status == 200, first.body
    again = await one_cell.request("PATCH", "/v1/desired_lrps/web", {"instances": 3}, headers)
    replayed(first, again)
    assert len(one_cell.nodes["cell-1"].garden.containers()) == 3


async def test_a_change_whose_bbs_died_is_finished_and_not_made_again(installation: Installation) -> None:
    """The change is stored, and its answer is not: whoever asks again gets the instances, also by the old ETag."""
    stored = await installation.desire(lrp(instances=0))
    headers = {"Idempotency-Key": "scale", "If-Match": stored.headers["ETag"]}
    first = await installation.request("PATCH", "/v1/desired_lrps/web", {"instances": 2}, headers)
    assert first.status == 503, first.body  # there is no cell
    await installation.request("PATCH", "/v1/desired_lrps/web", {"annotation": "by somebody else"})
    in_flight = "state = 'in_flight', status = NULL, headers = NULL, body = NULL"
    await installation.sql(f"UPDATE idempotency_keys SET {in_flight}, expires_at = now()")
    node = await installation.start_cell(1)
    again = await installation.request("PATCH", "/v1/desired_lrps/web", {"instances": 2}, headers)
    assert again.status == 200, again.body
    assert [actual["state"] for actual in again.json["actual_lrps"]] == ["RUNNING"] * 2
    assert again.json["desired_lrp"]["definition"]["annotation"] == "by somebody else"
    assert len(node.garden.containers()) == 2
    replayed(again, await installation.request("PATCH", "/v1/desired_lrps/web", {"instances": 2}, headers))


async def test_a_replacement_whose_bbs_died_is_finished_as_it_is_stored_now(one_cell: Installation) -> None:
    """What somebody else has made of it since stays, and what somebody else has removed does not come back."""
    stored = await one_cell.desire(lrp())
    headers = {"Idempotency-Key": "deploy", "If-Match": stored.headers["ETag"]}
    wanted = lrp(annotation="ours", environment_variables=[{"name": "VERSION", "value": "2"}])
    first = await one_cell.request("PUT", "/v1/desired_lrps/web", wanted, headers)
    assert first.status == 200, first.body
    theirs = await one_cell.request("PATCH", "/v1/desired_lrps/web", {"annotation": "by somebody else"})
    assert theirs.status == 200, theirs.body
    in_flight = "UPDATE idempotency_keys SET state = 'in_flight', status = NULL, headers = NULL, body = NULL"
    await one_cell.sql(f"{in_flight}, expires_at = now()")
    again = await one_cell.request("PUT", "/v1/desired_lrps/web", wanted, headers)
    assert again.status == 200, again.body
    assert again.json["desired_lrp"]["definition"]["annotation"] == "by somebody else"
    assert [actual["state"] for actual in again.json["actual_lrps"]] == ["RUNNING"]
    assert len(one_cell.nodes["cell-1"].garden.containers()) == 1
    assert (await one_cell.request("DELETE", "/v1/desired_lrps/web")).status == 200
    await one_cell.sql(f"{in_flight}, expires_at = now()")
    gone = await one_cell.request("PUT", "/v1/desired_lrps/web", wanted, headers)
    assert gone.status == 404, gone.body
    assert one_cell.nodes["cell-1"].garden.containers() == []


async def test_a_caller_that_came_back(one_cell: Installation) -> None:
    """It was not answered in time; with the same key it hears what came of its request."""
    slow = lrp(script="exec sleep 1000", ports=[8080])
    answer = await one_cell.desire(slow, Prefer="respond-async", **KEY)
    assert answer.status == 202

    async def told() -> Answer | None:
        again = await one_cell.desire(slow, **KEY)
        return again if again.status != 409 else None

    final = await until("the first request is done", told)
    assert final.status == 201, final.body
    assert final.json["actual_lrps"][0]["state"] == "RUNNING"
    assert len(one_cell.nodes["cell-1"].garden.containers()) == 1
