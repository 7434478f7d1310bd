"""Clients that create, scale, stop and delete while things fail, and remember what they were told.

Each LRP belongs to one client, which asks for one thing at a time and asks again, with the same key and any BBS, until
it has an answer that stays. So it is known for each LRP what may be true in the end.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from attrs import define, field

from tests.chain.answers import Answer, well_formed
from tests.chain.definitions import lrp, task
from tests.chaos.fleet import Fleet

CLIENTS = 3
LRPS_EACH = 3
INSTANCES_MAX = 2
BUDGET_MS = 5_000
PATIENCE_S = 60.0
"""How long a client asks again for one thing before it counts as unknown."""
PAUSE_S = (0.05, 0.4)
"""Between two requests of a client, at random."""
TASKS_SHARE = 0.35
TASK_S_MAX = 0.5
WITNESS = "witness"
"""What the process of a task writes to its log first, with the task's name: it was there."""
GONE = 0


@define
class Client:
    """One client and its LRPs."""

    fleet: Fleet
    name: str
    random: random.Random
    answers: Counter[str]
    met: Counter[str]
    expected: dict[str, set[int]] = field(factory=dict, init=False)
    """LRP to the numbers of instances that may be desired now; more than one while an outcome is unknown."""
    begun: set[str] = field(factory=set, init=False)
    """Tasks of which it was told that they run or have run."""
    _asked: int = field(default=0, init=False)

    async def work(self, stopped: asyncio.Event) -> None:
        """Ask for one thing after the other until `stopped`."""
        while not stopped.is_set():
            await self.ask_for_something()
            await asyncio.sleep(self.random.uniform(*PAUSE_S))

    async def ask_for_something(self) -> None:
        if self.random.random() < TASKS_SHARE:
            await self._run_task()
            return
        guid = f"{self.name}-{self.random.randrange(LRPS_EACH)}"
        now = self.expected.get(guid, {GONE})
        if now == {GONE}:
            await self._create(guid, self.random.randint(1, INSTANCES_MAX))
        elif len(now) > 1 or self.random.random() < 0.4:
            await self._delete(guid)
        elif self.random.random() < 0.5:
            await self._scale(guid, self.random.randint(1, INSTANCES_MAX))
        else:
            await self._stop_one(guid)

    async def _create(self, guid: str, instances: int) -> None:
        definition = lrp(guid, memory_mb=16, instances=instances)
        await self._ask(guid, instances, "POST", "/v1/desired_lrps", definition, 201)

    async def _scale(self, guid: str, instances: int) -> None:
        await self._ask(guid, instances, "PATCH", f"/v1/desired_lrps/{guid}", {"instances": instances}, 200)

    async def _delete(self, guid: str) -> None:
        await self._ask(guid, GONE, "DELETE", f"/v1/desired_lrps/{guid}", None, 200)

    async def _stop_one(self, guid: str) -> None:
        """Convergence makes a new one, so what is expected stays."""
        (now,) = self.expected[guid]
        path = f"/v1/actual_lrps/{guid}/{self.random.randrange(now)}/restart"
        await self._ask(guid, now, "POST", path, None, 200)

    async def _run_task(self) -> None:
        """A new task each time; some are waited for to their end."""
        guid = f"{self.name}-task-{self._asked}"
        script = f"echo {WITNESS} {guid}; sleep {self.random.uniform(0, TASK_S_MAX):.2f}"
        until = self.random.choice(("", "?until=completed"))
        answer = await self._answer("POST", "/v1/tasks" + until, task(guid, script, memory_mb=16))
        if answer is not None and answer.status == 201:
            self.begun.add(guid)

    async def _ask(self, guid: str, becomes: int, method: str, path: str, body: Any, good: int) -> None:
        """Ask until it is done, or nobody can say."""
        self.expected[guid] = self.expected.get(guid, {GONE}) | {becomes}
        answer = await self._answer(method, path, body)
        gone = answer is not None and answer.status == 404 and becomes == GONE
        if gone or (answer is not None and answer.status == good):
            self.expected[guid] = {becomes}

    async def _answer(self, method: str, path: str, body: Any) -> Answer | None:
        """The answer that stays, asked for with one key; None when there was none in time."""
        self._asked += 1
        key = f"{self.name}-{self._asked}"
        try:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    answer = await self._once(method, path, body, key)
                    if answer is not None and _is_final(answer):
                        return answer
                    await asyncio.sleep(self.random.uniform(*PAUSE_S))
        except TimeoutError:
            self._count("no answer in time")
            return None

    async def _once(self, method: str, path: str, body: Any, key: str) -> Answer | None:
        member = self.random.choice([*self.fleet.bbses])
        headers = {"Idempotency_Key": key, "X_Budget_Ms": str(BUDGET_MS)}
        try:
            async with asyncio.timeout(BUDGET_MS / 1000 + 3):
                answer = await self.fleet.request(method, path, body, member, **headers)
        except (aiohttp.ClientError, TimeoutError) as broken:
            self._count(type(broken).__name__)
            return None
        self._count(str(answer.status))
        if answer.status >= 400 and "Idempotent-Replayed" not in answer.headers:
            well_formed(answer)
        return answer

    def _count(self, came: str) -> None:
        self.answers[came] += 1
        if self.fleet.harms.begun:
            self.met[came] += 1



def _is_final(answer: Answer) -> bool:
    """Whether asking again with this key would only give the same answer again."""
    return answer.status < 400 or answer.json["code"] != "idempotency_in_flight"


@define
class Load:
    """All clients of one trial."""

    fleet: Fleet
    name: str
    """Begins the names of its LRPs and keys, and seeds its choices: another one for each trial on a fleet."""
    clients: list[Client] = field(init=False)
    clients_count: int = CLIENTS
    answers: Counter[str] = field(factory=Counter, init=False)
    met: Counter[str] = field(factory=Counter, init=False)
    """Those of requests that were under way when something was done to the installation, or sent later."""

    def __attrs_post_init__(self) -> None:
        self.clients = [
            Client(self.fleet, f"{self.name}-{number}", random.Random(f"{self.name}-{number}"), self.answers, self.met)
            for number in range(self.clients_count)
        ]

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """All clients at work; in the end every one of them finishes what it asks for."""
        stopped = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for client in self.clients:
                group.create_task(client.work(stopped))
            try:
                yield
            finally:
                stopped.set()

    def expected(self) -> dict[str, set[int]]:
        """What may be desired now, of all clients."""
        return {guid: numbers for client in self.clients for guid, numbers in client.expected.items()}

    def begun(self) -> set[str]:
        """Tasks of which a client was told that they run or have run."""
        return {guid for client in self.clients for guid in client.begun}
