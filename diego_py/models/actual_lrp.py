"""What runs: one instance of a DesiredLRP, and the table of its states. Diego: models/actual_lrp.go."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final

import attrs

from diego_py.models.fields import (
    INVALID,
    REQUIRED,
    CellIdField,
    Count,
    DomainField,
    FieldError,
    InstanceGuidField,
    JsonValue,
    Label,
    Limits,
    NetworkPort,
    ProcessGuidField,
    Text,
)
from diego_py.models.transitions import IllegalTransition as IllegalTransition
from diego_py.models.transitions import next_state
from diego_py.models.workload import ModificationTag

REASON_BYTES_MAX: Final = 64 * 1024
"""A crash_reason or placement_error: one line for people; the whole chain is in `failure`."""

Reason = Annotated[str, Limits(bytes_max=REASON_BYTES_MAX)]


class ActualLRPState(StrEnum):
    """Where an instance is in its life."""

    UNCLAIMED = "UNCLAIMED"
    """Wanted; no cell has it. May have been offered to one."""
    CLAIMED = "CLAIMED"
    """A cell is creating it."""
    RUNNING = "RUNNING"
    """It runs and was healthy once."""
    CRASHED = "CRASHED"
    """The app ended or failed its checks, and waits for its next start."""


class ActualLRPEvent(StrEnum):
    """What happens to an instance."""

    OFFER = "OFFER"
    """The BBS gives it to a cell under a new instance_guid."""
    CLAIM = "CLAIM"
    """The cell takes it, before any process of the user runs."""
    START = "START"
    """It runs and is healthy. A running container beats a claim elsewhere."""
    FAIL = "FAIL"
    """It was not placed or not created. Never counted as a crash."""
    CRASH = "CRASH"
    """The app's own failure."""
    LOSE = "LOSE"
    """Its cell vanished."""
    RETRY = "RETRY"
    """The wait after a crash is over."""
    RESTART = "RESTART"
    """The user wants a new one."""


class Presence(StrEnum):
    """Which of an index's rows this is: each presence has at most one row."""

    ORDINARY = "ORDINARY"
    """The instance: what runs at this index, or waits to."""
    EVACUATING = "EVACUATING"
    """The old one, which keeps serving until its replacement runs: its cell drains, or its definition was replaced."""
    SUSPECT = "SUSPECT"
    """On a cell that does not answer; it may still serve."""


class PresenceEvent(StrEnum):
    """What makes another row of an instance. It moves the row as it is; its state stays."""

    DISPLACE = "DISPLACE"
    """Its replacement is to be started beside it."""
    SUSPECT = "SUSPECT"
    """Its cell vanished while it ran."""
    RECALL = "RECALL"
    """Its replacement did not come to run; it is the instance again."""


class PreferredAddress(StrEnum):
    """Which address routers should use."""

    UNKNOWN = "UNKNOWN"
    INSTANCE = "INSTANCE"
    HOST = "HOST"


TRANSITIONS: Final[Mapping[tuple[ActualLRPState, ActualLRPEvent], ActualLRPState]] = {
    (ActualLRPState.UNCLAIMED, ActualLRPEvent.OFFER): ActualLRPState.UNCLAIMED,
    (ActualLRPState.UNCLAIMED, ActualLRPEvent.CLAIM): ActualLRPState.CLAIMED,
    (ActualLRPState.UNCLAIMED, ActualLRPEvent.START): ActualLRPState.RUNNING,
    (ActualLRPState.CLAIMED, ActualLRPEvent.START): ActualLRPState.RUNNING,
    (ActualLRPState.RUNNING, ActualLRPEvent.START): ActualLRPState.RUNNING,
    (ActualLRPState.UNCLAIMED, ActualLRPEvent.FAIL): ActualLRPState.UNCLAIMED,
    (ActualLRPState.CLAIMED, ActualLRPEvent.FAIL): ActualLRPState.UNCLAIMED,
    (ActualLRPState.CLAIMED, ActualLRPEvent.CRASH): ActualLRPState.CRASHED,
    (ActualLRPState.RUNNING, ActualLRPEvent.CRASH): ActualLRPState.CRASHED,
    (ActualLRPState.CLAIMED, ActualLRPEvent.LOSE): ActualLRPState.UNCLAIMED,
    (ActualLRPState.RUNNING, ActualLRPEvent.LOSE): ActualLRPState.UNCLAIMED,
    (ActualLRPState.CRASHED, ActualLRPEvent.RETRY): ActualLRPState.UNCLAIMED,
    (ActualLRPState.UNCLAIMED, ActualLRPEvent.RESTART): ActualLRPState.UNCLAIMED,
    (ActualLRPState.CLAIMED, ActualLRPEvent.RESTART): ActualLRPState.UNCLAIMED,
    (ActualLRPState.RUNNING, ActualLRPEvent.RESTART): ActualLRPState.UNCLAIMED,
    (ActualLRPState.CRASHED, ActualLRPEvent.RESTART): ActualLRPState.UNCLAIMED,
}


