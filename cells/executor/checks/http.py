"""The HTTP check: GET answers 200 in time. Anything else, a redirect too, is not healthy."""

from __future__ import annotations

import os

import aiohttp

from cells.executor.checks.result import CheckResult
from diego_py.models.checks import CHECK_TIMEOUT_MS_DEFAULT, HTTPCheck

KIND = "http"
HEADERS = {"User-Agent": "diego-healthcheck"}


def session() -> aiohttp.ClientSession:
    """A session for checks: a new connection each time, as a check that finds an old one open proves little."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, force_close=True),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers=HEADERS,
        auto_decompress=False,
    )


async def check_http(http: aiohttp.ClientSession, address: str, check: HTTPCheck) -> CheckResult:
    """Ask once. The body is not read."""
    timeout_ms = check.request_timeout_ms or CHECK_TIMEOUT_MS_DEFAULT
    path = check.path if check.path.startswith("/") else f"/{check.path}"
    url = f"http://{address}:{check.port}{path}"
    timeout = aiohttp.ClientTimeout(total=timeout_ms / 1000)
    try:
        async with http.get(url, timeout=timeout, allow_redirects=False) as response:
            return CheckResult(KIND, url, response.status == 200, f"status {response.status}")
    except TimeoutError:
        return CheckResult(KIND, url, False, f"no answer within {timeout_ms} ms")
    except aiohttp.ClientConnectorError as refused:
        return CheckResult(KIND, url, False, f"connect: {_reason(refused)}")
    except (aiohttp.ClientError, OSError, ValueError) as broken:
        return CheckResult(KIND, url, False, f"no HTTP answer: {type(broken).__name__}")


def _reason(refused: aiohttp.ClientConnectorError) -> str:
    number = refused.os_error.errno
    return os.strerror(number) if number else type(refused.os_error).__name__
