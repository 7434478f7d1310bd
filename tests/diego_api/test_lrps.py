"""The life of an LRP through Diego's wire alone, with real containers."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bbs.config import DiegoWireConfig
from bbs.convergence.backoff import CrashPolicy
from tests.chain.awaited import until, until_true
from tests.chain.conftest import in_order
from tests.chain.installation import Installation
from tests.diego_api.client import DiegoClient, lrp, run

pytestmark = [pytest.mark.kernel, pytest.mark.chain]

RUNNING, CLAIMED, CRASHED, UNCLAIMED = "RUNNING", "CLAIMED", "CRASHED", "UNCLAIMED"
ROUTES = {"cf-router": b'[{"hostnames": ["web.test"], "port": 8080}]'}


async def in_state(bbs: DiegoClient, state: str, count: int = 1, **wanted: Any) -> list[dict[str, Any]]:
    """The instances as soon as so many of them, and no others, are there in this state."""

    async def look() -> list[dict[str, Any]] | None:
        rows = await bbs.actual_lrps(**wanted)
        return rows if len(rows) == count and all(row["state"] == state for row in rows) else None

    return await until(f"{count} instances {state}", look)


async def none_left(bbs: DiegoClient) -> None:
    async def gone() -> bool:
        return not await bbs.actual_lrps()

    await until("no instance is left", gone)


async def test_an_lrp_from_desire_to_removal(installation: Installation, bbs: DiegoClient) -> None:
    node = await installation.start_cell(1)
    before_ns = time.time_ns()
    await bbs.desire(lrp(ports=[8080], routes={"routes": ROUTES}, annotation="first"))
    (row,) = await in_state(bbs, RUNNING)
    assert row["actual_lrp_key"] == {"process_guid": "web", "index": 0, "domain": "shop"}
    assert row["actual_lrp_instance_key"]["cell_id"] == node.id
    assert row["presence"] == 0
    assert row["routable"] is True
    assert row["availability_zone"] == f"z-{node.id}"
    assert (row["crash_count"], row["crash_reason"], row["placement_error"]) == (0, "", "")
    assert before_ns - 10**9 < row["since"] < time.time_ns() + 10**9
    (port,) = row["actual_lrp_net_info"]["ports"]
    assert port["container_port"] == 8080
    assert port["host_port"] > 0
    assert row["actual_lrp_net_info"]["address"]

    update = {"instances": 3, "routes": {"routes": {"tcp-router": b"[]"}}, "annotation": "second"}
    await bbs.ask("/v1/desired_lrp/update", {"process_guid": "web", "update": update})
    rows = await in_state(bbs, RUNNING, 3)
    assert [each["actual_lrp_key"]["index"] for each in rows] == [0, 1, 2]
    assert [each["actual_lrp_key"]["index"] for each in await bbs.actual_lrps(process_guid="web", index=2)] == [2]
    (desired,) = await bbs.desired_lrps()
    assert (desired["instances"], desired["annotation"]) == (3, "second")
    assert desired["routes"] == {"routes": {"tcp-router": b"[]"}}
    assert desired["modification_tag"]["index"] == 1

    await bbs.ask("/v1/desired_lrp/update", {"process_guid": "web", "update": {"instances": 1}})
    await in_state(bbs, RUNNING, 1)

    old = row["actual_lrp_instance_key"]["instance_guid"]
    await bbs.ask("/v1/actual_lrps/retire", {"actual_lrp_key": row["actual_lrp_key"]})

    async def another_one() -> bool:
        rows = await bbs.actual_lrps()
        return [r["state"] for r in rows] == [RUNNING] and rows[0]["actual_lrp_instance_key"]["instance_guid"] != old

    await until("another instance runs", another_one)
    await bbs.ask("/v1/desired_lrp/remove", {"process_guid": "web"})
    assert await bbs.desired_lrps() == []
    await none_left(bbs)
    assert installation.left() == []


async def test_what_a_cloud_controller_desires(installation: Installation, bbs: DiegoClient) -> None:
    """A request with all that one always sends, to a BBS that was set up for nothing of it; later new routes."""
    await installation.start_cell(1)
    await bbs.desire(cloud_controllers())
    (row,) = await in_state(bbs, RUNNING)
    guid = row["actual_lrp_instance_key"]["instance_guid"]
    assert row["metric_tags"] == {"source_id": "app", "instance_id": "0", "process_instance_id": guid}
    assert row["actual_lrp_internal_routes"] == [{"hostname": "app.apps.internal"}]
    (desired,) = await bbs.desired_lrps()
    assert (desired["metrics_guid"], desired["log_guid"]) == ("app", "app")
    routes = {"routes": {"internal-router": b'[{"hostname": "other.apps.internal"}]'}}
    update = {"instances": 1, "annotation": "2.0", "routes": routes, "metric_tags": {"app_name": {"static": "shop"}}}
    await bbs.ask("/v1/desired_lrp/update", {"process_guid": "app-1", "update": update})
    (after,) = await in_state(bbs, RUNNING)
    assert after["actual_lrp_instance_key"] == row["actual_lrp_instance_key"]
    assert after["metric_tags"] == {"app_name": "shop"}
    assert after["actual_lrp_internal_routes"] == [{"hostname": "other.apps.internal"}]
    assert after["modification_tag"]["index"] > row["modification_tag"]["index"]
    assert after["since"] == row["since"]
    group = {"process_guid": "app-1", "index": 0}
    answer = await bbs.ask("/v1/actual_lrp_groups/get_by_process_guid_and_index", group)
    assert answer["actual_lrp_group"]["instance"] == after


def cloud_controllers() -> dict[str, Any]:
    """A DesiredLRP with the fields that a cloud controller fills of each app."""
    tags = {"source_id": {"static": "app"}, "instance_id": {"dynamic": 1}, "process_instance_id": {"dynamic": 2}}
    check = run("true", log_source="HEALTH", suppress_log_output=True, resource_limits={"nofile": 1024})
    return lrp(
        "app-1",
        domain="cf-apps",
        environment_variables=[{"name": "LANG", "value": "en_US.UTF-8"}],
        start_timeout_ms=60_000,
        disk_mb=64,
        cpu_weight=10,
        ports=[8080, 2222],
        routes={
            "routes": {
                "cf-router": b'[{"hostnames": ["shop.test"], "port": 8080, "route_service_url": null}]',
                "tcp-router": b"[]",
                "internal-router": b'[{"hostname": "app.apps.internal"}]',
                "diego-ssh": b'{"container_port": 2222, "private_key": "canary", "host_fingerprint": "f"}',
            }
        },
        log_source="CELL",
        log_guid="app",
        metrics_guid="app",
        metric_tags=tags,
        annotation="1700000000.0",
        egress_rules=[{"protocol": "tcp", "destinations": ["10.0.0.0/8"], "ports": [443], "log": True}],
        legacy_download_user="root",
        trusted_system_certificates_path="/etc/cf-system-certificates",
        network={"properties": {"policy_group_id": "app", "app_id": "app", "space_id": "space"}},
        action={"codependent_action": {"actions": [run("exec sleep 1000", log_source="APP/PROC/WEB")]}},
        monitor={"timeout_action": {"action": {"parallel_action": {"actions": [check]}}, "timeout_ms": 600_000}},
        max_pids=1024,
        certificate_properties={"organizational_unit": ["organization:o", "space:s", "app:a"]},
    )


async def test_crashes_are_told_in_the_words_of_diego(installation: Installation, bbs: DiegoClient) -> None:
    await installation.start_cell(1)
    await bbs.desire(lrp(script="exit 7"))

    async def parked() -> dict[str, Any] | None:
        rows = await bbs.actual_lrps()
        return rows[0] if [row["state"] for row in rows] == [CRASHED] and rows[0]["crash_count"] == 3 else None

    row = await until("the third crash is not restarted at once", parked)
    assert row["crash_reason"] == "Exited with status 7"
    assert row["actual_lrp_instance_key"] == {"instance_guid": "", "cell_id": ""}
    await bbs.ask("/v1/desired_lrp/remove", {"process_guid": "web"})
    await none_left(bbs)


async def test_a_crashed_instance_waits_longer_each_time_and_retired_it_begins_anew(
    open_directory: Path, image_root: Path, database_dsn: str
) -> None:
    """Desired, crashed, put off, started again, retired, removed: by this wire alone."""
    policy = CrashPolicy(immediate_restarts=1, backoff_min_s=0.2, backoff_max_s=0.4)
    async with Installation(open_directory, image_root, database_dsn) as made, aiohttp.ClientSession() as session:
        await made.start_bbs(diego=DiegoWireConfig(listen_port=0), convergence_interval_s=0.1, crash_policy=policy)
        await made.start_cell(1)
        assert made.bbs.diego_listener is not None
        bbs = DiegoClient(f"http://127.0.0.1:{made.bbs.diego_listener.port}", session)
        await bbs.desire(lrp(script="exit 3", instances=1))

        async def crashed_often() -> dict[str, Any] | None:
            rows = await bbs.actual_lrps()
            return next((row for row in rows if row["state"] == CRASHED and row["crash_count"] >= 3), None)

        row = await until("it was started again after each wait", crashed_often)
        assert row["crash_reason"] == "Exited with status 3"
        assert (row["actual_lrp_net_info"], row["metric_tags"]) == (NO_NET_INFO, {})
        await bbs.ask("/v1/actual_lrps/retire", {"actual_lrp_key": row["actual_lrp_key"]})

        async def begun_anew() -> bool:
            return any(row["crash_count"] < 3 for row in await bbs.actual_lrps())

        await until("another row counts from the beginning", begun_anew)
        await bbs.ask("/v1/desired_lrp/remove", {"process_guid": "web"})
        await none_left(bbs)
        await until_true("also what was just being made for a row that is gone is undone", lambda: made.left() == [])
        await in_order(made)


NO_NET_INFO = {"address": "", "ports": [], "instance_address": "", "preferred_address": 0, "instance_ipv6_address": ""}


async def test_never_healthy(installation: Installation, bbs: DiegoClient) -> None:
    await installation.start_cell(1)
    check = {"checks": [{"tcp_check": {"port": 8080}}]}
    await bbs.desire(lrp(ports=[8080], check_definition=check, start_timeout_ms=1000))

    async def crashed() -> dict[str, Any] | None:
        rows = await bbs.actual_lrps()
        return next((row for row in rows if row["crash_count"] > 0), None)

    row = await until("it crashed", crashed)
    assert row["crash_reason"].startswith("Instance never healthy after 1s: ")
    assert len(row["crash_reason"]) > len("Instance never healthy after 1s: ")


async def test_placement_errors_in_the_words_of_diego(installation: Installation, bbs: DiegoClient) -> None:
    await bbs.desire(lrp("nobody"))
    await bbs.desire(lrp("big", memory_mb=100_000, disk_mb=0))
    await bbs.desire(lrp("tagged", PlacementTags=["a", "b"]))
    await bbs.desire(lrp("stack", root_fs="preloaded:none"))
    mount = {"driver": "nfs", "container_dir": "/data", "mode": "rw", "shared": {"volume_id": "v"}}
    await bbs.desire(lrp("volume", volume_mounts=[mount]))

    async def told() -> dict[str, str] | None:
        rows = await bbs.actual_lrps()
        errors = {row["actual_lrp_key"]["process_guid"]: row["placement_error"] for row in rows}
        return errors if all(errors.values()) else None

    async def told_after_auction() -> dict[str, str] | None:
        errors = await told()
        return None if errors is None or "unable to communicate to compatible cells" in errors.values() else errors

    nobody = await until("no cell was there", told)
    assert set(nobody.values()) == {"unable to communicate to compatible cells"}
    await installation.start_cell(1)
    await in_state(bbs, RUNNING, process_guid="nobody")
    await bbs.ask("/v1/desired_lrp/remove", {"process_guid": "nobody"})
    errors = await until("each has its own reason", told_after_auction)
    assert errors == {
        "big": "insufficient resources: memory",
        "tagged": 'found no compatible cell with placement tags "a" and "b"',
        "stack": "found no compatible cell for required rootfs",
        "volume": "found no compatible cell with required volume drivers",
    }


async def test_what_a_router_reads(installation: Installation, bbs: DiegoClient) -> None:
    """The bulk synchronisation of a route-emitter: the instances, then what is routed of the LRPs that they are of."""
    await installation.start_cell(1)
    await bbs.desire(lrp(ports=[8080], routes={"routes": ROUTES}, max_pids=50))
    (row,) = await in_state(bbs, RUNNING)
    answer = await bbs.ask("/v1/desired_lrp_routing_infos/list", {"process_guids": ["web"]})
    (info,) = answer["desired_lrps"]
    assert json.loads(info["routes"]["routes"]["cf-router"]) == json.loads(ROUTES["cf-router"])
    assert (info["process_guid"], info["instances"]) == ("web", 1)
    assert info["metric_tags"] == {"source_id": {"static": "app", "dynamic": 0}}
    assert info["modification_tag"]["index"] == 0
    assert info["action"] is None, "no run info"
    by_guid = await bbs.ask("/v1/actual_lrps/list_by_process_guids", {"process_guids": ["web", "none"]})
    assert by_guid["actual_lrps"] == [row]
    groups = await bbs.ask("/v1/actual_lrp_groups/list")
    assert groups["actual_lrp_groups"] == [{"instance": row, "evacuating": None}]
    cells = (await bbs.ask("/v1/cells/list.r1"))["cells"]
    assert [cell["rep_url"] for cell in cells] == [installation.nodes[row["actual_lrp_instance_key"]["cell_id"]].url]
    state = (await installation.request("GET", "/state", url=cells[0]["rep_url"])).json
    (told,) = state["LRPs"]
    assert (told["process_guid"], told["state"], told["MemoryMB"]) == ("web", "RUNNING", 64)
    assert (told["RootFs"], told["MaxPids"], told["PlacementTags"]) == ("preloaded:busybox", 50, [])
    assert state["RootFSProviders"]["preloaded"]["set"].keys() >= {"busybox"}


async def test_sidecars_setup_and_monitor_run_as_in_diego(installation: Installation, bbs: DiegoClient) -> None:
    await installation.start_cell(1)
    await bbs.desire(
        lrp(
            script="test -f /tmp/made && exec sleep 1000",
            setup={"serial_action": {"actions": [run("touch /tmp/made")], "log_source": "STG"}},
            monitor={"timeout_action": {"action": run("true"), "timeout_ms": 5000}},
            sidecars=[{"action": run("exec sleep 1000"), "memory_mb": 8}],
        )
    )
    await in_state(bbs, RUNNING)
