"""What the BBS refuses before anything is done: 4xx with every reason, and nothing is written anywhere."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from diego_py import telling
from diego_py.models.work import WORKS_MAX
from tests.chain.answers import well_formed
from tests.chain.definitions import lrp
from tests.chain.expected import nothing_was_written
from tests.chain.installation import Installation
from tests.contract.store.conftest import report

pytestmark = [pytest.mark.chain, pytest.mark.kernel]

BAD_FIELDS = {"process_guid": "", "domain": "", "rootfs": "no scheme", "instances": -1, "memory_mb": -5, "ports": [0]}
RUN = {"run": {"path": "/a", "user": "b"}}
UNSUPPORTED = {"metrics_guid": "m", "network": {}}

REFUSED: dict[str, tuple[Any, int, str, set[str]]] = {
    "bad fields": (lrp(**BAD_FIELDS), 422, "invalid_spec", {f"/{name}" for name in BAD_FIELDS} | {"/ports/0"}),
    "unknown field": (lrp(instance=2), 422, "invalid_spec", {"/instance"}),
    "missing fields": ({"process_guid": "web"}, 422, "invalid_spec", {"/domain", "/rootfs", "/action"}),
    "wrong types": (lrp(instances="two", memory_mb=True), 422, "invalid_spec", {"/instances", "/memory_mb"}),
    "two actions": (
        lrp(action={"run": {"path": "/a", "user": "b"}, "try": {"action": {"run": {"path": "/a", "user": "b"}}}}),
        422,
        "invalid_spec",
        {"/action"},
    ),
    "unsupported": (lrp(**UNSUPPORTED), 422, "unsupported_field", {"/metrics_guid", "/network"}),
    "no object": ([1, 2], 422, "invalid_spec", {""}),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_definition_that_is_refused(one_cell: Installation, name: str) -> None:
    definition, status, code, pointers = REFUSED[name]
    answer = await one_cell.desire(definition)
    document = well_formed(answer)
    assert (answer.status, document["code"]) == (status, code), document
    assert (document["fault"], document["outcome"], document["retryable"]) == ("caller", "not_started", False)
    assert answer.hops == ["bbs"]
    named = {error["pointer"] for error in document["errors"]}
    assert all(error["detail"] and error["code"] for error in document["errors"])
    if name == "bad fields":
        named |= {"/ports"} & pointers  # a bad item speaks for its list
    assert named == pointers, document["errors"]
    assert "instance" not in document
    await nothing_was_written(one_cell)


async def test_a_second_lrp_of_the_same_name(one_cell: Installation) -> None:
    first = await one_cell.desire(lrp())
    assert first.status == 201, first.body
    answer = await one_cell.desire(lrp(memory_mb=32))
    document = well_formed(answer)
    assert (answer.status, document["code"], document["fault"]) == (409, "already_exists", "caller")
    assert document["outcome"] == "not_started"
    assert answer.hops == ["bbs"]
    await nothing_was_written(one_cell, ["web"])
    kept = (await one_cell.request("GET", "/v1/desired_lrps/web")).json
    assert kept["definition"]["memory_mb"] == 64


CHANGES: dict[str, tuple[dict[str, Any], str, set[str]]] = {
    "wrong types": ({"instances": "two", "routes": 5}, "invalid_spec", {"/instances", "/routes"}),
    "out of range": ({"instances": -1}, "invalid_spec", {"/instances"}),
    "unknown field": ({"memory_mb": 5}, "invalid_spec", {"/memory_mb"}),
    "half of the credentials": ({"image_username": "a"}, "invalid_spec", {"/image_password"}),
}


@pytest.mark.parametrize("name", CHANGES)
async def test_a_change_that_is_refused(one_cell: Installation, name: str) -> None:
    """Also what would make a definition that no cell executes: the next start of an instance would fail."""
    change, code, pointers = CHANGES[name]
    created = await one_cell.desire(lrp())
    answer = await one_cell.request("PATCH", "/v1/desired_lrps/web", change)
    document = well_formed(answer)
    assert (answer.status, document["code"], document["outcome"]) == (422, code, "not_started")
    assert {error["pointer"] for error in document["errors"]} == pointers
    stored = await one_cell.request("GET", "/v1/desired_lrps/web")
    assert stored.headers["ETag"] == created.headers["ETag"]
    await nothing_was_written(one_cell, ["web"])


BAD_REQUESTS: dict[str, tuple[str, str, dict[str, str], int, str]] = {
    "no such path": ("POST", "/v1/desired", {}, 404, "route_not_found"),
    "no such method": ("PUT", "/v1/desired_lrps", {}, 405, "method_not_allowed"),
    "no such LRP": ("GET", "/v1/desired_lrps/nope", {}, 404, "desired_lrp_not_found"),
    "delete of no LRP": ("DELETE", "/v1/desired_lrps/nope", {}, 404, "desired_lrp_not_found"),
    "no such instance": ("GET", "/v1/actual_lrps/nope/0", {}, 404, "actual_lrp_not_found"),
    "no such failure": ("GET", "/v1/failures/nope", {}, 404, "failure_not_found"),
    "no such cell": ("GET", "/v1/cells/nope", {}, 404, "cell_not_found"),
    "bad on_failure": ("POST", "/v1/desired_lrps?on_failure=explode", {}, 400, "invalid_parameter"),
    "bad wait": ("POST", "/v1/desired_lrps", {"Prefer": "wait=soon"}, 400, "invalid_parameter"),
    "bad budget": ("POST", "/v1/desired_lrps", {"X-Budget-Ms": "much"}, 400, "invalid_parameter"),
    "bad key": ("POST", "/v1/desired_lrps", {"Idempotency-Key": "a b"}, 400, "invalid_parameter"),
    "bad state": ("GET", "/v1/actual_lrps?state=DEAD", {}, 400, "invalid_parameter"),
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
async def test_a_request_that_is_refused(installation: Installation, name: str) -> None:
    method, path, headers, status, code = BAD_REQUESTS[name]
    answer = await installation.request(method, path, lrp() if method in ("POST", "PUT") else None, headers)
    document = well_formed(answer)
    assert (answer.status, document["code"], document["fault"]) == (status, code, "caller"), document
    assert answer.hops == ["bbs"]
    await nothing_was_written(installation)


@pytest.mark.parametrize(
    ("change", "pointers"),
    [
        ({"sequence": -1}, {"/sequence"}),
        ({"sequence": 2**53 + 1}, {"/sequence"}),
        ({"presence": {"zone": "a\0b", "url": "ftp://cell"}}, {"/presence/zone", "/presence/url"}),
        ({"available": {"memory_mb": 2**31}}, {"/available/memory_mb"}),
    ],
)
async def test_a_report_of_a_cell_that_says_nonsense(
    installation: Installation, change: dict[str, Any], pointers: set[str]
) -> None:
    said = msgspec.json.decode(telling.encode(report("cell-9")))
    told = {name: {**said[name], **value} if isinstance(value, dict) else value for name, value in change.items()}
    answer = await installation.request("POST", "/v1/cells/cell-9/report", {**said, **told})
    assert (answer.status, answer.json["code"]) == (422, "invalid_spec"), answer.body
    assert {error["pointer"] for error in answer.json["errors"]} == pointers
    assert (await installation.request("GET", "/v1/cells")).json["items"] == []


async def test_a_heartbeat_beyond_all_numbers(installation: Installation) -> None:
    beat = {"boot_id": "boot-1", "sequence": 2**53 + 1, "digest": "as-told"}
    answer = await installation.request("POST", "/v1/cells/cell-9/heartbeat", beat)
    assert (answer.status, answer.json["errors"][0]["pointer"]) == (422, "/sequence"), answer.body


async def test_more_claims_than_go_in_one_request(installation: Installation) -> None:
    claim = {"process_guid": "web", "index": 0, "instance_guid": "i-1", "request_id": "r", "trace_id": "t"}
    claims = {"cell_id": "cell-1", "boot_id": "boot-1", "instances": [claim] * (WORKS_MAX + 1)}
    answer = await installation.request("POST", "/v1/claims", claims)
    assert (answer.status, answer.json["errors"][0]["pointer"]) == (422, "/instances"), answer.body
