"""A registry's good and bad manners. Each test says what the registry does; nothing may be left but whole layers.

When a connection breaks, what the client had not read yet is lost (up to half a megabyte), so pieces are larger here.
"""

from __future__ import annotations

import asyncio
import email.utils
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from attrs import evolve

from cells.garden.config import ImageSettings
from cells.garden.images.documents import DOCUMENT_BYTES_MAX, OCI_INDEX
from cells.garden.images.image import Image
from cells.garden.images.registry import RegistrySource
from cells.garden.images.source import Source, source_of
from diego_py import chain
from diego_py.call import Call
from diego_py.errors import (
    BudgetSpent,
    DiegoError,
    ImageCorrupt,
    ImageNotAllowed,
    ImageNotFound,
    ImagePlatformMissing,
    ImageUnsupported,
    InvalidSpec,
    RegistryDenied,
    RegistryFailed,
    RegistryRateLimited,
    RegistryUnreachable,
)
from diego_py.secret import Secret
from diego_py.service.clock import SystemClock
from tests.fakes import way_out
from tests.fakes.registry import ARCHITECTURE, TOKEN, Registry, basic, build, cut, digest_of, index_of

PASSWORD = "correct horse battery"
CONTENT = random.Random(7).randbytes(3 * 1024 * 1024)
"""Does not compress, so that a layer has several pieces."""
IMAGE = build([CONTENT], {"Env": ["PATH=/bin"], "Cmd": ["true"]})
LAYER = IMAGE.layers[0]
SETTINGS = ImageSettings(silence_s=5.0, allowed=("*", "127.0.0.1:*", "127.0.0.2:*"))


def call(budget_ms: float = 20_000) -> Call:
    return Call.begin(SystemClock(), budget_ms)


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    served = Registry()
    served.add("latest", IMAGE)
    async with served.serving() as listening:
        yield listening


@pytest.fixture
async def other() -> AsyncIterator[Registry]:
    """Another host: another address of this machine."""
    async with Registry().serving("127.0.0.2") as listening:
        yield listening


def source(registry: Registry, rest: str = "a/app", settings: ImageSettings = SETTINGS, user: str = "") -> Source:
    return source_of(f"docker://{registry.host}/{rest}", user, Secret(PASSWORD) if user else None, settings)


async def fetched(registry: Registry, directory: Path, **more: Any) -> bytes:
    """The layer of IMAGE as it was fetched; nothing else may be beside it."""
    pull = source(registry, **more)
    image = await pull.resolve(call())
    await pull.fetch(call(), image.layers[0], directory / "blob")
    assert [path.name for path in directory.iterdir()] == ["blob"]
    return (directory / "blob").read_bytes()


def words(error: DiegoError) -> str:
    return chain.problem(error, call()).encode().decode()


# What goes well


async def test_a_tag_and_its_layer(registry: Registry, tmp_path: Path) -> None:
    image = await source(registry).resolve(call())
    assert image.digest == digest_of(IMAGE.manifest)
    assert image.reference == f"docker://{registry.host}/a/app:latest"
    assert image.config.cmd == ("true",)
    assert await fetched(registry, tmp_path) == LAYER
    assert registry.authorizations() == [None] * len(registry.requests)


async def test_a_digest(registry: Registry) -> None:
    found = await source(registry, f"a/app@{digest_of(IMAGE.manifest)}").resolve(call())
    assert found.digest == digest_of(IMAGE.manifest)


async def test_the_host_s_platform_of_an_index(registry: Registry) -> None:
    foreign = build([b"foreign"], architecture="mips")
    registry.add("foreign", foreign)
    registry.manifests["multi"] = (index_of((foreign, "mips"), (IMAGE, ARCHITECTURE)), OCI_INDEX)
    assert (await source(registry, "a/app:multi").resolve(call())).digest == digest_of(IMAGE.manifest)
    registry.manifests["multi"] = (index_of((foreign, "mips")), OCI_INDEX)
    with pytest.raises(ImagePlatformMissing, match=f"linux/{ARCHITECTURE}"):
        await source(registry, "a/app:multi").resolve(call())


async def test_the_default_registry(registry: Registry) -> None:
    settings = evolve(SETTINGS, default_registry=registry.host)
    pull = source_of("docker:///a/app#latest", "", None, settings)
    assert (await pull.resolve(call())).reference == "docker:///a/app:latest"
    with pytest.raises(ImageNotAllowed, match="default_registry"):
        source_of("docker:///a/app", "", None, SETTINGS)


