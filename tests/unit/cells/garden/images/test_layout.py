"""Images on the cell's own disk, and paths that lead elsewhere."""

from __future__ import annotations

import gzip
import lzma
import os
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cells.garden.config import ImageSettings
from cells.garden.images.image import Image
from cells.garden.images.source import source_of
from diego_py.call import Call
from diego_py.errors import BudgetSpent, DiegoError, ImageCorrupt, ImageNotAllowed, ImageNotFound, ImageUnsupported
from diego_py.service.clock import SystemClock
from tests.fakes.image_files import Files, as_directory, as_gzip, as_tar, layout, saved
from tests.fakes.registry import ARCHITECTURE, build, digest_of

Write = Callable[[Path, Files], Path]

IMAGE = build([b"lower" * 100, b"upper" * 100], {"User": "alice"})
OTHER = build([b"other"])
NOTHING = gzip.compress(bytes(8 << 20), 1)


def call(budget_ms: float = 10_000) -> Call:
    return Call.begin(SystemClock(), budget_ms)


both = pytest.mark.parametrize("write", [as_directory, as_tar, as_gzip])


async def resolved(path: Path, tag: str = "") -> Image:
    settings = ImageSettings(image_dirs=(str(path.parent),))
    return await source_of(f"oci:{path}{tag}", "", None, settings).resolve(call())


