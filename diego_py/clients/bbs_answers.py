"""What the BBS answers beside the models: nouns of its API that no other process needs."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from attrs import field, frozen

from diego_py.models.actual_lrp import ActualLRP
from diego_py.models.desired_lrp import DesiredLRP


@frozen(kw_only=True)
class Placed:
    """A desired LRP and its instances, all of them as they were asked to be."""

    desired_lrp: DesiredLRP
    actual_lrps: tuple[ActualLRP, ...]


@frozen(kw_only=True)
class Deleted:
    """A desired LRP that is gone, and how many of its containers were stopped for it."""

    process_guid: str
    stopped: int = 0


@frozen(kw_only=True)
class Amount:
    """Of what cells have: megabytes of memory and disk, and a number of containers."""

    memory_mb: int = 0
    disk_mb: int = 0
    containers: int = 0


@frozen(kw_only=True)
class CellStatus:
    """A cell as the BBS knows it now."""

    cell_id: str
    zone: str = ""
    url: str = ""
    address: str = ""
    live: bool = False
    draining: bool = False
    capacity: Amount = Amount()
    available: Amount = Amount()
    instances: int = 0
    seen_at: str | None = None
    expires_at: str | None = None


@frozen(kw_only=True)
class LogLine:
    """One line that a process of the instance wrote."""

    at: str | None = None
    stream: str = "stdout"
    text: str = ""
    source: str = ""
    """What its process is marked with, its `log_source`."""


@frozen(kw_only=True)
class StoredFailure:
    """A failure that the BBS keeps; `document` is what was answered then."""

    id: str
    created_at: str
    code: str
    fault: str
    task_guid: str | None = None
    process_guid: str | None = None
    index: int | None = None
    instance_guid: str | None = None
    cell_id: str | None = None
    phase: str | None = None
    document: dict[str, Any] = field(factory=dict)


@frozen(kw_only=True)
class Decision:
    """What convergence decided about one instance or task that is not as desired."""

    decision: str
    """`held`, or the repair that was begun."""
    reason: str
    process_guid: str | None = None
    index: int | None = None
    presence: str | None = None
    task_guid: str | None = None
    cell_id: str | None = None
    due_at: datetime | None = None
    """When it is looked at again, if nothing happens before."""


@frozen(kw_only=True)
class Decisions:
    """What convergence decided in its last round, as far as it was asked for."""

    leader: str = ""
    epoch: int = 0
    decided_at: datetime | None = None
    """None: no round yet."""
    valve: str = ""
    """Why nothing on vanished cells is replaced, if that is so."""
    items: tuple[Decision, ...] = ()
    omitted: int = 0


@frozen(kw_only=True)
class PlannedInstance:
    """Where an instance would go now. The first ones, and the first without a cell, say why in `placement`."""

    index: int
    cell_id: str | None = None
    score: float | None = None
    """Of that cell: lower is better."""
    placement: dict[str, Any] = field(factory=dict)
