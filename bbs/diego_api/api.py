"""All of Diego's wire as routes of one listener. Routes that are not here answer 404: docs/diego.md names them."""

from __future__ import annotations

from collections.abc import Callable

import structlog
from attrs import frozen

from bbs.api.desired_lrps import DEFAULT_START_TIMEOUT_MS
from bbs.diego_api.actual_lrps import DiegoActualLRPs
from bbs.diego_api.desired_lrps import DiegoDesiredLRPs
from bbs.diego_api.domains_and_cells import DiegoDomainsAndCells
from bbs.diego_api.evacuations import RepEvacuations
from bbs.diego_api.rep_instances import RepInstances
from bbs.diego_api.rep_tasks import RepTasks
from bbs.diego_api.tasks import DiegoTasks
from bbs.placement import Placement
from bbs.store.transaction import Store
from bbs.task_callbacks import TaskCallbacks
from bbs.task_placement import TaskPlacement
from diego_py.http.server import Route
from diego_py.service.run import OwnedTasks


@frozen(kw_only=True)
class DiegoParts:
    """What the wire adapts."""

    store: Store
    placement: Placement
    task_placement: TaskPlacement
    callbacks: TaskCallbacks
    tasks: OwnedTasks
    request_budget_ms: float
    ignored_fields: frozenset[str]
    new_guid: Callable[[], str]
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
    tasks = DiegoTasks(
        store=parts.store,
        lifecycle=parts.task_placement.lifecycle,
        placement=parts.task_placement,
        callbacks=parts.callbacks,
        owned=parts.tasks,
        request_budget_ms=parts.request_budget_ms,
        ignored_fields=parts.ignored_fields,
    )
    rep_instances = RepInstances(parts.store, parts.placement.lifecycle, parts.placement)
    evacuations = RepEvacuations(rep_instances, parts.tasks, parts.request_budget_ms + DEFAULT_START_TIMEOUT_MS)
    rep_tasks = RepTasks(
        store=parts.store,
        lifecycle=parts.task_placement.lifecycle,
        placement=parts.task_placement,
        callbacks=parts.callbacks,
        new_guid=parts.new_guid,
    )
    handlers = (DiegoDomainsAndCells(parts.store), desired, actual, tasks, rep_instances, evacuations, rep_tasks)
    return [endpoint.route(parts.log) for handler in handlers for endpoint in handler.endpoints()]
