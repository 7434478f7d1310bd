"""Debian's docker-registry as a child process, with an account, and a push of what tests build."""

from __future__ import annotations

import asyncio
import io
import re
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
from attrs import frozen

from tests.fakes.registry import BuiltImage, basic, digest_of
from tests.kernel.slot import STATE_PREFIX
from tests.slowness import patient

ALLOWED = ("*", "127.0.0.1:*")
"""What a cell has to be configured with to use one: by itself it goes to public addresses only."""
USERNAME, PASSWORD = "vcap", "open sesame"
HASH = "$2b$05$abcdefghijklmnopqrstuupx2xBUC4954936wVIjyyPHmUBFu0wCW"
"""bcrypt of PASSWORD, at its cheapest."""
START_TIMEOUT_S = patient(20.0)

CONFIG = """\
version: 0.1
log: {{level: info, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {directory}/blobs}}}}
http: {{addr: "127.0.0.1:0"}}
"""
ACCOUNTS = """\
auth: {{htpasswd: {{realm: tests, path: {directory}/accounts}}}}
"""


@frozen
class RealRegistry:
    """A running registry."""

    host: str
    """HOST:PORT."""
    process: subprocess.Popen[bytes]
    account: bool

    async def push(self, name: str, image: BuiltImage, media_type: str) -> str:
        """Store an image as REPOSITORY:TAG. Returns the digest of its manifest."""
        repository, _, tag = name.partition(":")
        login = {"Authorization": basic(USERNAME, PASSWORD)} if self.account else {}
        async with aiohttp.ClientSession(f"http://{self.host}", headers=login, raise_for_status=True) as session:
            for digest, blob in image.blobs.items():
                async with session.post(f"/v2/{repository}/blobs/uploads/") as begun:
                    place = begun.headers["Location"]
                async with session.put(place + f"&digest={digest}", data=io.BytesIO(blob)):
                    pass
            headers = {"Content-Type": media_type}
            async with session.put(f"/v2/{repository}/manifests/{tag}", data=image.manifest, headers=headers):
                return digest_of(image.manifest)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@asynccontextmanager
async def registry(account: bool = False) -> AsyncIterator[RealRegistry]:
    """A registry with nothing in it, on a port of its own; with `account` only USERNAME may do anything."""
    with tempfile.TemporaryDirectory(prefix=f"{STATE_PREFIX}registry-") as directory:
        Path(directory, "accounts").write_text(f"{USERNAME}:{HASH}\n")
        config = Path(directory, "config.yml")
        config.write_text((CONFIG + (ACCOUNTS if account else "")).format(directory=directory))
        log = Path(directory, "log")
        with log.open("wb") as out:
            process = subprocess.Popen(["docker-registry", "serve", config], stdout=out, stderr=out)
        running = RealRegistry(await _address(log, process), process, account)
        try:
            yield running
        finally:
            running.stop()


async def _address(log: Path, process: subprocess.Popen[bytes]) -> str:
    """Where it listens, as it says in its log."""
    async with asyncio.timeout(START_TIMEOUT_S):
        while (found := re.search(r"listening on (127\.0\.0\.1:\d+)", log.read_text())) is None:
            assert process.poll() is None, log.read_text()
            await asyncio.sleep(0.01)
    return found[1]
