"""Instances on Diego's wire."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import asdict, define
from google.protobuf.message import Message

from bbs.diego_api import codec, words
from bbs.diego_api.descriptors import MESSAGES
from bbs.diego_api.endpoint import Endpoint
from bbs.diego_api.errors import invalid
from bbs.diego_api.nouns import ENUMERATIONS
from bbs.diego_api.requests import guid_of, guids_of, index_of, text_of
from bbs.placement import Placement
from bbs.store import actual_lrps
from bbs.store.transaction import Store, Transaction
from diego_py.call import Call
from diego_py.errors import ActualLRPNotFound
from diego_py.models.actual_lrp import ActualLRP, ActualLRPState, NetInfo, PreferredAddress, Presence
from diego_py.service.run import OwnedTasks

PAGE = 500
WITHOUT_CELL = (ActualLRPState.UNCLAIMED, ActualLRPState.CRASHED)
_PRESENCES = ENUMERATIONS[Presence]
_PREFERRED = ENUMERATIONS[PreferredAddress]


@define
class DiegoActualLRPs:
    """Handlers of instances."""

    store: Store
    placement: Placement
    tasks: OwnedTasks

    def endpoints(self) -> list[Endpoint]:
        path = "/v1/actual_lrps"
        return [
            Endpoint(
                f"{path}/list", "diego_list_actual_lrps", "ActualLRPsRequest", "ActualLRPsResponse", self.list_rows
            ),
            Endpoint(
                f"{path}/list_by_process_guids",
                "diego_list_actual_lrps_by_guids",
                "ActualLRPsByProcessGuidsRequest",
                "ActualLRPsResponse",
                self.list_by_process_guids,
            ),
            Endpoint(
                f"{path}/retire",
                "diego_retire_actual_lrp",
                "RetireActualLRPRequest",
                "ActualLRPLifecycleResponse",
                self.retire,
            ),
            Endpoint(
                "/v1/actual_lrp_groups/list",
                "diego_list_groups",
                "ActualLRPGroupsRequest",
                "ActualLRPGroupsResponse",
                self.list_groups,
            ),
            Endpoint(
                "/v1/actual_lrp_groups/list_by_process_guid",
                "diego_list_groups_by_guid",
                "ActualLRPGroupsByProcessGuidRequest",
                "ActualLRPGroupsResponse",
                self.list_groups_by_guid,
            ),
            Endpoint(
                "/v1/actual_lrp_groups/get_by_process_guid_and_index",
                "diego_get_group",
                "ActualLRPGroupByProcessGuidAndIndexRequest",
                "ActualLRPGroupResponse",
                self.get_group,
            ),
        ]

    async def list_rows(self, request: Any, call: Call) -> bytes:
        """Rows of every presence; filters are ANDed."""
        wanted = actual_lrps.Filter(
            process_guid=text_of(request.process_guid, "process_guid") or None,
            domain=text_of(request.domain, "domain") or None,
            cell_id=text_of(request.cell_id, "cell_id") or None,
        )
        index = index_of(request.index) if request.HasField("index") else None
        parts: list[bytes] = []
        after: actual_lrps.Cursor | None = None
        while True:
            page = await self._page(call, wanted, after)
            rows = [row for row in page if index is None or row.index == index]
            parts.append(await self._response(call, rows))
            if len(page) < PAGE:
                return b"".join(parts)
            after = (page[-1].process_guid, page[-1].index, page[-1].presence.value)

    async def list_by_process_guids(self, request: Any, call: Call) -> bytes:
        """Rows of these LRPs, which must be named."""
        guids = guids_of(request.process_guids)
        if not guids:
            raise invalid("process_guids")
        return await self._response(call, await self._rows_of(call, sorted(set(guids))))

    async def retire(self, request: Any, call: Call) -> Message:
        """Begin to stop an instance; as long as it is desired, a new one is made."""
        if not request.HasField("actual_lrp_key"):
            raise invalid("actual_lrp_key")
        guid, index = guid_of(request.actual_lrp_key), index_of(request.actual_lrp_key.index)
        row = await self.store.read(call, "get_actual_lrp", lambda tx: tx.actual_lrps.get(guid, index))
        if row is None:
            raise ActualLRPNotFound(f"no instance {guid}/{index}")
        if row.state in WITHOUT_CELL:
            await self.placement.stop(call, row)
        else:
            self.tasks.begin(self.placement.stop(call, row), f"retire {guid}/{index}")
        return _lifecycle_response()

    async def list_groups(self, request: Any, call: Call) -> Message:
        wanted = actual_lrps.Filter(
            domain=text_of(request.domain, "domain") or None, cell_id=text_of(request.cell_id, "cell_id") or None
        )
        rows: list[ActualLRP] = []
        while True:
            after = (rows[-1].process_guid, rows[-1].index, rows[-1].presence.value) if rows else None
            page = await self._page(call, wanted, after)
            rows += page
            if len(page) < PAGE:
                return await self._groups(call, rows)

    async def list_groups_by_guid(self, request: Any, call: Call) -> Message:
        return await self._groups(call, await self._rows_of(call, [guid_of(request)]))

    async def get_group(self, request: Any, call: Call) -> Message:
        guid, index = guid_of(request), index_of(request.index)
        rows = [row for row in await self._rows_of(call, [guid]) if row.index == index]
        if not rows:
            raise ActualLRPNotFound(f"no instance {guid}/{index}")
        groups: Any = await self._groups(call, rows)
        return MESSAGES["ActualLRPGroupResponse"](actual_lrp_group=groups.actual_lrp_groups[0])

    async def _groups(self, call: Call, rows: Sequence[ActualLRP]) -> Message:
        """An index's ordinary row, or the suspect one that serves instead, beside the one that is evacuating."""
        tags = await self._tags(call, rows)
        groups: dict[tuple[str, int], dict[str, ActualLRP]] = {}
        for row in rows:
            group = groups.setdefault((row.process_guid, row.index), {})
            if row.presence is Presence.EVACUATING:
                group["evacuating"] = row
            elif "instance" not in group or _shown_rather(row, group["instance"]):
                group["instance"] = row
        told = [{name: instance(row, tags) for name, row in group.items()} for group in groups.values()]
        return MESSAGES["ActualLRPGroupsResponse"](actual_lrp_groups=told)

    async def _page(
        self, call: Call, wanted: actual_lrps.Filter, after: actual_lrps.Cursor | None
    ) -> Sequence[ActualLRP]:
        return await self.store.read(
            call, "list_actual_lrps", lambda tx: tx.actual_lrps.list_page(wanted, after, PAGE, with_failure=True)
        )

    async def _rows_of(self, call: Call, guids: Sequence[str]) -> list[ActualLRP]:
        async def look(tx: Transaction) -> list[ActualLRP]:
            return [row for guid in guids for row in await tx.actual_lrps.list_of(guid, with_failure=True)]

        return await self.store.read(call, "list_actual_lrps", look)

    async def _response(self, call: Call, rows: Sequence[ActualLRP]) -> bytes:
        tags = await self._tags(call, rows)
        return codec.listed("ActualLRPsResponse", "actual_lrps", (instance(row, tags) for row in rows))

    async def _tags(self, call: Call, rows: Sequence[ActualLRP]) -> Mapping[str, Sequence[str]]:
        """The placement tags of those that no cell fitted: the words for that name them."""
        guids = sorted({row.process_guid for row in rows if row.placement_error is not None})

        async def look(tx: Transaction) -> dict[str, Sequence[str]]:
            found = {guid: await tx.desired_lrps.get(guid) for guid in guids}
            return {guid: desired.definition.placement_tags for guid, desired in found.items() if desired is not None}

        return await self.store.read(call, "placement_tags", look) if guids else {}


