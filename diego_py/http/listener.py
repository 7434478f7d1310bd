"""One listening socket as a part of a process."""

from __future__ import annotations

from typing import Protocol

from aiohttp import web
from attrs import define, field

from diego_py.http.runner import DocumentRunner
from diego_py.http.tls import MutualTls
from diego_py.service.run import Part


class Listener(Part, Protocol):
    """Where requests come in."""

    port: int
    """Known once it was started."""

    @property
    def url(self) -> str:
        """Where that is, as seen from here."""


@define
class HttpListener:
    """Serves an application from `start` to `stop`."""

    application: web.Application
    host: str
    port: int
    """0 takes any free one; after `start` this is the one it got."""
    tls: MutualTls | None = None
    grace_s: float = 2.0
    """How long requests under way may take to finish after the socket was closed."""
    _runner: DocumentRunner | None = field(default=None, init=False)

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    async def start(self) -> None:
        """Listen. Raises OSError when the address cannot be had, or the certificates."""
        self._runner = DocumentRunner(
            self.application, access_log=None, handle_signals=False, shutdown_timeout=self.grace_s
        )
        await self._runner.setup()
        tls = None if self.tls is None else self.tls.context()
        site = web.TCPSite(self._runner, self.host, self.port, backlog=1024, ssl_context=tls)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Take no more connections, let requests under way finish, close all."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