PRESENCES: Final[Mapping[tuple[Presence, PresenceEvent], Presence]] = {
    (Presence.ORDINARY, PresenceEvent.DISPLACE): Presence.EVACUATING,
    (Presence.ORDINARY, PresenceEvent.SUSPECT): Presence.SUSPECT,
    (Presence.EVACUATING, PresenceEvent.RECALL): Presence.ORDINARY,
    (Presence.SUSPECT, PresenceEvent.RECALL): Presence.ORDINARY,
}
"""Of rows that are RUNNING; no other ever leaves ORDINARY. Out of ORDINARY an UNCLAIMED row takes its place; RECALL
removes that one. When it is RUNNING instead, the row beside it is removed with its container."""


def presence_after(presence: Presence, event: PresenceEvent) -> Presence:
    """The presence after `event`. Raises IllegalTransition if PRESENCES does not have the pair."""
    return next_state(PRESENCES, presence, event)


def transition(state: ActualLRPState, event: ActualLRPEvent) -> ActualLRPState:
    """The state after `event`. Raises IllegalTransition, which carries both, if TRANSITIONS does not have the pair."""
    return next_state(TRANSITIONS, state, event)


@attrs.frozen(kw_only=True)
class ActualLRPKey:
    """Which instance is meant, whatever runs it."""

    process_guid: ProcessGuidField
    index: Count
    domain: DomainField


@attrs.frozen(kw_only=True)
class ActualLRPInstanceKey:
    """Which attempt to run it is meant, and where."""

    instance_guid: InstanceGuidField
    cell_id: CellIdField


@attrs.frozen(kw_only=True)
class PortMapping:
    """A port of the container and the port of its host that leads there."""

    container_port: NetworkPort
    host_port: Annotated[int, Limits(minimum=0, maximum=65_535)]
    """0 if there is none and only the instance's own address leads there."""


@attrs.frozen(kw_only=True)
class NetInfo:
    """Where an instance can be reached."""

    address: Text
    """IP address of the cell's host."""
    ports: tuple[PortMapping, ...] = ()
    instance_address: Text = ""
    """IP address of the container."""
    preferred_address: PreferredAddress = PreferredAddress.UNKNOWN
    instance_ipv6_address: Text = ""


@attrs.frozen(kw_only=True)
class ActualLRP:
    """One instance. Its row in the store is named by process_guid, index and presence."""

    process_guid: ProcessGuidField
    index: Count
    domain: DomainField
    state: ActualLRPState
    presence: Presence = Presence.ORDINARY
    instance_guid: InstanceGuidField | None = None
    """The attempt that was offered, claimed or runs."""
    cell_id: CellIdField | None = None
    net_info: NetInfo | None = None
    since: datetime
    """When it came into this state; aware, UTC."""
    crash_count: Count = 0
    crash_reason: Reason | None = None
    placement_error: Reason | None = None
    failure: Mapping[str, JsonValue] | None = None
    """The whole problem document behind crash_reason or placement_error."""
    attempts: Count = 0
    """Placements tried since it last ran."""
    next_attempt_at: datetime | None = None
    """When the next one is due; None if none is needed or it is due now."""
    stop_asked_at: datetime | None = None
    """When somebody deleted its LRP or scaled it down; its row goes when its container has."""
    routable: bool = False
    availability_zone: Label = ""
    revision: Count = 0
    """Which revision of its desired LRP's definition it was given; lower than the LRP's: it runs an old one."""
    modification_tag: ModificationTag

    @property
    def key(self) -> ActualLRPKey:
        """Which instance this is."""
        return ActualLRPKey(process_guid=self.process_guid, index=self.index, domain=self.domain)

    @property
    def instance_key(self) -> ActualLRPInstanceKey | None:
        """Which attempt this is, if a cell has it."""
        if self.instance_guid is None or self.cell_id is None:
            return None
        return ActualLRPInstanceKey(instance_guid=self.instance_guid, cell_id=self.cell_id)

    def rules(self) -> Iterator[FieldError]:
        """What each state needs and excludes. Diego: models/actual_lrp.go Validate; an offered row is our own."""
        placed = self.state in (ActualLRPState.CLAIMED, ActualLRPState.RUNNING)
        running = self.state is ActualLRPState.RUNNING
        if placed and self.instance_key is None:
            yield FieldError("/instance_guid", REQUIRED, f"{self.state} needs instance_guid and cell_id")
        if self.state is ActualLRPState.CRASHED and (self.instance_guid or self.cell_id):
            yield FieldError("/instance_guid", INVALID, "CRASHED has no instance_guid and no cell_id")
        if running and self.net_info is None:
            yield FieldError("/net_info", REQUIRED, "RUNNING needs net_info")
        if not running and self.net_info is not None:
            yield FieldError("/net_info", INVALID, f"{self.state} has no net_info")
        if self.state is not ActualLRPState.UNCLAIMED and self.placement_error:
            yield FieldError("/placement_error", INVALID, f"{self.state} has no placement_error")
        if self.state is ActualLRPState.UNCLAIMED and self.presence is not Presence.ORDINARY:
            yield FieldError("/presence", INVALID, "UNCLAIMED is always ORDINARY")
