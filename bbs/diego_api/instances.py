"""An instance as Diego tells it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from bbs.diego_api import codec, words
from bbs.diego_api.nouns import ENUMERATIONS
from bbs.store import labels
from bbs.store.told_instances import Mark, ToldInstance
from diego_py.models.actual_lrp import ActualLRPState, Presence

Item = tuple[Mark, bytes]
"""An instance, and its message, delimited."""
RUNNING: Final = ActualLRPState.RUNNING.value
WITHOUT_CELL: Final = (ActualLRPState.UNCLAIMED.value, ActualLRPState.CRASHED.value)
_PRESENCES: Final = ENUMERATIONS[Presence]


def instance(row: ToldInstance) -> dict[str, Any]:
    """An instance, to make an ActualLRP from. In no state but CLAIMED and RUNNING has it a name, as in Diego."""
    (guid, index, presence), state, _ = row.mark
    failure = None if row.document is None else msgspec.json.decode(row.document)
    return {
        "key": {"process_guid": guid, "index": index, "domain": row.domain},
        "instance_key": {}
        if state in WITHOUT_CELL
        else {"instance_guid": row.instance_guid, "cell_id": row.cell_id},
        "net_info": {} if row.net_info is None else msgspec.json.decode(row.net_info),
        "crash_count": row.crash_count,
        "crash_reason": words.crash_reason(row.crash_reason, failure),
        "state": state,
        "placement_error": words.placement_error(row.placement_error, failure, row.placement_tags or ()),
        "since": codec.nanoseconds(row.since),
        "modification_tag": {"epoch": row.tag_epoch, "index": row.tag_index},
        "presence": _PRESENCES[presence],
        "routable": row.routable,
        "availability_zone": row.availability_zone,
        **_labels(row),
    }


def _labels(row: ToldInstance) -> dict[str, Any]:
    """What it has while it runs."""
    if row.labels is None or row.instance_guid is None:
        return {}
    found = labels.decoded(row.labels)
    hostnames = [{"hostname": name} for name in found.hostnames()]
    return {"internal_routes": hostnames, "metric_tags": found.tags(row.mark.place[1], row.instance_guid)}


def groups(items: Iterable[Item]) -> list[bytes]:
    """An index's ordinary row, or the suspect one that serves instead, beside the one that is evacuating."""
    found: dict[tuple[str, int], dict[str, Item]] = {}
    for item in items:
        guid, index, presence = item[0].place
        group = found.setdefault((guid, index), {})
        if presence == Presence.EVACUATING.value:
            group["evacuating"] = item
        elif "instance" not in group or _shown_rather(item[0], group["instance"][0]):
            group["instance"] = item
    return [_group(group) for group in found.values()]


def _shown_rather(mark: Mark, other: Mark) -> bool:
    """Whether `mark` speaks for the index: the ordinary one once it runs, until then the suspect one."""
    ordinary = mark if mark.place[2] == Presence.ORDINARY.value else other
    return (ordinary is mark) == (ordinary.state == RUNNING)


def _group(group: dict[str, Item]) -> bytes:
    fields = (codec.repeated("ActualLRPGroup", name, [item]) for name, (_, item) in group.items())
    return codec.delimited(b"".join(fields))
