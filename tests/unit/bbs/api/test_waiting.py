"""How long a caller waits changes nothing for the work."""

import asyncio
import json
from io import StringIO

import pytest
from aiohttp import web

from bbs.api.waiting import Waiting
from diego_py.errors import BudgetSpent, DesireFailed, Outcome, ShuttingDown
from diego_py.http.headers import Preferences
from diego_py.service.log import logger
from diego_py.service.run import OwnedTasks

LOCATION = "/v1/desired_lrps/web"


@pytest.fixture
def waiting() -> Waiting:
    return Waiting(OwnedTasks(logger("bbs", "bbs-1", StringIO()), grace_s=5))


class Cascade:
    """Work that ends when the test lets it."""

    def __init__(self, error: Exception | None = None) -> None:
        self.began = asyncio.Event()
        self.go_on = asyncio.Event()
        self.done = False
        self.error = error

    async def run(self) -> web.Response:
        self.began.set()
        await self.go_on.wait()
        self.done = True
        if self.error is not None:
            raise self.error
        return web.json_response({"ok": True}, status=201)


async def test_the_work_answers_itself(waiting: Waiting) -> None:
    cascade = Cascade()
    cascade.go_on.set()
    response = await waiting.answer(Preferences(), cascade.run(), "desire web", LOCATION)
    assert response.status == 201
    assert "Preference-Applied" not in response.headers


async def test_what_was_preferred_and_done_is_told(waiting: Waiting) -> None:
    cascade = Cascade()
    cascade.go_on.set()
    response = await waiting.answer(Preferences(5.0, False, ("wait=5",)), cascade.run(), "desire web", LOCATION)
    assert response.headers["Preference-Applied"] == "wait=5"


async def test_the_failure_of_the_work_is_the_answer(waiting: Waiting) -> None:
    failure = DesireFailed("desire web")
    cascade = Cascade(failure)
    cascade.go_on.set()
    with pytest.raises(DesireFailed) as caught:
        await waiting.answer(Preferences(), cascade.run(), "desire web", LOCATION)
    assert caught.value is failure


async def test_who_does_not_wait_gets_the_place_to_look(waiting: Waiting) -> None:
    cascade = Cascade()
    preferences = Preferences(None, True, ("respond-async",))
    response = await waiting.answer(preferences, cascade.run(), "desire web", LOCATION)
    assert response.status == 202
    assert response.headers["Location"] == LOCATION
    assert response.headers["Preference-Applied"] == "respond-async"
    assert isinstance(response.body, bytes)
    assert json.loads(response.body) == {"status": "in_progress", "location": LOCATION}
    cascade.go_on.set()
    await waiting.tasks.stop()
    assert cascade.done


async def test_who_waited_long_enough_is_told_that_it_goes_on(waiting: Waiting) -> None:
    cascade = Cascade(DesireFailed("later"))
    with pytest.raises(
        BudgetSpent, match=f"desire web: still under way after 0 s; it goes on, see {LOCATION}"
    ) as caught:
        await waiting.answer(Preferences(0.001, False, ("wait=1",)), cascade.run(), "desire web", LOCATION)
    assert caught.value.outcome is Outcome.UNKNOWN
    cascade.go_on.set()
    await waiting.tasks.stop()
    assert cascade.done


async def test_a_caller_that_hangs_up_changes_nothing(waiting: Waiting) -> None:
    cascade = Cascade()
    async with asyncio.TaskGroup() as group:
        caller = group.create_task(waiting.answer(Preferences(), cascade.run(), "desire web", LOCATION))
        await cascade.began.wait()
        caller.cancel()
        await asyncio.wait([caller])
    cascade.go_on.set()
    await waiting.tasks.stop()
    assert cascade.done


async def test_nothing_is_begun_by_a_process_that_stops(waiting: Waiting) -> None:
    await waiting.tasks.stop()
    cascade = Cascade()
    with pytest.raises(ShuttingDown):
        await waiting.answer(Preferences(), cascade.run(), "desire web", LOCATION)
    assert not cascade.done
