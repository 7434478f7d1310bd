"""A registry that serves what it is given and misbehaves as it is told."""

from __future__ import annotations

import base64
import gzip
import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from ssl import SSLContext
from typing import Any

import msgspec
from aiohttp import web
from attrs import define, field

from cells.garden.images.documents import OCI_INDEX, OCI_MANIFEST, OCI_TAR, architecture_of
from tests.fakes import zstd

CONFIG = "application/vnd.oci.image.config.v1+json"
ARCHITECTURE = architecture_of(os.uname().machine)
TOKEN = "a-token"

COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda content: gzip.compress(content, 1, mtime=0),
    "zstd": zstd.compress,
}
Answer = Callable[[web.Request], Awaitable[web.StreamResponse | None]]


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


@define
class BuiltImage:
    """An image as documents and blobs, ready to be served, pushed or written as a layout."""

    manifest: bytes
    blobs: dict[str, bytes]
    layers: list[bytes]
    """As they are transferred."""


def build(
    tars: Sequence[bytes], process: dict[str, Any] | None = None, compression: str = "gzip", **config: Any
) -> BuiltImage:
    """An image of tar archives, the lowest first."""
    layers = [COMPRESSIONS[compression](content) for content in tars]
    kind = f"{OCI_TAR}+{compression}"
    told = msgspec.json.encode(
        {
            "architecture": ARCHITECTURE,
            "os": "linux",
            "config": process or {},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(content) for content in tars]},
            **config,
        }
    )
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": CONFIG, "digest": digest_of(told), "size": len(told)},
        "layers": [{"mediaType": kind, "digest": digest_of(layer), "size": len(layer)} for layer in layers],
    }
    return BuiltImage(msgspec.json.encode(document), {digest_of(blob): blob for blob in (told, *layers)}, layers)


def index_of(*images: tuple[BuiltImage, str]) -> bytes:
    """An index of images by architecture."""
    entries = [
        {
            "mediaType": OCI_MANIFEST,
            "digest": digest_of(image.manifest),
            "size": len(image.manifest),
            "platform": {"os": "linux", "architecture": architecture},
        }
        for image, architecture in images
    ]
    return msgspec.json.encode({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries})


def basic(username: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


@define
class Registry:
    """`instead` answers before the registry does, if it returns an answer."""

    manifests: dict[str, tuple[bytes, str]] = field(factory=dict)
    """By tag and by digest: content and media type."""
    blobs: dict[str, bytes] = field(factory=dict)
    instead: Answer | None = None
    requests: list[tuple[str, dict[str, str]]] = field(factory=list)
    """Path and headers of each."""
    host: str = ""
    """HOST:PORT, once it listens."""

    def add(self, tag: str, image: BuiltImage) -> None:
        self.blobs |= image.blobs
        for name in (tag, digest_of(image.manifest)):
            self.manifests[name] = (image.manifest, OCI_MANIFEST)

    def paths(self) -> list[str]:
        return [path for path, _ in self.requests]

    def authorizations(self) -> list[str | None]:
        return [headers.get("Authorization") for _, headers in self.requests]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.path, dict(request.headers)))
        if self.instead is not None:
            other = await self.instead(request)
            if other is not None:
                return other
        kind, _, name = request.path.rpartition("/")
        if kind.endswith("/manifests") and name in self.manifests:
            content, media_type = self.manifests[name]
            return web.Response(body=content, content_type=media_type)
        if kind.endswith("/blobs") and name in self.blobs:
            return blob_answer(request, self.blobs[name])
        return web.json_response({"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}, status=404)

    @asynccontextmanager
    async def serving(self, address: str = "127.0.0.1", tls: SSLContext | None = None) -> AsyncIterator[Registry]:
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self.answer)
        runner = web.AppRunner(application, shutdown_timeout=0.01)
        await runner.setup()
        site = web.TCPSite(runner, address, 0, ssl_context=tls)
        await site.start()
        self.host = "{}:{}".format(*runner.addresses[0][:2])
        try:
            yield self
        finally:
            await runner.cleanup()


def blob_answer(request: web.Request, content: bytes) -> web.Response:
    """All of it, or the range that was asked for."""
    start = request.http_range.start or 0
    if start == 0:
        return web.Response(body=content)
    headers = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
    return web.Response(status=206, body=content[start:], headers=headers)


async def cut(request: web.Request, content: bytes, count: int) -> web.StreamResponse:
    """Announce all and break the connection after `count` bytes. Ranges are ignored."""
    answer = web.StreamResponse(headers={"Content-Length": str(len(content))})
    await answer.prepare(request)
    await answer.write(content[:count])
    assert request.transport is not None
    request.transport.close()
    return answer