def test_a_bad_reference_names_its_field_and_repeats_nothing() -> None:
    with pytest.raises(InvalidSpec) as refused:
        source_of(f"docker://u:{PASSWORD.replace(' ', '-')}@h/a", "", None, SETTINGS)
    assert refused.value.errors[0]["pointer"] == "/rootfs"
    assert "correct" not in words(refused.value)
    with pytest.raises(InvalidSpec):
        source_of("preloaded:busybox", "", None, SETTINGS)


# Connections that break


async def test_a_broken_connection_is_continued(registry: Registry, tmp_path: Path) -> None:
    ranges = []

    async def breaks_twice(request: web.Request) -> web.StreamResponse | None:
        if "/blobs/" not in request.path or not request.path.endswith(digest_of(LAYER)):
            return None
        ranges.append(request.headers.get("Range"))
        start = request.http_range.start or 0
        if len(ranges) == 3:
            return None
        answer = web.StreamResponse(status=206 if start else 200, headers={"Content-Length": str(len(LAYER) - start)})
        if start:
            answer.headers["Content-Range"] = f"bytes {start}-{len(LAYER) - 1}/{len(LAYER)}"
        await answer.prepare(request)
        await answer.write(LAYER[start : start + 1_200_000])
        assert request.transport is not None
        request.transport.close()
        return answer

    registry.instead = breaks_twice
    assert await fetched(registry, tmp_path) == LAYER
    assert ranges[0] is None
    first, second = (int(str(told).removeprefix("bytes=").removesuffix("-")) for told in ranges[1:])
    assert 0 < first <= 1_200_000
    assert first < second <= first + 1_200_000


async def test_a_registry_that_ignores_ranges(registry: Registry, tmp_path: Path) -> None:
    counts = iter([1_000_000, 2_000_000, len(LAYER)])

    async def breaks(request: web.Request) -> web.StreamResponse | None:
        return await cut(request, LAYER, next(counts)) if request.path.endswith(digest_of(LAYER)) else None

    registry.instead = breaks
    assert await fetched(registry, tmp_path) == LAYER


async def test_no_progress_ends_it_and_the_next_fetch_goes_on(registry: Registry, tmp_path: Path) -> None:
    tries = []

    async def breaks(request: web.Request) -> web.StreamResponse | None:
        if not request.path.endswith(digest_of(LAYER)):
            return None
        tries.append(request.headers.get("Range"))
        return await cut(request, LAYER, 2_500_000 if len(tries) == 1 else 1_200_000)

    registry.instead = breaks
    pull = source(registry)
    (layer,) = (await pull.resolve(call())).layers
    with pytest.raises(RegistryUnreachable, match="broke"):
        await pull.fetch(call(), layer, tmp_path / "blob")
    assert len(tries) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["blob.part"]
    registry.instead = None
    kept = (tmp_path / "blob.part").stat().st_size
    await pull.fetch(call(), layer, tmp_path / "blob")
    assert registry.requests[-1][1]["Range"] == f"bytes={kept}-"
    assert (tmp_path / "blob").read_bytes() == LAYER


async def test_attempts_are_bounded(registry: Registry, tmp_path: Path) -> None:
    tries = []

    async def a_little_more(request: web.Request) -> web.StreamResponse | None:
        if not request.path.endswith(digest_of(LAYER)):
            return None
        tries.append(1)
        return await cut(request, LAYER, 800_000 * len(tries))

    registry.instead = a_little_more
    with pytest.raises(RegistryUnreachable):
        await fetched(registry, tmp_path, settings=evolve(SETTINGS, attempts_max=3))
    assert len(tries) == 3


async def test_a_wrong_leftover_does_not_spoil_the_layer(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "blob.part").write_bytes(b"x" * 1_000_000)
    assert await fetched(registry, tmp_path) == LAYER


async def test_nobody_listens(registry: Registry) -> None:
    nobody = Registry(host="127.0.0.1:1")
    with pytest.raises(RegistryUnreachable) as refused:
        await source(nobody).resolve(call())
    assert refused.value.evidence is not None
    assert refused.value.evidence["reason"] == "Connection refused"
    assert refused.value.frame is not None
    assert (refused.value.frame.hop, refused.value.frame.id) == ("registry", "127.0.0.1:1")


async def test_a_name_that_does_not_exist() -> None:
    with pytest.raises(RegistryUnreachable, match=r"nowhere\.invalid"):
        await source(Registry(host="nowhere.invalid")).resolve(call())


