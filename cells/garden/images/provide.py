"""From what a container asks for as its root file system to the directories that it is mounted from."""

from __future__ import annotations

from pathlib import Path

from attrs import evolve, field, frozen

from cells.garden import rootfs
from cells.garden.bundle.mounts import PAUSE
from cells.garden.config import GardenConfig
from cells.garden.depot import FromImage
from cells.garden.images import source
from cells.garden.images.source import ImageConfig, Source
from cells.garden.images.store import Store
from cells.garden.spec import ContainerSpec
from diego_py.call import Call

USER_DEFAULT = "root"


@frozen
class Root:
    """What a container's root is made of."""

    lowers: tuple[Path, ...]
    """Read-only directories, the lowest first; ids in them are not shifted."""
    top: str = ""
    """Chain id of the highest layer in the store; empty when the root is not of the store."""
    config: ImageConfig = field(factory=ImageConfig)


@frozen
class Wanted:
    """A root that may still have to be fetched."""

    rootfs: str
    local: Path | None
    source: Source | None
    store: Store = field(repr=False)

    async def provide(self, call: Call) -> Root:
        """Have it here. What the store gives is safe from removal until the caller yields: keep `top` by then.

        Raises what Source and Store do.
        """
        if self.source is None:
            assert self.local is not None
            return Root((self.local,))
        image = await self.source.resolve(call)
        chain = await self.store.have(call, image, self.source)
        self.store.held.used(self.rootfs, chain[-1], image.digest)
        return Root(self.store.paths(chain), chain[-1], image.config)


def find(spec: ContainerSpec, config: GardenConfig, store: Store) -> Wanted:
    """What the spec asks for, checked as far as can be at once.

    Raises RootfsNotFound, RootfsInvalid, and what `source_of` does for a reference that makes no sense.
    """
    if spec.rootfs.startswith(rootfs.SCHEME):
        return Wanted(spec.rootfs, rootfs.find(config.image_root, spec.rootfs), None, store)
    return Wanted(spec.rootfs, None, source_of(spec, config), store)


def source_of(spec: ContainerSpec, config: GardenConfig) -> Source:
    """Where the spec's image comes from. Raises InvalidSpec, ImageNotAllowed."""
    return source.source_of(spec.rootfs, spec.image_username, spec.image_password, config.images)


def completed(spec: ContainerSpec, config: ImageConfig) -> ContainerSpec:
    """The spec, with the image's word where it is silent: what the process really is. Raises ImageHasNoCommand."""
    image = said(config)
    path, *args = (PAUSE,) if spec.idle else image.command(spec.path, spec.args)
    return evolve(
        spec,
        path=path,
        args=tuple(args),
        env=tuple({**dict(config.env), **dict(spec.env)}.items()),
        cwd=spec.cwd or image.cwd or None,
        user=spec.user or image.user,
    )


def said(config: ImageConfig) -> FromImage:
    """What is kept of the image for processes that say nothing."""
    return FromImage(config.user or USER_DEFAULT, config.working_dir, config.entrypoint, config.cmd)
