"""`/v1/decisions`: what convergence decided in its last round about what is not as desired, and why."""

from __future__ import annotations

from datetime import datetime

import msgspec
from aiohttp import web
from attrs import define, frozen

from bbs.convergence.decisions import Decision, Decisions
from bbs.store.transaction import Store
from diego_py.call import Call
from diego_py.errors import RequestFailed
from diego_py.http.server import Route, answer

FILTERS = ("process_guid", "task_guid", "cell_id")


@frozen(kw_only=True)
class LastDecisions:
    """Of the last round that any leader told; none yet without `decided_at`."""

    leader: str
    """The BBS that led, as it calls itself, and a name of its process."""
    epoch: int
    decided_at: datetime | None
    valve: str
    """Why nothing on vanished cells is replaced, if that is so."""
    items: tuple[Decision, ...]
    omitted: int
    """Decisions that were too many to be told."""


@define
class DecisionRoutes:
    """Handlers of decisions."""

    store: Store

    def routes(self) -> list[Route]:
        return [
            Route(
                "GET", "/v1/decisions", "list_decisions", self.list, RequestFailed, gives=LastDecisions, query=FILTERS
            )
        ]

    async def list(self, request: web.Request, call: Call) -> web.StreamResponse:
        """What the leader decided in its last round; filters are ANDed. What is as it should be is not in it."""
        last = await self.store.read(call, "last_decisions", lambda tx: tx.decisions.last())
        told = Decisions() if last is None else msgspec.json.decode(last.document, type=Decisions)
        wanted = {name: request.query[name] for name in FILTERS if name in request.query}
        return answer(
            LastDecisions(
                leader="" if last is None else last.owner,
                epoch=0 if last is None else last.epoch,
                decided_at=None if last is None else last.decided_at,
                valve=told.valve,
                items=tuple(item for item in told.items if _fits(item, wanted)),
                omitted=told.omitted,
            )
        )


def _fits(item: Decision, wanted: dict[str, str]) -> bool:
    return all(getattr(item, name) == value for name, value in wanted.items())