def instance(row: ActualLRP, tags: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """An instance, to make an ActualLRP from. In no state but CLAIMED and RUNNING has it a name, as in Diego."""
    placed = row.state not in WITHOUT_CELL
    return {
        "key": {"process_guid": row.process_guid, "index": row.index, "domain": row.domain},
        "instance_key": {"instance_guid": row.instance_guid, "cell_id": row.cell_id} if placed else {},
        "net_info": {} if row.net_info is None else _net_info(row.net_info),
        "crash_count": row.crash_count,
        "crash_reason": words.crash_reason(row.crash_reason, row.failure),
        "state": row.state.value,
        "placement_error": words.placement_error(row.placement_error, row.failure, tags.get(row.process_guid, ())),
        "since": codec.nanoseconds(row.since),
        "modification_tag": {"epoch": row.modification_tag.epoch, "index": row.modification_tag.index},
        "presence": _PRESENCES[row.presence.value],
        "routable": row.routable,
        "availability_zone": row.availability_zone,
    }


def _net_info(net_info: NetInfo) -> dict[str, Any]:
    return {
        "address": net_info.address,
        "ports": [asdict(port) for port in net_info.ports],
        "instance_address": net_info.instance_address,
        "preferred_address": _PREFERRED[net_info.preferred_address.value],
        "instance_ipv6_address": net_info.instance_ipv6_address,
    }


def _shown_rather(row: ActualLRP, other: ActualLRP) -> bool:
    """Whether `row` speaks for the index: the ordinary one once it runs, until then the suspect one."""
    ordinary = row if row.presence is Presence.ORDINARY else other
    return (ordinary is row) == (ordinary.state is ActualLRPState.RUNNING)


def _lifecycle_response() -> Message:
    message: Message = MESSAGES["ActualLRPLifecycleResponse"]()
    return message
