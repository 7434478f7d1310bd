"""`/v1/desired_lrps`: what should run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from aiohttp import web
from attrs import asdict, define, frozen

from bbs.api.idempotency import Idempotency
from bbs.api.listed import listed
from bbs.api.paging import PAGING, whole_number
from bbs.api.waiting import Waiting
from bbs.lifecycle import Desired, Lifecycle, etag
from bbs.placement import Placed, Placement
from bbs.replacement import IN_FLIGHT_DEFAULT, IN_FLIGHT_MAX, Pace, Replacement, Strategy
from bbs.store import desires
from bbs.store.idempotency import IdempotencyKey
from bbs.store.listing import DESIRED_LRPS
from bbs.store.lists import Lists
from bbs.store.transaction import Store
from diego_py.call import Call
from diego_py.errors import (
    DeleteFailed,
    DesiredLRPNotFound,
    DesireFailed,
    InvalidHeader,
    PreconditionFailed,
    ReplaceFailed,
    RequestFailed,
    UnsupportedField,
    UpdateFailed,
)
from diego_py.http import headers
from diego_py.http.conditional import tagged
from diego_py.http.server import Route, answer, decode, found, invalid_fields, read_json
from diego_py.models.actual_lrp import ActualLRP
from diego_py.models.desired_lrp import INSTANCES_MAX, DesiredLRP, DesiredLRPDefinition, DesiredLRPUpdate
from diego_py.models.fields import INVALID, FieldError
from diego_py.models.identifiers import ProcessGuid
from diego_py.models.supported import unsupported, unsupported_change
from diego_py.models.validation import validate

T = TypeVar("T")

DEFAULT_START_TIMEOUT_MS = 60_000
"""Start time allowed where the definition names none; the cell's own default is the same."""


@frozen(kw_only=True)
class PlacedLRP:
    """An LRP and the instances that the request started, all of them RUNNING."""

    desired_lrp: DesiredLRP
    actual_lrps: tuple[ActualLRP, ...]


@frozen(kw_only=True)
class DesiredLRPPage:
    """Desired LRPs in order of process_guid."""

    items: tuple[DesiredLRP, ...]
    next_cursor: str | None


@frozen(kw_only=True)
class RemovedLRP:
    """An LRP that is gone, with the number of its containers that were stopped."""

    process_guid: ProcessGuid
    stopped: int


