"""The description of the API: every route is in it, and what it refers to is there."""

from __future__ import annotations

import json
import re
from typing import Any

from bbs.app import build
from bbs.config import BbsConfig
from diego_py.http.openapi import describe_api
from diego_py.service.clock import SystemClock
from diego_py.service.log import logger
from diego_py.service.run import Process


def described() -> tuple[Any, dict[str, Any]]:
    log = logger("bbs", "test")
    bbs = build(BbsConfig(dsn="postgresql://"), SystemClock(), log, Process(log))
    return bbs.routes, describe_api("BBS", "1", bbs.routes)


def test_every_route_is_an_operation_with_a_name_of_its_own() -> None:
    routes, document = described()
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    assert sorted(operation["operationId"] for operation in operations) == sorted({route.op for route in routes})
    assert all(operation["responses"]["default"]["content"] for operation in operations)


def test_every_reference_leads_somewhere() -> None:
    _, document = described()
    references = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)))
    assert references <= document["components"]["schemas"].keys()
    assert "DesiredLRPDefinition" in references


def test_path_parameters_are_declared() -> None:
    _, document = described()
    for path, operations in document["paths"].items():
        for operation in operations.values():
            declared = {p["name"] for p in operation.get("parameters", []) if p["in"] == "path"}
            assert declared == set(re.findall(r"\{(\w+)\}", path))