async def test_silence(registry: Registry) -> None:
    async def silent(request: web.Request) -> None:
        await asyncio.Event().wait()

    registry.instead = silent
    with pytest.raises(RegistryUnreachable, match="does not answer"):
        await source(registry, settings=evolve(SETTINGS, silence_s=0.05)).resolve(call())
    with pytest.raises(BudgetSpent) as late:
        await source(registry).resolve(call(250))
    assert late.value.frame is not None
    assert late.value.frame.hop == "registry"


async def test_a_registry_that_speaks_something_else() -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(speak, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(RegistryFailed, match="does not speak HTTP"):
            await source(Registry(host=f"127.0.0.1:{port}")).resolve(call())


# Content that is not what was announced


async def test_a_layer_with_another_digest(registry: Registry, tmp_path: Path) -> None:
    registry.blobs[digest_of(LAYER)] = bytes(len(LAYER))
    with pytest.raises(ImageCorrupt, match="another digest"):
        await fetched(registry, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("length", [len(LAYER) - 1, len(LAYER) + 1, 0])
async def test_a_layer_with_another_length(registry: Registry, tmp_path: Path, length: int) -> None:
    registry.blobs[digest_of(LAYER)] = (LAYER + b"more")[:length]
    with pytest.raises(ImageCorrupt, match="another length"):
        await fetched(registry, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("told", ["bytes 1-2/3", "bytes x", "", f"bytes {'9' * 5000}-1/*", f"bytes 1-2/{'9' * 5000}"])
async def test_a_range_that_makes_no_sense(registry: Registry, tmp_path: Path, told: str) -> None:
    (tmp_path / "blob.part").write_bytes(LAYER[:1_000_000])

    async def ranged(request: web.Request) -> web.StreamResponse | None:
        if not request.path.endswith(digest_of(LAYER)):
            return None
        return web.Response(status=206, body=LAYER[1_000_000:], headers={"Content-Range": told})

    registry.instead = ranged
    with pytest.raises(RegistryFailed, match="another range"):
        await fetched(registry, tmp_path)


async def test_a_layer_without_an_end(registry: Registry, tmp_path: Path) -> None:
    async def endless(request: web.Request) -> web.StreamResponse | None:
        if not request.path.endswith(digest_of(LAYER)):
            return None
        answer = web.StreamResponse()
        answer.enable_chunked_encoding()
        await answer.prepare(request)
        while True:
            await answer.write(bytes(1_000_000))

    registry.instead = endless
    with pytest.raises(ImageCorrupt, match="longer"):
        await fetched(registry, tmp_path)
    assert list(tmp_path.iterdir()) == []


Broken = Callable[[web.Request], Awaitable[web.StreamResponse | None]]


def always(status: int = 200, body: bytes = b"", **headers: str) -> Broken:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, body=body, headers={k.replace("_", "-"): v for k, v in headers.items()})

    return answer


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (always(body=b"<html>hello"), ImageCorrupt),
        (always(body=b"{"), ImageCorrupt),
        (always(body=b"[]"), ImageCorrupt),
        (always(body=bytes(DOCUMENT_BYTES_MAX + 1)), ImageCorrupt),
        (always(body=IMAGE.manifest, Content_Type="application/vnd.oci.image.manifest.v1+json"), ImageCorrupt),
        (always(body=IMAGE.manifest, Content_Encoding="gzip"), RegistryFailed),
        (always(body=b'{"mediaType": "application/vnd.example"}'), ImageUnsupported),
        (always(204), RegistryFailed),
        (always(302), RegistryFailed),
        (always(302, Location="/again"), RegistryFailed),
        (always(302, Location="http://[bad"), RegistryFailed),
        (always(302, Location="ftp://h/x"), RegistryFailed),
        (always(400, b"bad"), RegistryFailed),
        (always(401), RegistryDenied),
        (always(401, WWW_Authenticate="Negotiate"), RegistryDenied),
        (always(401, WWW_Authenticate='Basic realm="r"'), RegistryDenied),
        (always(401, WWW_Authenticate="Bearer"), RegistryFailed),
        (always(401, WWW_Authenticate='Bearer realm="nonsense"'), RegistryFailed),
        (always(401, WWW_Authenticate='Bearer realm="http://[bad"'), RegistryFailed),
        (always(403), RegistryDenied),
        (always(404), ImageNotFound),
        (always(429), RegistryRateLimited),
        (always(500), RegistryFailed),
        (always(503, Retry_After="7"), RegistryFailed),
    ],
)
async def test_every_answer_has_its_error(registry: Registry, answer: Broken, error: type[DiegoError]) -> None:
    registry.instead = answer
    with pytest.raises(error) as failed:
        await source(registry, user="vcap").resolve(call())
    assert type(failed.value) is error
    assert failed.value.frame is not None
    assert PASSWORD not in words(failed.value)


