"""A file server of the test's own, which answers as it is told and remembers what it was asked."""

from __future__ import annotations

import asyncio
import io
import ssl
import tarfile
import zipfile
from collections.abc import Mapping
from types import TracebackType

from aiohttp import web
from attrs import define, field


@define
class Answer:
    """What a path answers."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(factory=dict)
    hold: asyncio.Event | None = None
    """Nothing is answered before it is set."""
    silent: bool = False
    """Nothing is answered."""


@define
class FileServer:
    """On loopback. `answers` by path, `once` before those and each but once."""

    answers: dict[str, Answer] = field(factory=dict)
    once: list[Answer] = field(factory=list)
    asked: list[web.Request] = field(factory=list)
    taken: list[bytes] = field(factory=list)
    arrived: asyncio.Event = field(factory=asyncio.Event)
    """Set by the first request."""
    tls: ssl.SSLContext | None = None
    port: int = 0
    _runner: web.AppRunner | None = None

    async def __aenter__(self) -> FileServer:
        application = web.Application(client_max_size=1 << 26)
        application.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(application, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self.tls)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def url(self, path: str) -> str:
        return f"{'http' if self.tls is None else 'https'}://{self.host}{path}"

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request)
        self.taken.append(await request.read())
        answer = self.once.pop(0) if self.once else self.answers.get(request.path, Answer(status=404))
        self.arrived.set()
        if answer.silent:
            await asyncio.Event().wait()
        if answer.hold is not None:
            await answer.hold.wait()
        etag = answer.headers.get("ETag")
        if etag is not None and request.headers.get("If-None-Match") == etag:
            return web.Response(status=304)
        return web.Response(body=answer.body, status=answer.status, headers=answer.headers)


def tar(files: Mapping[str, bytes], mode: str = "w") -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            described = tarfile.TarInfo(name)
            described.size, described.mode = len(content), 0o640
            archive.addfile(described, io.BytesIO(content))
    return packed.getvalue()


def tgz(files: Mapping[str, bytes]) -> bytes:
    return tar(files, "w:gz")


def zipped(files: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()
