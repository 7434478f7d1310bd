"""One operation of an API."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web
from attrs import frozen

from diego_py.call import Call
from diego_py.errors import DiegoError
from diego_py.http.parts import Parts

Handler = Callable[[web.Request, Call], Awaitable[web.StreamResponse | Parts]]


@frozen
class Route:
    """One operation: where it is, what it is called in the chain, and what leaving it with an error is called."""

    method: str
    path: str
    op: str
    handler: Handler
    fails_as: type[DiegoError]
    counted: bool = True
    """Counts against the limit of requests under way. Probes, heartbeats and log streams do not."""
    light: bool = False
    """Asked thousands of times a second, and nobody reads what is told of it: unless it fails it has no line in the
    log, and its answer no ids and no timings."""
    takes: type | None = None
    """The model of the body, for the description of the API."""
    gives: type | None = None
    """The model of a 2xx answer."""
    query: tuple[str, ...] = ()
    """Query parameters that it understands."""