@define
class DesiredLRPs:
    """Handlers of desired LRPs."""

    store: Store
    lists: Lists
    lifecycle: Lifecycle
    placement: Placement
    replacement: Replacement
    idempotency: Idempotency
    waiting: Waiting
    request_budget_ms: float

    def routes(self) -> list[Route]:
        path = "/v1/desired_lrps/{process_guid}"
        return [
            Route(
                "POST",
                "/v1/desired_lrps",
                "desire_lrp",
                self.create,
                DesireFailed,
                takes=DesiredLRPDefinition,
                gives=PlacedLRP,
                query=("on_failure",),
            ),
            Route(
                "GET",
                "/v1/desired_lrps",
                "list_desired_lrps",
                self.list,
                RequestFailed,
                gives=DesiredLRPPage,
                query=(*DESIRED_LRPS.filters, *PAGING),
            ),
            Route("GET", path, "get_desired_lrp", self.get, RequestFailed, gives=DesiredLRP),
            Route(
                "PUT",
                path,
                "replace_lrp",
                self.replace,
                ReplaceFailed,
                takes=DesiredLRPDefinition,
                gives=PlacedLRP,
                query=("strategy", "max_in_flight"),
            ),
            Route("PATCH", path, "update_lrp", self.update, UpdateFailed, takes=DesiredLRPUpdate, gives=PlacedLRP),
            Route("DELETE", path, "delete_lrp", self.delete, DeleteFailed, gives=RemovedLRP),
        ]

    async def create(self, request: web.Request, call: Call) -> web.StreamResponse:
        """Store the LRP and start its instances; 201 when all of them run."""
        preferences = headers.preferences_from(request.headers)
        roll_back = on_failure(request) == "rollback"
        body = await read_json(request)
        definition = accepted(decode(DesiredLRPDefinition, body))
        call = self._budgeted(request, call, definition.start_timeout_ms)
        key = self.idempotency.key_of(request, body)
        before = await self.idempotency.before(call, key)
        if before.answer is not None:
            return before.answer
        if before.resume:
            start, stored = self.placement.resume, await self._taken_up(call, definition.process_guid)
        else:
            start, stored = self.placement.desire, await self.lifecycle.desire(call, definition, key)
        location = f"/v1/desired_lrps/{definition.process_guid}"

        async def place() -> web.Response:
            placed = await start(call, stored.desired, stored.actuals, roll_back)
            return told(placed, 201, location)

        work = self.idempotency.remember(call, key, DesireFailed, place)
        return await self.waiting.answer(preferences, work, f"desire {definition.process_guid}", location)

    async def replace(self, request: web.Request, call: Call) -> web.StreamResponse:
        """Replace the whole definition, instance by instance; 200 when all run with it. 201 when there was none.

        The same again goes on where an earlier one stopped.
        """
        preferences = headers.preferences_from(request.headers)
        guid = ProcessGuid(request.match_info["process_guid"])
        body = await read_json(request)
        definition = accepted(decode(DesiredLRPDefinition, body))
        if definition.process_guid != guid:
            raise invalid_fields([FieldError("/process_guid", INVALID, "must be the one of the path")])
        pace = pace_of(request, definition)
        call = self._budgeted(request, call, definition.start_timeout_ms, _rounds(definition, pace))
        key = self.idempotency.key_of(request, body)
        before = await self.idempotency.before(call, key)
        if before.answer is not None:
            return before.answer
        if before.resume:  # it is stored, and may have been changed again since
            stored = (await self._taken_up(call, guid)).desired
            replacing = await self._replacing(call, stored.definition, pace, etag(stored), None)
        else:
            replacing = await self._replacing(call, definition, pace, request.headers.get("If-Match"), key)
        work = self.idempotency.remember(call, key, ReplaceFailed, replacing)
        return await self.waiting.answer(preferences, work, f"replace {guid}", f"/v1/desired_lrps/{guid}")

    async def _replacing(
        self,
        call: Call,
        definition: DesiredLRPDefinition,
        pace: Pace,
        if_match: str | None,
        key: IdempotencyKey | None,
    ) -> Callable[[], Awaitable[web.Response]]:
        """Store the definition, with the key if this request is the first with it. Returns what makes it true."""
        guid = definition.process_guid
        try:
            replaced = await self.replacement.placement.succession.replace(call, definition, if_match, key)
        except DesiredLRPNotFound as absent:
            if if_match is not None:
                raise PreconditionFailed(f"there is no desired LRP {guid}") from absent
            stored = await self.lifecycle.desire(call, definition, key)

            async def place() -> web.Response:
                placed = await self.placement.desire(call, stored.desired, stored.actuals, roll_back=False)
                return told(placed, 201, f"/v1/desired_lrps/{guid}")

            return place

        async def roll() -> web.Response:
            return told(await self.replacement.replace(call, replaced, pace), 200, None)

        return roll

    async def list(self, request: web.Request, call: Call) -> web.StreamResponse:
        """Desired LRPs in order of process_guid, optionally of one domain."""
        return await listed(request, call, self.lists, DESIRED_LRPS, (str,))

    async def get(self, request: web.Request, call: Call) -> web.StreamResponse:
        """One desired LRP with its ETag."""
        guid = ProcessGuid(request.match_info["process_guid"])
        desired = await self.store.read(call, "get_desired_lrp", lambda tx: tx.desired_lrps.get(guid))
        desired = found(desired, DesiredLRPNotFound(f"no desired LRP {guid[:200]}"))
        return tagged(request, answer(desired, extra={"ETag": etag(desired)}))

    async def update(self, request: web.Request, call: Call) -> web.StreamResponse:
        """Change what needs no new containers; answers when the instances are as many as asked, and all changed."""
        preferences = headers.preferences_from(request.headers)
        guid = ProcessGuid(request.match_info["process_guid"])
        body = await read_json(request)
        change = valid(decode(DesiredLRPUpdate, body))
        executed(unsupported_change(change))
        key = self.idempotency.key_of(request, body)
        before = await self.idempotency.before(call, key)
        if before.answer is not None:
            return before.answer
        if before.resume:  # it is stored, and may have been changed again since
            start, stored, if_match = self.placement.resume_update, DesiredLRPUpdate(), None
        else:
            start, stored, if_match = self.placement.update, change, request.headers.get("If-Match")
        updated = await self.lifecycle.update(call, guid, stored, if_match, key)
        call = self._budgeted(request, call, updated.desired.definition.start_timeout_ms)

        async def apply() -> web.Response:
            placed = await start(call, updated, reopen=change.egress_rules is not None)
            return told(placed, 200, None)

        work = self.idempotency.remember(call, key, UpdateFailed, apply)
        return await self.waiting.answer(preferences, work, f"update {guid}", f"/v1/desired_lrps/{guid}")

    async def delete(self, request: web.Request, call: Call) -> web.StreamResponse:
        """Stop all instances and forget the LRP; answers when the containers are gone."""
        preferences = headers.preferences_from(request.headers)
        guid = ProcessGuid(request.match_info["process_guid"])

        async def remove() -> web.Response:
            stopped = await self.placement.delete(call, guid)
            return answer(RemovedLRP(process_guid=guid, stopped=stopped))

        return await self.waiting.answer(preferences, remove(), f"delete {guid}", f"/v1/desired_lrps/{guid}")

    async def _taken_up(self, call: Call, guid: ProcessGuid) -> Desired:
        """What the first request of a key left in the database. Raises DesiredLRPNotFound."""
        return await self.store.run(call, "take_up_lrp", lambda tx: desires.take_up(tx, guid))

    def _budgeted(self, request: web.Request, call: Call, start_timeout_ms: int, rounds: int = 1) -> Call:
        """Starting may take the start timeout on top of the usual budget, unless the caller named a budget."""
        if headers.BUDGET_MS in request.headers:
            return call
        return call.with_budget(self.request_budget_ms + rounds * (start_timeout_ms or DEFAULT_START_TIMEOUT_MS))


