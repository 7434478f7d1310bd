"""How long a caller waits for work that belongs to the server: to the end, N seconds, or not at all (RFC 7240)."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from aiohttp import web
from attrs import define, field

from bbs.outcome import unknown_unless_said
from diego_py.errors import BudgetSpent, Outcome
from diego_py.http import headers
from diego_py.http.admission import Admission
from diego_py.http.server import answer
from diego_py.service.run import OwnedTasks


@define
class Waiting:
    """Starts the cascade in the server's own tasks and waits as the caller prefers."""

    tasks: OwnedTasks
    admission: Admission = field(factory=Admission)

    async def answer(
        self,
        preferences: headers.Preferences,
        work: Coroutine[Any, Any, web.Response],
        name: str,
        location: str,
        counts: bool = True,
    ) -> web.Response:
        """The work's own answer; 202 and where to look for respond-async; 504 when Prefer: wait=N ran out.

        The cascade goes on in the last two cases, and counts as under way until it is done, if it `counts`.
        """
        task = self.tasks.begin(work, name)
        try:
            return await self._waited(preferences, task, name, location)
        finally:
            if counts and not task.done():
                self.admission.outlives(task)

    async def _waited(
        self, preferences: headers.Preferences, task: asyncio.Task[web.Response], name: str, location: str
    ) -> web.Response:
        if preferences.respond_async:
            return answer({"status": "in_progress", "location": location}, 202, self._applied(preferences, location))
        done, _ = await asyncio.wait({task}, timeout=preferences.wait_s)
        if not done:
            raise BudgetSpent(
                f"{name}: still under way after {preferences.wait_s:.0f} s; it goes on, see {location}",
                outcome=Outcome.UNKNOWN,
            )
        with unknown_unless_said():
            response = task.result()
        if preferences.applied:
            response.headers["Preference-Applied"] = ", ".join(preferences.applied)
        return response

    def _applied(self, preferences: headers.Preferences, location: str) -> dict[str, str]:
        return {"Location": location, "Preference-Applied": ", ".join(preferences.applied)}
