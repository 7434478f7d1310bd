"""Containers from a real registry and from files: what is pulled, what is pulled again, and who may pull."""

from __future__ import annotations

import random
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from cells.garden.config import ImageSettings
from cells.garden.garden import Garden
from cells.garden.images.documents import DOCKER_MANIFEST, OCI_MANIFEST, OCI_TAR
from cells.garden.images.source import source_of
from diego_py.chain import problem
from diego_py.errors import GardenFailed, ImageNotFound, RegistryDenied, RegistryFailed, RegistryUnreachable
from diego_py.secret import Secret
from tests.fakes.image_files import as_directory, as_gzip, as_tar, layout, saved
from tests.fakes.registry import CONFIG, BuiltImage, Registry, build, cut, digest_of
from tests.kernel.containers import call, output, shell
from tests.kernel.images import busybox, member, tar
from tests.kernel.registry import ALLOWED, PASSWORD, USERNAME, RealRegistry, registry

pytestmark = pytest.mark.kernel

DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
LAYERS = [tar(*busybox()), tar(member("etc/word", b"from the registry\n", mode=0o644))]
PROCESS = {"Env": ["FROM=image", "PATH=/bin"], "User": "alice", "WorkingDir": "/tmp"}


@pytest.fixture(scope="module")
def image() -> BuiltImage:
    """A shell, and a layer above it with a word."""
    return build(LAYERS, PROCESS)


@pytest.fixture
async def public() -> AsyncIterator[RealRegistry]:
    async with registry() as running:
        yield running


@pytest.fixture
async def private() -> AsyncIterator[RealRegistry]:
    async with registry(account=True) as running:
        yield running


def as_docker_says(image: BuiltImage) -> BuiltImage:
    """The same image in the words of Docker's own format."""
    manifest = image.manifest.decode().replace(OCI_TAR + "+", DOCKER_LAYER + ".")
    for oci, docker in ((OCI_MANIFEST, DOCKER_MANIFEST), (CONFIG, DOCKER_CONFIG)):
        manifest = manifest.replace(f'"{oci}"', f'"{docker}"')
    return BuiltImage(manifest.encode(), image.blobs, image.layers)


async def words(garden: Garden, handle: str, rootfs: str, **more: Any) -> list[str]:
    return await output(garden, shell(handle, "cat /etc/word; echo $FROM; id -u; pwd", rootfs=rootfs, user="", **more))


SAID = ["from the registry", "image", "1001", "/tmp"]


async def test_tags_and_digests(garden: Garden, public: RealRegistry, image: BuiltImage) -> None:
    digest = await public.push("shop/web:v1", image, OCI_MANIFEST)
    for number, name in enumerate((":v1", "#v1", f"@{digest}", f":gone@{digest}")):
        assert await words(garden, f"c{number}", f"docker://{public.host}/shop/web{name}") == SAID


async def test_dockers_own_format(garden: Garden, public: RealRegistry, image: BuiltImage) -> None:
    await public.push("web:latest", as_docker_says(image), DOCKER_MANIFEST)
    assert await words(garden, "c", f"docker://{public.host}/web") == SAID


async def test_layers_of_zstd(new_garden: Callable[..., Any], public: RealRegistry, open_directory: Path) -> None:
    """In both formats' words, from a registry and from a layout; the layers are those of any other compression."""
    settings = ImageSettings(image_dirs=(str(open_directory),), allowed=ALLOWED)
    garden: Garden = await new_garden(images=settings)
    image = build(LAYERS, PROCESS, "zstd")
    await public.push("web:oci", image, OCI_MANIFEST)
    await public.push("web:docker", as_docker_says(image), DOCKER_MANIFEST)
    as_directory(open_directory / "layout", layout((image, "v1")))
    names = (f"docker://{public.host}/web:oci", f"docker://{public.host}/web:docker", f"oci:{open_directory}/layout:v1")
    for number, name in enumerate(names):
        for layer in garden._store.layers:  # So that each fetches its own.
            shutil.rmtree(garden._store.files.layers / layer.chain_id)
        await garden._store.prepare()
        assert await words(garden, f"c{number}", name) == SAID
    await public.push("web:gzip", build(LAYERS, PROCESS), OCI_MANIFEST)
    image_of_gzip = await source_of(f"docker://{public.host}/web:gzip", "", None, settings).resolve(call())
    assert [layer.diff_id for layer in image_of_gzip.layers] == [digest_of(content) for content in LAYERS]
    assert {layer.diff_id for layer in garden._store.layers} == {layer.diff_id for layer in image_of_gzip.layers}


