"""Answers that need not be sent again (RFC 9110, sections 8.8 and 13)."""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import Final

from aiohttp import web

IF_NONE_MATCH: Final = "If-None-Match"
ETAG: Final = "ETag"
_TAGS: Final = re.compile(r'(?:W/)?("[^"]*")')


def is_known(request: web.Request, tag: str) -> bool:
    """Whether the caller has what this ETag names: it is in If-None-Match, or that is `*`."""
    lines = request.headers.getall(IF_NONE_MATCH, [])
    return any(line.strip() == "*" or tag in _TAGS.findall(line) for line in lines)


def not_modified(tag: str) -> web.Response:
    """304: the caller has it already."""
    return web.Response(status=304, headers={ETAG: tag})


def tagged(request: web.Request, response: web.Response) -> web.Response:
    """A 200 with its ETag, made from its body if it has none; or 304 if the caller has it already."""
    tag = response.headers.get(ETAG)
    if tag is None:
        body = response.body if isinstance(response.body, bytes) else b""
        tag = response.headers[ETAG] = f'"{blake2b(body, digest_size=16).hexdigest()}"'
    return not_modified(tag) if is_known(request, tag) else response