async def test_the_registry_s_own_words(registry: Registry) -> None:
    with pytest.raises(ImageNotFound) as missing:
        await source(registry, "a/app:missing").resolve(call())
    assert missing.value.evidence is not None
    assert missing.value.evidence["status"] == 404
    assert missing.value.evidence["at"] == f"http://{registry.host}/v2/a/app/manifests/missing"
    assert "manifest unknown" in missing.value.evidence["answer"]["text"]


async def test_how_long_to_wait(registry: Registry) -> None:
    far = f"Mon, 01 Jan {10**20} 00:00:00 GMT"
    in_an_hour = email.utils.format_datetime(datetime.now(UTC) + timedelta(hours=1))
    for header, seconds in (("30", 30), (in_an_hour, 3600), ("9" * 30, 86_400), ("soon", None), (far, None)):
        registry.instead = always(429, Retry_After=header)
        with pytest.raises(RegistryRateLimited) as limited:
            await source(registry).resolve(call())
        assert limited.value.retry_after_s == (None if seconds is None else pytest.approx(seconds, abs=60))


# Credentials


def wants(authorization: str, challenge: str) -> Broken:
    async def answer(request: web.Request) -> web.StreamResponse | None:
        if request.path.startswith("/v2/") and request.headers.get("Authorization") != authorization:
            said = f"you are {request.headers.get('Authorization')}, {PASSWORD}"
            return web.Response(status=401, text=said, headers={"WWW-Authenticate": challenge})
        return None

    return answer


async def test_basic_credentials(registry: Registry, tmp_path: Path) -> None:
    registry.instead = wants(basic("vcap", PASSWORD), 'Basic realm="r"')
    assert await fetched(registry, tmp_path, user="vcap") == LAYER
    assert registry.authorizations()[0] is None, "nothing is sent unasked"
    with pytest.raises(RegistryDenied, match="got none"):
        await source(registry).resolve(call())


async def test_refused_credentials_are_tried_once_and_not_told(registry: Registry) -> None:
    registry.instead = wants("something else", 'Basic realm="r"')
    with pytest.raises(RegistryDenied) as denied:
        await source(registry, user="vcap").resolve(call())
    assert len(registry.requests) == 2
    assert PASSWORD not in words(denied.value)
    assert basic("vcap", PASSWORD).removeprefix("Basic ") not in words(denied.value)
    assert "***" in words(denied.value)


async def test_a_token_for_this_repository(registry: Registry, other: Registry, tmp_path: Path) -> None:
    async def token(request: web.Request) -> web.StreamResponse:
        assert request.query["service"] == "registry"
        assert request.query["scope"] == "repository:a/app:pull"
        assert request.query["kept"] == "1"
        return web.json_response({"token": TOKEN})

    other.instead = token
    realm = f'Bearer realm="http://{other.host}/token?kept=1",service="registry",scope="repository:a/app:pull"'
    registry.instead = wants(f"Bearer {TOKEN}", realm)
    assert await fetched(registry, tmp_path, user="vcap") == LAYER
    assert set(other.authorizations()) == {basic("vcap", PASSWORD)}
    assert set(registry.authorizations()) == {None, f"Bearer {TOKEN}"}
    other.requests.clear()
    await source(registry).resolve(call())
    assert other.authorizations() == [None], "without credentials the token is asked for without"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (always(body=b"nonsense"), RegistryFailed),
        (always(body=b"[]"), RegistryFailed),
        (always(body=b"{}"), RegistryFailed),
        (always(body=b'{"token": "a\\r\\nX: y"}'), RegistryFailed),
        (always(body=b'{"token": 7}'), RegistryFailed),
        (always(body=b'{"token": "' + b"x" * 100_000 + b'"}'), RegistryFailed),
        (always(302, Location="http://127.0.0.1/"), RegistryFailed),
        (always(401), RegistryDenied),
        (always(429), RegistryRateLimited),
    ],
)
async def test_a_token_service_that_fails(
    registry: Registry, other: Registry, answer: Broken, error: type[DiegoError]
) -> None:
    other.instead = answer
    registry.instead = wants("never", f'Bearer realm="http://{other.host}/"')
    with pytest.raises(error):
        await source(registry, user="vcap").resolve(call())


