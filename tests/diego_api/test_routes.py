"""Each route: what it answers when all is well, and each error that it can give. Without cells."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import aiohttp
import pytest

from bbs.config import DiegoWireConfig
from tests.chain.installation import Installation
from tests.chain.proxy import Proxy, to_socket
from tests.chain.test_postgres import SOCKET
from tests.diego_api.client import ROUTES, DiegoClient, lrp, run, task

pytestmark = pytest.mark.chain

EVENTS = ("/v1/events", "/v1/events.r1", "/v1/events/tasks", "/v1/events/lrp_instances", "/v1/events/lrp_instances.r1")


@pytest.fixture
async def database(database_dsn: str, open_directory: Path) -> AsyncIterator[Proxy]:
    """What the BBS goes through to get to Postgres."""
    (directory,) = parse_qs(urlsplit(database_dsn).query)["host"]
    async with Proxy(to_socket(Path(directory) / SOCKET), open_directory / SOCKET) as proxy:
        yield proxy


@pytest.fixture
async def installation(open_directory: Path, database_dsn: str, database: Proxy) -> AsyncIterator[Installation]:
    name, host = urlsplit(database_dsn).path.removeprefix("/"), quote(str(open_directory), safe="")
    dsn = f"postgresql://postgres@/{name}?host={host}&port=5432"
    async with Installation(open_directory, open_directory, dsn) as made:
        wire = DiegoWireConfig(listen_port=0, ignored_fields=("network", "certificate_properties"))
        await made.start_bbs(diego=wire)
        yield made
        assert made.defects() == []


async def test_ping(bbs: DiegoClient) -> None:
    assert await bbs.ask("/v1/ping") == {"available": True}


async def test_not_ready_is_a_bare_503(bbs: DiegoClient, database: Proxy) -> None:
    await database.refuse()
    for path in ("/v1/ping", "/v1/desired_lrps/list.r3", "/v1/tasks/list.r3"):
        status, _, body = await bbs.raw(path, b"")
        assert (status, body) == (503, b"")


async def test_unknown_routes_and_event_streams_are_404(bbs: DiegoClient) -> None:
    for path in (*EVENTS, "/v1/actual_lrps/list.r9", "/v2/ping"):
        assert (await bbs.raw(path, b""))[0] == 404
    async with aiohttp.ClientSession() as session, session.get(bbs.url + "/v1/events") as response:
        assert response.status == 404
    async with aiohttp.ClientSession() as session, session.get(bbs.url + "/v1/desired_lrps") as response:
        assert response.status == 404, "the native API is on its own socket"


async def test_bodies_that_are_no_messages(bbs: DiegoClient) -> None:
    for path, (takes, _) in ROUTES.items():
        if takes is not None:
            status, kind, body = await bbs.raw(path, b"\xff\xff\xff")
            assert (status, kind) == (200, "application/x-protobuf")
            assert body.startswith(b"\x0a"), path
            assert b"\x08\x06" in body, f"{path}: InvalidProtobufMessage"


async def test_random_bodies_are_answered_cleanly(bbs: DiegoClient) -> None:
    source = random.Random(7)
    paths = sorted(ROUTES)
    for _ in range(300):
        path = source.choice(paths)
        status, kind, _ = await bbs.raw(path, source.randbytes(source.randrange(40)))
        assert (status, kind) == (200, "application/x-protobuf"), path


async def test_domains(bbs: DiegoClient) -> None:
    await bbs.ask("/v1/domains/upsert", {"domain": "cf-apps", "ttl": 120})
    await bbs.ask("/v1/domains/upsert", {"domain": "forever"})
    await bbs.ask("/v1/domains/upsert", {"domain": "longest", "ttl": 2**32 - 1})
    assert (await bbs.ask("/v1/domains/list"))["domains"] == ["cf-apps", "forever", "longest"]
    assert await bbs.refusal("/v1/domains/upsert", {}) == ("InvalidRequest", "Invalid field: domain")
    assert (await bbs.refusal("/v1/domains/upsert", {"domain": "a\0b"}))[0] == "InvalidRequest"


async def test_cells_without_any(bbs: DiegoClient) -> None:
    assert (await bbs.ask("/v1/cells/list.r1"))["cells"] == []


async def test_what_is_not_there(bbs: DiegoClient) -> None:
    guid, key = {"process_guid": "none"}, {"process_guid": "none", "index": 0, "domain": "d"}
    instance = {"instance_guid": "i", "cell_id": "c"}
    both = {"actual_lrp_key": key, "actual_lrp_instance_key": instance}
    net = {"actual_lrp_net_info": {"address": "10.0.0.1"}}
    one = {**guid, "index": 0, "actual_lrp_instance_key": instance}
    job = {"task_guid": "none"}
    missing: dict[str, dict[str, Any]] = {
        "/v1/desired_lrps/get_by_process_guid.r2": guid,
        "/v1/desired_lrps/get_by_process_guid.r3": guid,
        "/v1/desired_lrp_scheduling_infos/get_by_process_guid": guid,
        "/v1/desired_lrp/update": {**guid, "update": {"instances": 1}},
        "/v1/desired_lrp/remove": guid,
        "/v1/actual_lrps/retire": {"actual_lrp_key": key},
        "/v1/actual_lrp_groups/get_by_process_guid_and_index": {**guid, "index": 0},
        "/v1/actual_lrps/claim": one,
        "/v1/actual_lrps/remove": one,
        "/v1/actual_lrps/crash": both,
        "/v1/actual_lrps/fail": {"actual_lrp_key": key, "error_message": "x"},
        "/v1/actual_lrps/evacuate_crashed": both,
        "/v1/tasks/get_by_task_guid.r2": job,
        "/v1/tasks/get_by_task_guid.r3": job,
        "/v1/tasks/cancel": job,
        "/v1/tasks/resolving": job,
        "/v1/tasks/delete": job,
        "/v1/tasks/start": {**job, "cell_id": "c"},
        "/v1/tasks/fail": {**job, "failure_reason": "x"},
        "/v1/tasks/reject": {**job, "rejection_reason": "x"},
        "/v1/tasks/complete": {**job, "cell_id": "c"},
    }
    for path, request in missing.items():
        assert (await bbs.refusal(path, request))[0] == "ResourceNotFound", path
    for path in ("/v1/actual_lrps/start", "/v1/actual_lrps/start.r1"):
        assert (await bbs.refusal(path, {**both, **net}))[0] == "ActualLRPCannotBeStarted"
    for kind in ("claimed", "stopped", "running", "running.r1"):
        assert await bbs.ask(f"/v1/actual_lrps/evacuate_{kind}", both) == {"keep_container": False}
    await bbs.ask("/v1/actual_lrps/remove_evacuating", both)


async def test_requests_without_what_they_need(bbs: DiegoClient) -> None:
    key = {"process_guid": "web", "index": 0, "domain": "d"}
    both = {"actual_lrp_key": key, "actual_lrp_instance_key": {"instance_guid": "i", "cell_id": "c"}}
    needed = {
        "/v1/actual_lrps/list_by_process_guids": ({}, "process_guids"),
        "/v1/actual_lrps/list": ({"index": -1}, "index"),
        "/v1/actual_lrps/retire": ({}, "actual_lrp_key"),
        "/v1/actual_lrps/claim": ({"process_guid": "web"}, "actual_lrp_instance_key"),
        "/v1/actual_lrps/start": (both, "actual_lrp_net_info"),
        "/v1/actual_lrps/start.r1": ({"actual_lrp_key": key}, "actual_lrp_instance_key"),
        "/v1/actual_lrps/crash": ({}, "actual_lrp_key"),
        "/v1/actual_lrps/fail": ({"actual_lrp_key": key}, "error_message"),
        "/v1/actual_lrps/remove": ({"process_guid": "web"}, "instance_guid"),
        "/v1/actual_lrps/evacuate_running": ({}, "actual_lrp_key"),
        "/v1/desired_lrps/get_by_process_guid.r3": ({}, "process_guid"),
        "/v1/desired_lrps/list.r3": ({"domain": "a\0b"}, "domain"),
        "/v1/desired_lrp/desire.r2": ({}, "desired_lrp"),
        "/v1/desired_lrp/update": ({}, "process_guid"),
        "/v1/desired_lrp/remove": ({"process_guid": "a b"}, "process_guid"),
        "/v1/tasks/cancel": ({}, "task_guid"),
        "/v1/tasks/reject": ({"task_guid": "job"}, "rejection_reason"),
        "/v1/tasks/fail": ({"task_guid": "job"}, "failure_reason"),
    }
    for path, (request, field) in needed.items():
        assert await bbs.refusal(path, request) == ("InvalidRequest", f"Invalid field: {field}"), path


LISTS = {path for path in ROUTES if path.rpartition("/")[2].partition(".")[0] == "list"}


async def test_an_empty_request_is_refused_where_something_must_be_named(bbs: DiegoClient) -> None:
    for path, (takes, _) in ROUTES.items():
        if takes is not None and path not in LISTS:
            kind, message = await bbs.refusal(path, {})
            assert (kind, message.startswith("Invalid field: ")) == ("InvalidRequest", True), path


async def test_bad_definitions_are_told_field_by_field(bbs: DiegoClient) -> None:
    bad = lrp("a b", instances=-1, action={"run_action": {"path": "", "user": "vcap"}})
    kind, message = await bbs.refusal("/v1/desired_lrp/desire.r2", {"desired_lrp": bad})
    assert kind == "InvalidRequest"
    told = [part.split(" (")[0] for part in message.split(", Invalid")]
    assert told == ["Invalid field: process_guid", " field: instances", " field: path"]
    unsupported = lrp(trusted_system_certificates_path="/etc/certs")
    kind, message = await bbs.refusal("/v1/desired_lrp/desire.r2", {"desired_lrp": unsupported})
    assert kind == "InvalidRequest"
    assert message.startswith("Invalid field: trusted_system_certificates_path (is not supported by this release")
    kind, message = await bbs.refusal("/v1/tasks/desire.r2", {"task_guid": "job", "domain": "d"})
    assert (kind, message.split(" (")[0]) == ("InvalidRequest", "Invalid field: task_definition")
    update = {"image_username": "x"}
    kind, _ = await bbs.refusal("/v1/desired_lrp/update", {"process_guid": "web", "update": update})
    assert kind == "InvalidRequest"
    assert await bbs.desired_lrps() == []


async def test_what_the_operator_lets_be_ignored_is_left_out(bbs: DiegoClient) -> None:
    sent = {"network": {"properties": {"a": "b"}}, "certificate_properties": {"organizational_unit": ["x"]}}
    await bbs.desire(lrp(instances=0, **sent))
    await bbs.ask("/v1/tasks/desire.r2", task(**sent))
    (desired,) = await bbs.desired_lrps()
    definition = (await bbs.task("job"))["task_definition"]
    for told in (desired, definition):
        assert (told["network"], told["certificate_properties"]) == (None, None)


async def test_the_old_name_of_a_source(bbs: DiegoClient) -> None:
    await bbs.desire(lrp(instances=0, metrics_guid="app", metric_tags={"index": {"dynamic": 1}}))
    (desired,) = await bbs.desired_lrps()
    assert desired["metrics_guid"] == "app"
    assert desired["metric_tags"]["source_id"] == {"static": "app", "dynamic": 0}
    assert desired["metric_tags"]["index"] == {"static": "", "dynamic": 1}
    other = lrp("other", metrics_guid="one", metric_tags={"source_id": {"static": "another"}})
    assert (await bbs.refusal("/v1/desired_lrp/desire.r2", {"desired_lrp": other}))[0] == "InvalidRequest"


async def test_what_exists_already(bbs: DiegoClient) -> None:
    await bbs.desire(lrp(instances=0))
    assert (await bbs.refusal("/v1/desired_lrp/desire.r2", {"desired_lrp": lrp()}))[0] == "ResourceExists"
    await bbs.ask("/v1/tasks/desire.r2", task())
    assert (await bbs.refusal("/v1/tasks/desire.r2", task()))[0] == "ResourceExists"


async def test_lists_of_lrps_are_filtered(bbs: DiegoClient) -> None:
    for guid, domain in (("app1-v1", "a"), ("app1-v2", "b"), ("app2-v1", "a")):
        await bbs.desire(lrp(guid, domain=domain, instances=0, annotation=guid))

    async def listed(path: str, key: str, **wanted: Any) -> list[str]:
        found = (await bbs.ask(path, wanted))[key]
        return [each.get("process_guid") or each["desired_lrp_key"]["process_guid"] for each in found]

    for path, key in (
        ("/v1/desired_lrps/list.r2", "desired_lrps"),
        ("/v1/desired_lrps/list.r3", "desired_lrps"),
        ("/v1/desired_lrp_routing_infos/list", "desired_lrps"),
        ("/v1/desired_lrp_scheduling_infos/list", "desired_lrp_scheduling_infos"),
    ):
        assert await listed(path, key) == ["app1-v1", "app1-v2", "app2-v1"]
        assert await listed(path, key, domain="a") == ["app1-v1", "app2-v1"]
        assert await listed(path, key, process_guids=["app2-v1", "none"]) == ["app2-v1"]
        assert await listed(path, key, app_guids=["app1"], domain="b") == ["app1-v2"]
    info = await bbs.ask("/v1/desired_lrp_scheduling_infos/get_by_process_guid", {"process_guid": "app1-v1"})
    info = info["desired_lrp_scheduling_info"]
    assert info["annotation"] == "app1-v1"
    assert info["desired_lrp_resource"] == {
        "memory_mb": 64,
        "disk_mb": 0,
        "root_fs": "preloaded:busybox",
        "max_pids": 0,
    }


async def test_a_definition_comes_back_as_it_was_sent(bbs: DiegoClient) -> None:
    variables = [{"name": "SECRET", "value": "canary"}]
    sent = lrp(
        instances=0,
        environment_variables=variables,
        setup={"serial_action": {"actions": [run("true"), {"try_action": {"action": run("false")}}]}},
        check_definition={
            "checks": [{"http_check": {"port": 8080, "path": "/up", "request_timeout_ms": 5000}}],
            "readiness_checks": [{"tcp_check": {"port": 8080}}],
            "log_source": "CHECK",
        },
        egress_rules=[{"protocol": "icmp", "destinations": ["0.0.0.0/0"], "icmp_info": {"type": -1, "code": -1}}],
        image_username="user",
        image_password="canary",
        update_strategy=1,
        log_rate_limit={"bytes_per_second": -1},
        max_pids=100,
    )
    await bbs.desire(sent)
    answer = await bbs.ask("/v1/desired_lrps/get_by_process_guid.r3", {"process_guid": "web"})
    assert holds(answer["desired_lrp"], sent)


def holds(found: Any, wanted: Any) -> bool:
    """Whether all that is wanted was found; more may be there."""
    if isinstance(wanted, dict):
        return all(holds(found[key], value) for key, value in wanted.items())
    if isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(holds, found, wanted))
    return bool(found == wanted)
