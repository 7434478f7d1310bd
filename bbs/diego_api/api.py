"""All of Diego's wire as routes of one listener. Routes that are not here answer 404: docs/diego.md names them."""

from __future__ import annotations

import structlog
from attrs import frozen

from bbs.diego_api.actual_lrps import DiegoActualLRPs
from bbs.diego_api.desired_lrps import DiegoDesiredLRPs
from bbs.diego_api.others import DiegoOthers
from bbs.placement import Placement
from bbs.store.transaction import Store
from diego_py.http.server import Route
from diego_py.service.run import OwnedTasks


@frozen(kw_only=True)
class DiegoParts:
    """What the wire adapts."""

    store: Store
    placement: Placement
    tasks: OwnedTasks
    request_budget_ms: float
    ignored_fields: frozenset[str]
    log: structlog.stdlib.BoundLogger


def routes(parts: DiegoParts) -> list[Route]:
    """Every route there is."""
    desired = DiegoDesiredLRPs(
        store=parts.store,
        lifecycle=parts.placement.lifecycle,
        placement=parts.placement,
        tasks=parts.tasks,
        request_budget_ms=parts.request_budget_ms,
        ignored_fields=parts.ignored_fields,
    )
    actual = DiegoActualLRPs(parts.store, parts.placement, parts.tasks)
    endpoints = [*DiegoOthers(parts.store).endpoints(), *desired.endpoints(), *actual.endpoints()]
    return [endpoint.route(parts.log) for endpoint in endpoints]
