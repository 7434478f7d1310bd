"""The OpenAPI 3.1 description of a listener, made from its routes and models."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from typing import Any

from aiohttp import web
from attrs import define

from diego_py import __version__, wire
from diego_py.call import Call
from diego_py.chain import MEDIA_TYPE
from diego_py.errors import RequestFailed
from diego_py.http.server import JSON, Route, answer

_PARAMETER = re.compile(r"\{(\w+)\}")
_PROBLEM = "#/components/schemas/Problem"


@define
class ApiDescription:
    """`/openapi.json` of one listener: its own routes, and itself."""

    title: str
    described: Sequence[Route]

    def routes(self) -> list[Route]:
        return [Route("GET", "/openapi.json", "openapi", self.get, RequestFailed, counted=False)]

    async def get(self, request: web.Request, call: Call) -> web.StreamResponse:
        """This description."""
        return answer(describe_api(self.title, __version__, [*self.described, *self.routes()]))


def describe_api(title: str, version: str, routes: Sequence[Route]) -> dict[str, Any]:
    """One document for all routes. Every operation may answer with a failure document."""
    paths: dict[str, Any] = {}
    models: list[type] = []
    for route in routes:
        models += [model for model in (route.takes, route.gives) if model is not None]
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version},
        "paths": paths,
        "components": {"schemas": {**wire.schemas(*models), "Problem": _problem()}},
    }


def _operation(route: Route) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PARAMETER.findall(route.path)
    ] + [{"name": name, "in": "query", "schema": {"type": "string"}} for name in route.query]
    operation: dict[str, Any] = {
        "operationId": route.op,
        "summary": inspect.getdoc(route.handler) or route.op,
        "responses": {
            "2XX": {"description": "It is so now.", **_content(JSON, route.gives)},
            "default": {
                "description": "It is not; the document says why.",
                "content": {MEDIA_TYPE: {"schema": {"$ref": _PROBLEM}}},
            },
        },
    }
    if parameters:
        operation["parameters"] = parameters
    if route.takes is not None:
        operation["requestBody"] = {"required": True, **_content(JSON, route.takes)}
    return operation


def _content(media_type: str, model: type | None) -> dict[str, Any]:
    if model is None:
        return {}
    return {"content": {media_type: {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}}}


def _problem() -> dict[str, Any]:
    """The members that every failure document has; docs/chain.md describes all."""
    text = {"type": "string"}
    return {
        "type": "object",
        "description": "RFC 9457, with the chain of hops from the outermost to the innermost.",
        "required": ["type", "title", "status", "detail", "code", "origin", "fault", "outcome", "request_id", "chain"],
        "properties": {
            "type": text,
            "title": text,
            "status": {"type": "integer"},
            "detail": text,
            "code": text,
            "origin": text,
            "fault": {"enum": ["caller", "app", "capacity", "platform", "dependency"]},
            "outcome": {"enum": ["not_started", "rolled_back", "partial", "running", "unknown"]},
            "retryable": {"type": "boolean"},
            "request_id": text,
            "trace_id": text,
            "chain": {"type": "array", "items": {"type": "object"}, "minItems": 1},
            "next": {"type": "array", "items": {"type": "object"}},
        },
    }