async def test_a_redirect_to_another_host_gets_no_credentials(
    registry: Registry, other: Registry, tmp_path: Path
) -> None:
    other.blobs = dict(IMAGE.blobs)
    demanded = wants(basic("vcap", PASSWORD), 'Basic realm="r"')

    async def redirecting(request: web.Request) -> web.StreamResponse | None:
        refused = await demanded(request)
        if refused is None and "/blobs/" in request.path:
            raise web.HTTPTemporaryRedirect(f"http://{other.host}{request.path}?signature=secret%2Fkept")
        return refused

    registry.instead = redirecting
    assert await fetched(registry, tmp_path, user="vcap") == LAYER
    assert len(other.requests) == 2
    assert other.authorizations() == [None, None]
    other.instead = always(401, WWW_Authenticate='Basic realm="r"')
    with pytest.raises(RegistryDenied) as denied:
        await source(registry, user="vcap").resolve(call())
    assert other.authorizations() == [None] * len(other.requests)
    assert "signature" not in words(denied.value)


async def test_credentials_never_go_over_plain_http(registry: Registry) -> None:
    """A host that is listed as insecure may be asked; the address stands for one that is not this machine."""
    from cells.garden.images import challenge

    registry.instead = wants("never", 'Basic realm="r"')
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(challenge, "is_loopback", lambda host: False)
        settings = evolve(SETTINGS, insecure_registries=(registry.host,))
        with pytest.raises(RegistryDenied, match="plain HTTP"):
            await source(registry, settings=settings, user="vcap").resolve(call())
    assert registry.authorizations() == [None]


# Mirrors


async def test_a_mirror_is_asked_first_and_without_credentials(
    registry: Registry, other: Registry, tmp_path: Path
) -> None:
    other.add("latest", IMAGE)
    settings = evolve(SETTINGS, mirrors={registry.host: (other.host,)})
    assert await fetched(registry, tmp_path, settings=settings, user="vcap") == LAYER
    assert registry.requests == []
    assert set(other.authorizations()) == {None}


async def test_the_registry_is_asked_when_the_mirror_fails(registry: Registry, other: Registry, tmp_path: Path) -> None:
    settings = evolve(SETTINGS, mirrors={registry.host: ("127.0.0.1:1", other.host)})
    assert await fetched(registry, tmp_path, settings=settings) == LAYER
    with pytest.raises(RegistryFailed) as failed:
        await source(registry, "a/app:missing", settings=settings).resolve(call())
    assert isinstance(failed.value.root, ImageNotFound)
    assert [type(attempt) for attempt in failed.value.attempts] == [RegistryUnreachable, ImageNotFound]
    frames = chain.problem(failed.value, call()).chain
    assert [frame.id for frame in frames[1:]] == ["127.0.0.1:1", other.host, registry.host]


async def test_a_silent_mirror_leaves_time_for_the_registry(registry: Registry, other: Registry) -> None:
    async def silent(request: web.Request) -> None:
        await asyncio.Event().wait()

    other.instead = silent
    settings = evolve(SETTINGS, mirrors={registry.host: (other.host,)})
    image = await source(registry, settings=settings).resolve(call(2_000))
    assert image.digest == digest_of(IMAGE.manifest)


# TLS, and the disk


async def test_a_private_authority(tmp_path: Path) -> None:
    pem = way_out.authority(tmp_path, "IP:127.0.0.1")
    served = Registry()
    served.add("latest", IMAGE)
    async with served.serving(tls=way_out.serves(pem)):

        def pull(ca_file: str) -> RegistrySource:
            plain = source(served, settings=evolve(SETTINGS, ca_file=ca_file))
            assert isinstance(plain, RegistrySource)
            return evolve(plain, endpoints=(evolve(plain.endpoints[-1], plain=False),))

        image: Image = await pull(str(pem)).resolve(call())
        assert image.digest == digest_of(IMAGE.manifest)
        with pytest.raises(RegistryUnreachable) as distrusted:
            await pull("").resolve(call())
        assert distrusted.value.evidence is not None
        assert "certificate" in distrusted.value.evidence["reason"]
        with pytest.raises(RegistryUnreachable, match="authorities"):
            await pull(str(tmp_path / "missing.pem")).resolve(call())


async def test_the_disk_s_own_error_comes_through(registry: Registry, tmp_path: Path) -> None:
    pull = source(registry)
    (layer,) = (await pull.resolve(call())).layers
    with pytest.raises(FileNotFoundError):
        await pull.fetch(call(), layer, tmp_path / "missing" / "blob")
    (tmp_path / "blob.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match=os.strerror(40)):
        await pull.fetch(call(), layer, tmp_path / "blob")
