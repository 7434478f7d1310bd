"""Desired LRPs on Diego's wire. A change is answered once it is stored; the cascade goes on."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from functools import partial
from typing import Any

import msgspec
from attrs import define, field
from google.protobuf.message import Message

from bbs.api.desired_lrps import DEFAULT_START_TIMEOUT_MS, executed, valid
from bbs.api.desired_lrps import accepted as native_accepted
from bbs.diego_api import codec, versions
from bbs.diego_api.descriptors import MESSAGES
from bbs.diego_api.encoded import EncodedLRPs, View
from bbs.diego_api.endpoint import Endpoint
from bbs.diego_api.errors import invalid
from bbs.diego_api.pages import PAGE, pages
from bbs.diego_api.requests import accepted_fields, guid_of, guids_of, text_of
from bbs.lifecycle import Lifecycle
from bbs.placement import Placement
from bbs.store.desired_lrps import Filter, StoredLRP
from bbs.store.transaction import Store
from diego_py.call import Call
from diego_py.errors import DesiredLRPNotFound
from diego_py.models.desired_lrp import DesiredLRPDefinition, DesiredLRPUpdate
from diego_py.models.identifiers import ProcessGuid
from diego_py.models.supported import unsupported_change
from diego_py.models.workload import MetricTagValue, ModificationTag
from diego_py.secret import Secret
from diego_py.service.run import OwnedTasks
from diego_py.wire import convert


@define
class DiegoDesiredLRPs:
    """Handlers of desired LRPs."""

    store: Store
    lifecycle: Lifecycle
    placement: Placement
    tasks: OwnedTasks
    request_budget_ms: float
    ignored_fields: frozenset[str]
    _encoded: EncodedLRPs = field(factory=EncodedLRPs, init=False)

    def endpoints(self) -> list[Endpoint]:
        path, changed = "/v1/desired_lrps", "DesiredLRPLifecycleResponse"
        lists = ("diego_list_desired_lrps", "DesiredLRPsRequest", "DesiredLRPsResponse")
        one = ("diego_get_desired_lrp", "DesiredLRPByProcessGuidRequest", "DesiredLRPResponse")
        return [
            Endpoint(f"{path}/list.r2", *lists, partial(self.list_whole, view=whole_r2)),
            Endpoint(f"{path}/list.r3", *lists, partial(self.list_whole, view=whole)),
            Endpoint(f"{path}/get_by_process_guid.r2", *one, partial(self.get, view=whole_r2)),
            Endpoint(f"{path}/get_by_process_guid.r3", *one, partial(self.get, view=whole)),
            Endpoint(
                "/v1/desired_lrp_scheduling_infos/list",
                "diego_list_scheduling_infos",
                "DesiredLRPsRequest",
                "DesiredLRPSchedulingInfosResponse",
                self.list_scheduling_infos,
            ),
            Endpoint(
                "/v1/desired_lrp_scheduling_infos/get_by_process_guid",
                "diego_get_scheduling_info",
                "DesiredLRPByProcessGuidRequest",
                "DesiredLRPSchedulingInfoByProcessGuidResponse",
                self.get_scheduling_info,
            ),
            Endpoint(
                "/v1/desired_lrp_routing_infos/list",
                "diego_list_routing_infos",
                "DesiredLRPsRequest",
                "DesiredLRPsResponse",
                self.list_routing_infos,
            ),
            Endpoint("/v1/desired_lrp/desire.r2", "diego_desire_lrp", "DesireLRPRequest", changed, self.desire),
            Endpoint("/v1/desired_lrp/update", "diego_update_lrp", "UpdateDesiredLRPRequest", changed, self.update),
            Endpoint("/v1/desired_lrp/remove", "diego_remove_lrp", "RemoveDesiredLRPRequest", changed, self.remove),
        ]

    async def list_whole(self, request: Any, call: Call, view: View) -> bytes:
        return await self._listed(request, call, "DesiredLRPsResponse", "desired_lrps", view)

    async def list_scheduling_infos(self, request: Any, call: Call) -> bytes:
        name = "DesiredLRPSchedulingInfosResponse"
        return await self._listed(request, call, name, "desired_lrp_scheduling_infos", scheduling_info)

    async def list_routing_infos(self, request: Any, call: Call) -> bytes:
        return await self._listed(request, call, "DesiredLRPsResponse", "desired_lrps", routing_info)

    async def get(self, request: Any, call: Call, view: View) -> Message:
        found = await self._one(call, guid_of(request))
        return MESSAGES["DesiredLRPResponse"](desired_lrp=view(found))

    async def get_scheduling_info(self, request: Any, call: Call) -> Message:
        found = scheduling_info(await self._one(call, guid_of(request)))
        return MESSAGES["DesiredLRPSchedulingInfoByProcessGuidResponse"](desired_lrp_scheduling_info=found)

    async def desire(self, request: Any, call: Call) -> None:
        """Store the LRP and begin to start its instances; what comes of that is told by the instances."""
        if not request.HasField("desired_lrp"):
            raise invalid("desired_lrp")
        definition = accepted_fields(codec.model(DesiredLRPDefinition, request.desired_lrp), self.ignored_fields)
        definition = native_accepted(definition)
        call = self._budgeted(call, definition.start_timeout_ms)
        stored = await self.lifecycle.desire(call, definition)
        placing = self.placement.desire(call, stored.desired, stored.actuals, roll_back=False)
        self._go_on(placing, f"desire {definition.process_guid}")

    async def update(self, request: Any, call: Call) -> None:
        """Store the change and begin to make it true."""
        guid = guid_of(request)
        change = valid(_change(request.update))
        executed(unsupported_change(change))
        updated = await self.lifecycle.update(call, guid, change)
        call = self._budgeted(call, updated.desired.definition.start_timeout_ms)
        self._go_on(self.placement.update(call, updated, reopen=False), f"update {guid}")

    async def remove(self, request: Any, call: Call) -> None:
        """Forget the LRP and begin to stop its instances."""
        guid = guid_of(request)
        await self.lifecycle.undesire(call, guid)
        self._go_on(self._finish_removal(call, guid), f"remove {guid}")

    async def _finish_removal(self, call: Call, guid: ProcessGuid) -> None:
        try:
            await self.placement.delete(call, guid)
        except DesiredLRPNotFound:
            return  # no instance was left to be stopped

    def _go_on(self, work: Coroutine[Any, Any, Any], name: str) -> None:
        """The equivalent of `Prefer: respond-async`. What fails is stored with the instances by whoever it fails."""
        self.tasks.begin(work, name)

    def _budgeted(self, call: Call, start_timeout_ms: int) -> Call:
        return call.with_budget(self.request_budget_ms + (start_timeout_ms or DEFAULT_START_TIMEOUT_MS))

    async def _listed(self, request: Any, call: Call, name: str, key: str, view: View) -> bytes:
        """A response of very many: each page is encoded as it comes, and messages that follow each other are one."""
        wanted = Filter(
            domain=text_of(request.domain, "domain") or None,
            process_guids=guids_of(request.process_guids) or None,
            prefixes=guids_of(request.app_guids) or None,
        )
        parts = [
            self._encoded.listed(name, key, view, page)
            async for page in pages(partial(self._page, call, wanted), lambda stored: stored.process_guid)
        ]
        return b"".join(parts)

    async def _page(self, call: Call, wanted: Filter, after: str | None) -> Sequence[StoredLRP]:
        return await self.store.read(
            call, "list_desired_lrps", lambda tx: tx.desired_lrps.list_stored(wanted, after, PAGE)
        )

    async def _one(self, call: Call, guid: ProcessGuid) -> StoredLRP:
        wanted = Filter(process_guids=[guid])
        found = await self.store.read(call, "get_desired_lrp", lambda tx: tx.desired_lrps.list_stored(wanted, None, 1))
        if not found:
            raise DesiredLRPNotFound(f"no desired LRP {guid}")
        return found[0]


def whole(stored: StoredLRP) -> dict[str, Any]:
    """All of it."""
    return _whole(stored, msgspec.json.decode(stored.definition))


def whole_r2(stored: StoredLRP) -> dict[str, Any]:
    """All of it, for who knows no layers of images."""
    return _whole(stored, versions.lrp_without_layers(msgspec.json.decode(stored.definition)))


def _whole(stored: StoredLRP, definition: dict[str, Any]) -> dict[str, Any]:
    told = codec.outward(versions.with_metrics_guid(definition))
    told["modification_tag"] = _tag(stored.modification_tag)
    return told


def routing_info(stored: StoredLRP) -> dict[str, Any]:
    """What routers need."""
    definition = msgspec.json.decode(stored.definition)
    return {
        **{key: definition[key] for key in ("process_guid", "domain", "log_guid", "instances", "metric_tags")},
        "routes": codec.proto_routes(definition["routes"]),
        "modification_tag": _tag(stored.modification_tag),
    }


def scheduling_info(stored: StoredLRP) -> dict[str, Any]:
    """What decides where it goes."""
    definition = msgspec.json.decode(stored.definition)
    resource = ("memory_mb", "disk_mb", "rootfs", "max_pids")
    return {
        "key": {key: definition[key] for key in ("process_guid", "domain", "log_guid")},
        "annotation": definition["annotation"],
        "instances": definition["instances"],
        "resource": {key: definition[key] for key in resource},
        "routes": codec.proto_routes(definition["routes"]),
        "modification_tag": _tag(stored.modification_tag),
        "volume_placement": {"driver_names": [mount["driver"] for mount in definition["volume_mounts"]]},
        "placement_tags": definition["placement_tags"],
    }


def _tag(tag: ModificationTag) -> dict[str, Any]:
    return {"epoch": tag.epoch, "index": tag.index}


def _change(update: Any) -> DesiredLRPUpdate:
    """What a DesiredLRPUpdate changes; what it leaves out stays."""
    told: dict[str, Any] = {}
    for key in ("instances", "annotation", "image_username"):
        if update.HasField(key):
            told[key] = getattr(update, key)
    if update.HasField("image_password"):
        told["image_password"] = Secret(update.image_password)
    if update.HasField("routes"):
        told["routes"] = codec.routes(update.routes)
    if update.metric_tags:
        tags = {name: codec.builtins(MetricTagValue, value) for name, value in update.metric_tags.items()}
        told["metric_tags"] = convert(dict[str, MetricTagValue], tags)
    return DesiredLRPUpdate(**told)
