"""An instance as Diego tells it: its row, and what its LRP or its rep says besides. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from attrs import asdict, field, frozen

from bbs.diego_api import codec, words
from bbs.diego_api.nouns import ENUMERATIONS
from bbs.labels import Labels
from diego_py.models.actual_lrp import ActualLRP, ActualLRPState, NetInfo, PreferredAddress, Presence

WITHOUT_CELL: Final = (ActualLRPState.UNCLAIMED, ActualLRPState.CRASHED)
_PRESENCES: Final = ENUMERATIONS[Presence]
_PREFERRED: Final = ENUMERATIONS[PreferredAddress]


@frozen(kw_only=True)
class Besides:
    """What is told of instances and is not in their rows."""

    of_lrps: Mapping[str, Labels] = field(factory=dict)
    told: Mapping[str, Labels] = field(factory=dict)
    """By instance_guid: what reps told, which counts instead."""
    placement_tags: Mapping[str, Sequence[str]] = field(factory=dict)
    """By LRP: what it asks for, of those that no cell fitted."""

    def labels(self, row: ActualLRP) -> dict[str, Any]:
        """The labels of an instance, which it has while it runs. Those of an LRP that was removed are not known."""
        guid = row.instance_guid
        found = None if guid is None else self.told.get(guid) or self.of_lrps.get(row.process_guid)
        if found is None or guid is None or row.state is not ActualLRPState.RUNNING:
            return {}
        hostnames = [{"hostname": name} for name in found.hostnames()]
        return {"internal_routes": hostnames, "metric_tags": found.tags(row.index, guid)}


def instance(row: ActualLRP, besides: Besides) -> dict[str, Any]:
    """An instance, to make an ActualLRP from. In no state but CLAIMED and RUNNING has it a name, as in Diego."""
    placed = row.state not in WITHOUT_CELL
    asked = besides.placement_tags.get(row.process_guid, ())
    return {
        "key": {"process_guid": row.process_guid, "index": row.index, "domain": row.domain},
        "instance_key": {"instance_guid": row.instance_guid, "cell_id": row.cell_id} if placed else {},
        "net_info": {} if row.net_info is None else _net_info(row.net_info),
        "crash_count": row.crash_count,
        "crash_reason": words.crash_reason(row.crash_reason, row.failure),
        "state": row.state.value,
        "placement_error": words.placement_error(row.placement_error, row.failure, asked),
        "since": codec.nanoseconds(row.since),
        "modification_tag": {"epoch": row.modification_tag.epoch, "index": row.modification_tag.index},
        "presence": _PRESENCES[row.presence.value],
        "routable": row.routable,
        "availability_zone": row.availability_zone,
        **besides.labels(row),
    }


def groups(rows: Sequence[ActualLRP], besides: Besides) -> list[dict[str, Any]]:
    """An index's ordinary row, or the suspect one that serves instead, beside the one that is evacuating."""
    found: dict[tuple[str, int], dict[str, ActualLRP]] = {}
    for row in rows:
        group = found.setdefault((row.process_guid, row.index), {})
        if row.presence is Presence.EVACUATING:
            group["evacuating"] = row
        elif "instance" not in group or _shown_rather(row, group["instance"]):
            group["instance"] = row
    return [{name: instance(row, besides) for name, row in group.items()} for group in found.values()]


def _shown_rather(row: ActualLRP, other: ActualLRP) -> bool:
    """Whether `row` speaks for the index: the ordinary one once it runs, until then the suspect one."""
    ordinary = row if row.presence is Presence.ORDINARY else other
    return (ordinary is row) == (ordinary.state is ActualLRPState.RUNNING)


def _net_info(net_info: NetInfo) -> dict[str, Any]:
    return {
        "address": net_info.address,
        "ports": [asdict(port) for port in net_info.ports],
        "instance_address": net_info.instance_address,
        "preferred_address": _PREFERRED[net_info.preferred_address.value],
        "instance_ipv6_address": net_info.instance_ipv6_address,
    }