async def test_layers_are_not_fetched_again_but_the_tag_is_asked(
    new_garden: Callable[..., Any], public: RealRegistry, image: BuiltImage
) -> None:
    """So a new push is seen at the next create, and nobody runs from the store what the registry would not give."""
    garden: Garden = await new_garden(images=ImageSettings(default_registry=public.host))
    await public.push("web:latest", image, OCI_MANIFEST)
    assert await words(garden, "a", "docker:///web") == SAID
    layers = {path.name for path in Path(garden.config.state_dir, "images/layers").iterdir()}
    changed = build([tar(*busybox()), tar(member("etc/word", b"pushed again\n", mode=0o644))], {"Env": ["PATH=/bin"]})
    await public.push("web:latest", changed, OCI_MANIFEST)
    assert (await words(garden, "b", "docker:///web"))[0] == "pushed again"
    after = {path.name for path in Path(garden.config.state_dir, "images/layers").iterdir()}
    assert layers < after
    assert len(after - layers) == 1
    public.stop()
    with pytest.raises(GardenFailed) as failed:
        await words(garden, "c", "docker:///web")
    assert isinstance(failed.value.root, RegistryUnreachable)


async def test_an_account(garden: Garden, private: RealRegistry, image: BuiltImage) -> None:
    await private.push("web:latest", image, OCI_MANIFEST)
    rootfs = f"docker://{private.host}/web"
    mine = {"image_username": USERNAME, "image_password": Secret(PASSWORD)}
    assert await words(garden, "a", rootfs, **mine) == SAID
    for number, wrong in enumerate(({}, {**mine, "image_password": Secret("close sesame")})):
        with pytest.raises(GardenFailed) as failed:
            await words(garden, f"b{number}", rootfs, **wrong)
        assert isinstance(failed.value.root, RegistryDenied)
        assert "close sesame" not in problem(failed.value, call()).encode().decode()


async def test_what_came_of_a_layer_is_kept_for_the_next_create(garden: Garden) -> None:
    """A layer that is too large for one request's time arrives with the next ones."""
    noise = random.Random(3).randbytes(4 << 20)
    image = build([tar(*busybox(), member("etc/word", b"from the registry\n", mode=0o644), member("noise", noise))])
    served = Registry()
    served.add("latest", image)
    (layer,) = image.layers
    half = len(layer) // 2

    async def breaks(request: web.Request) -> web.StreamResponse | None:
        if not request.path.endswith(digest_of(layer)):
            return None
        return await cut(request, layer, half) if "Range" not in request.headers else web.Response(status=503)

    served.instead = breaks
    async with served.serving() as running:
        rootfs = f"docker://{running.host}/web"
        with pytest.raises(GardenFailed) as failed:
            await words(garden, "a", rootfs)
        assert isinstance(failed.value.root, RegistryFailed)
        served.instead = None
        assert (await words(garden, "b", rootfs))[0] == "from the registry"
    continued = running.requests[-1][1]["Range"].removeprefix("bytes=").removesuffix("-")
    assert half - (1 << 20) < int(continued) <= half
    assert list(Path(garden.config.state_dir, "images/blobs").iterdir()) == []


async def test_an_image_of_the_cell_itself(
    new_garden: Callable[..., Any], image: BuiltImage, open_directory: Path
) -> None:
    garden: Garden = await new_garden(images=ImageSettings(image_dirs=(str(open_directory),)))
    as_directory(open_directory / "layout", layout((image, "v1")))
    as_tar(open_directory / "saved.tar", saved(image, "v1"))
    as_gzip(open_directory / "saved.tar.gz", saved(image, "v1"))
    for number, name in enumerate(("saved.tar.gz", "layout", "layout:v1", "saved.tar:v1")):
        assert await words(garden, f"c{number}", f"oci:{open_directory}/{name}") == SAID
    assert len(list(Path(garden.config.state_dir, "images/layers").iterdir())) == 2


async def test_an_image_that_is_not_there(garden: Garden, public: RealRegistry) -> None:
    with pytest.raises(GardenFailed) as failed:
        await words(garden, "c", f"docker://{public.host}/nobody:v1")
    document = problem(failed.value, call())
    assert isinstance(failed.value.root, ImageNotFound)
    assert [(frame.hop, frame.code) for frame in document.chain] == [
        ("garden", "garden.failed"),
        ("registry", "image.not_found"),
    ]
    assert document.evidence is not None
    assert "MANIFEST_UNKNOWN" in document.evidence["answer"]["text"]
    assert garden.containers() == []
