"""`diego rootfs`: the root file systems that the cells of this machine offer as `preloaded:NAME`."""

from __future__ import annotations

from pathlib import Path

import click

from diego_py.cli import rootfs_busybox, rootfs_tree
from diego_py.cli.lines import GOOD, Line
from diego_py.cli.session import Session, with_session
from diego_py.errors import RootfsInvalid

_image_root = click.option(
    "--image-root",
    type=click.Path(path_type=Path),
    default=rootfs_tree.IMAGE_ROOT,
    show_default=True,
    help="Where the cell keeps them.",
)


@click.group()
def rootfs() -> None:
    """Import, list and remove the root file systems that cells of this machine offer."""


@rootfs.command()
@click.argument("name")
@click.argument("source", type=click.Path(exists=True, path_type=Path), required=False)
@click.option("--replace", is_flag=True, help="Put it in the place of the one of this name.")
@_image_root
@with_session
def add(session: Session, name: str, source: Path | None, replace: bool, image_root: Path) -> None:
    """Import a directory or a tar archive; `add busybox` builds one from this machine's static busybox.

    An archive with absolute names, `..`, devices or names through links is refused, and nothing is left of it.
    """
    if source is None and name != rootfs_busybox.NAME:
        raise click.UsageError(f"name a directory or a tar archive; only `add {rootfs_busybox.NAME}` needs none")
    with rootfs_tree.making(image_root, name, replace) as tree:
        if source is None:
            rootfs_busybox.build(tree)
        elif source.is_dir():
            rootfs_tree.import_directory(source, tree)
        else:
            rootfs_tree.import_archive(source, tree)
        if not any(tree.iterdir()):
            raise RootfsInvalid(f"import {name}: there is nothing in it")
    session.say(
        {"name": name, "path": str(image_root / name)},
        [Line(f"✓ {name} is at {image_root / name}: use it with --rootfs {name}", GOOD)],
    )


@rootfs.command("list")
@_image_root
@with_session
def list_(session: Session, image_root: Path) -> None:
    """List what there is."""
    found = rootfs_tree.names(image_root)
    rows = [[name, f"preloaded:{name}", str(image_root / name)] for name in found]
    value = {"items": [{"name": name, "path": path} for name, _, path in rows]}
    session.say_table(value, ("NAME", "ROOTFS", "PATH"), rows, f"{image_root} has none: diego rootfs add busybox")


@rootfs.command()
@click.argument("name")
@_image_root
@with_session
def remove(session: Session, name: str, image_root: Path) -> None:
    """Remove one. Containers that run from it lose their files: delete those first."""
    rootfs_tree.remove(image_root, name)
    session.say({"name": name}, [Line(f"✓ {name} is removed", GOOD)])