def accepted(definition: DesiredLRPDefinition) -> DesiredLRPDefinition:
    """The definition if it is valid and this release executes all of it.

    Raises InvalidSpec with every bad field, or UnsupportedField when being too new for us is all that is wrong.
    """
    invalid, refused = validate(definition), unsupported(definition)
    if invalid:
        raise invalid_fields([*invalid, *refused])
    executed(refused)
    return definition


def executed(refused: Sequence[FieldError]) -> None:
    """Nothing if nothing is refused. Raises UnsupportedField with every field that this release does not execute."""
    if refused:
        told = ", ".join(error.pointer for error in refused[:5])
        raise UnsupportedField(
            f"{len(refused)} field(s) that this release does not execute: {told}",
            errors=[asdict(error) for error in refused],
        )


def valid(noun: T) -> T:
    """The noun if all its fields are within their limits. Raises InvalidSpec with every bad one."""
    if errors := validate(noun):
        raise invalid_fields(errors)
    return noun


def on_failure(request: web.Request) -> str:
    """What a failed create leaves: `keep` or `rollback`. Raises InvalidHeader."""
    choice = request.query.get("on_failure", "keep")
    if choice not in ("keep", "rollback"):
        raise InvalidHeader("on_failure takes keep or rollback")
    return choice


def pace_of(request: web.Request, definition: DesiredLRPDefinition) -> Pace:
    """How a replacement goes on; what the query leaves out is as the definition says. Raises InvalidHeader."""
    text = request.query.get("strategy", str(Strategy.of(definition.update_strategy)))
    if text not in list(Strategy):
        raise InvalidHeader(f"strategy takes one of {', '.join(Strategy)}")
    return Pace(Strategy(text), whole_number(request, "max_in_flight", IN_FLIGHT_DEFAULT, 1, IN_FLIGHT_MAX))


def _rounds(definition: DesiredLRPDefinition, pace: Pace) -> int:
    """How many instances are started one after another at most."""
    together = pace.in_flight if pace.strategy is Strategy.ROLLING else INSTANCES_MAX
    return max(1, -(-definition.instances // together))


def told(placed: Placed, status: int, location: str | None) -> web.Response:
    """An LRP and its instances as an answer."""
    extra = {"ETag": etag(placed.desired)} | ({"Location": location} if location else {})
    return answer(PlacedLRP(desired_lrp=placed.desired, actual_lrps=placed.actuals), status, extra)