async def fetched(path: Path, directory: Path, tag: str = "") -> list[bytes]:
    pull = source_of(f"oci:{path}{tag}", "", None, ImageSettings(image_dirs=(str(path.parent),)))
    image = await pull.resolve(call())
    for number, layer in enumerate(image.layers):
        await pull.fetch(call(), layer, directory / str(number))
    return [(directory / name).read_bytes() for name in sorted(os.listdir(directory))]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A path for an image; its directory is the allowed one."""
    return tmp_path / "images" / "app"


@pytest.fixture
def blobs(tmp_path: Path) -> Path:
    directory = tmp_path / "blobs"
    directory.mkdir()
    return directory


@both
@pytest.mark.parametrize("tag", ["", "v1", "latest"])
async def test_the_only_image_of_a_layout(write: Write, place: Path, blobs: Path, tag: str) -> None:
    write(place, layout((IMAGE, tag)))
    found = await resolved(place)
    assert (found.digest, found.config.user) == (digest_of(IMAGE.manifest), "alice")
    assert await fetched(place, blobs) == IMAGE.layers


@both
async def test_one_of_several(write: Write, place: Path, blobs: Path) -> None:
    write(place, layout((OTHER, "v1"), (IMAGE, "v2")))
    assert (await resolved(place, ":v2")).digest == digest_of(IMAGE.manifest)
    assert await fetched(place, blobs, ":v2") == IMAGE.layers
    with pytest.raises(ImageNotFound) as missing:
        await resolved(place, ":v3")
    assert missing.value.evidence == {"tags": ["v1", "v2"]}
    with pytest.raises(ImageNotFound):
        await resolved(place)


@both
async def test_latest_is_the_default_of_several(write: Write, place: Path) -> None:
    write(place, layout((OTHER, "v1"), (IMAGE, "latest")))
    assert (await resolved(place)).digest == digest_of(IMAGE.manifest)


@both
@pytest.mark.parametrize("tag", ["", ":v1"])
async def test_docker_save(write: Write, place: Path, blobs: Path, tag: str) -> None:
    write(place, saved(IMAGE, "v1"))
    assert (await resolved(place, tag)).config.architecture == ARCHITECTURE
    assert await fetched(place, blobs, tag) == [gzip.decompress(layer) for layer in IMAGE.layers]
    with pytest.raises(ImageNotFound):
        await resolved(place, ":v2")


async def test_layers_that_docker_wrote_as_links(place: Path, blobs: Path) -> None:
    content = b"same" * 100
    files = saved(build([content, content]), "v1")
    del files["1/layer.tar"]
    as_tar(place, files)
    with tarfile.open(place, "a") as tar:
        info = tarfile.TarInfo("1/layer.tar")
        info.type, info.linkname = tarfile.SYMTYPE, "../0/layer.tar"
        tar.addfile(info)
    assert await fetched(place, blobs) == [content, content]


@both
async def test_a_layer_that_is_not_what_it_says(write: Write, place: Path, blobs: Path) -> None:
    files = layout((IMAGE, ""))
    name = "blobs/" + digest_of(IMAGE.layers[0]).replace(":", "/")
    for content, told in ((bytes(len(files[name])), "another digest"), (b"short", "another length")):
        path = write(place.with_name(told.replace(" ", "-")), {**files, name: content})
        with pytest.raises(ImageCorrupt, match=told):
            await fetched(path, blobs)
        assert list(blobs.iterdir()) == []


@both
@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"index.json": b"{"}, ImageCorrupt),
        ({"index.json": IMAGE.manifest}, ImageCorrupt),
        ({"index.json": bytes(5_000_000)}, ImageCorrupt),
        ({"blobs/" + digest_of(IMAGE.manifest).replace(":", "/"): b"{}"}, ImageCorrupt),
    ],
)
async def test_damaged_documents(write: Write, place: Path, changed: Files, error: type[DiegoError]) -> None:
    write(place, {**layout((IMAGE, "")), **changed})
    with pytest.raises(error):
        await resolved(place)


@both
async def test_what_is_no_image(write: Write, place: Path) -> None:
    write(place, {"readme": b"hello"})
    with pytest.raises(ImageNotFound, match="holds no image"):
        await resolved(place)
    with pytest.raises(ImageNotFound, match="there is no"):
        await resolved(place.with_name("missing"))


async def test_files_that_are_no_archives(place: Path) -> None:
    place.parent.mkdir()
    whole = as_tar(place.with_name("whole"), layout((IMAGE, ""))).read_bytes()
    nothing = (b"", b"no archive" * 100, gzip.compress(b"no archive" * 100), gzip.compress(b""), lzma.compress(whole))
    for content in nothing:
        place.write_bytes(content)
        with pytest.raises((ImageUnsupported, ImageNotFound)):
            await resolved(place)
    for damaged in (whole[:2000], gzip.compress(whole)[:-20], gzip.compress(whole[:2000]), gzip.compress(whole) + b"x"):
        place.write_bytes(damaged)
        with pytest.raises((ImageCorrupt, ImageUnsupported, ImageNotFound)):
            await resolved(place)


async def test_a_compressed_archive_that_is_changed_meanwhile(place: Path, blobs: Path) -> None:
    """What was found in the old one is not looked for in the new one."""
    as_gzip(place, layout((OTHER, "v1")))
    pull = source_of(f"oci:{place}", "", None, ImageSettings(image_dirs=(str(place.parent),)))
    await pull.resolve(call())
    as_gzip(place, layout((IMAGE, "v2")))
    (layer, _) = (await pull.resolve(call())).layers
    as_gzip(place, layout((IMAGE, "v2"), (OTHER, "v1")))
    await pull.fetch(call(), layer, blobs / "0")
    assert (blobs / "0").read_bytes() == IMAGE.layers[0]
    as_gzip(place, layout((OTHER, "v1")))
    with pytest.raises(ImageNotFound):
        await pull.fetch(call(), layer, blobs / "1")


async def test_a_compressed_archive_without_end(place: Path) -> None:
    """Reading it through ends with the request: it has 32 GiB of nothing."""
    as_gzip(place, layout((IMAGE, "")))
    with place.open("ab") as file:
        for _ in range(4000):
            file.write(NOTHING)
    pull = source_of(f"oci:{place}", "", None, ImageSettings(image_dirs=(str(place.parent),)))
    began_s = time.monotonic()
    with pytest.raises(BudgetSpent):
        await pull.resolve(call(300))
    assert time.monotonic() - began_s < 20


async def test_a_pipe_does_not_hold_us(place: Path) -> None:
    place.parent.mkdir()
    os.mkfifo(place)
    with pytest.raises(ImageUnsupported, match="no directory and no file"):
        await resolved(place)
    place.unlink()
    as_directory(place, layout((IMAGE, "")))
    (place / "index.json").unlink()
    os.mkfifo(place / "index.json")
    with pytest.raises(ImageNotFound):
        await resolved(place)


# Paths that lead elsewhere


async def test_only_allowed_directories(tmp_path: Path) -> None:
    path = as_directory(tmp_path / "elsewhere" / "app", layout((IMAGE, "")))
    for allowed in ((), (str(tmp_path / "images"),), (str(tmp_path / "else"),)):
        with pytest.raises(ImageNotAllowed):
            await source_of(f"oci:{path}", "", None, ImageSettings(image_dirs=allowed)).resolve(call())
    found = await source_of(f"oci:{path}", "", None, ImageSettings(image_dirs=(str(path.parent),))).resolve(call())
    assert found.digest == digest_of(IMAGE.manifest)


async def test_no_link_leads_out_of_them(tmp_path: Path, place: Path) -> None:
    outside = as_directory(tmp_path / "outside", layout((IMAGE, "")))
    place.parent.mkdir()
    for target in (str(outside), "../outside"):
        place.symlink_to(target)
        with pytest.raises(ImageNotFound):
            await resolved(place)
        place.unlink()


async def test_no_link_leads_out_of_a_layout(tmp_path: Path, place: Path, blobs: Path) -> None:
    as_directory(place, layout((IMAGE, "")))
    layer = place / ("blobs/" + digest_of(IMAGE.layers[0]).replace(":", "/"))
    outside = tmp_path / "outside"
    layer.rename(outside)
    for target in (str(outside), os.path.relpath(outside, layer.parent)):
        layer.symlink_to(target)
        with pytest.raises(ImageNotFound):
            await fetched(place, blobs)
        layer.unlink()
    assert list(blobs.iterdir()) == []


async def test_names_in_a_saved_archive_stay_in_it(tmp_path: Path, place: Path, blobs: Path) -> None:
    files = saved(build([b"content"]), "v1")
    files["manifest.json"] = files["manifest.json"].replace(b"0/layer.tar", b"../secret")
    as_directory(place, files)
    (place.parent / "secret").write_bytes(b"content")
    with pytest.raises(ImageCorrupt):
        await resolved(place)


async def test_the_budget_holds_here_too(place: Path) -> None:
    as_directory(place, layout((IMAGE, "")))
    pull = source_of(f"oci:{place}", "", None, ImageSettings(image_dirs=(str(place.parent),)))
    with pytest.raises(BudgetSpent):
        await pull.resolve(call(1))


@pytest.mark.parametrize(
    "settings",
    [
        {"image_dirs": ("relative",)},
        {"image_dirs": ("/a/../b",)},
        {"image_dirs": ("/a:b",)},
        {"default_registry": "UPPER"},
        {"insecure_registries": ("h/path",)},
        {"mirrors": {"h": ("http://mirror",)}},
        {"mirrors": {"user@h": ()}},
    ],
)
def test_settings_that_name_nothing(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"host|path|lower"):
        ImageSettings(**settings)  # type: ignore[arg-type]
