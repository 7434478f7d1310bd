"""The image speaks where the container is silent, and nowhere else."""

from __future__ import annotations

import pytest

from cells.garden.images.provide import completed
from cells.garden.images.source import ImageConfig
from cells.garden.spec import ContainerSpec
from diego_py.errors import ImageHasNoCommand

CONFIG = ImageConfig(
    env=(("A", "image"), ("B", "image")), user="alice", working_dir="/work", entrypoint=("/entry", "-x"), cmd=("c", "d")
)


def test_what_is_said_stays() -> None:
    spec = ContainerSpec("h", "docker:///x", "/bin/a", ("b",), (("B", "spec"),), "/here", "bob")
    made = completed(spec, CONFIG)
    assert (made.path, made.args, made.cwd, made.user) == ("/bin/a", ("b",), "/here", "bob")
    assert made.env == (("A", "image"), ("B", "spec"))


def test_what_is_not_said_is_the_images() -> None:
    made = completed(ContainerSpec("h", "docker:///x", ""), CONFIG)
    assert (made.path, made.args, made.cwd, made.user) == ("/entry", ("-x", "c", "d"), "/work", "alice")
    with_arguments = completed(ContainerSpec("h", "docker:///x", "", ("e",)), CONFIG)
    assert with_arguments.args == ("-x", "e")


def test_an_image_that_says_nothing() -> None:
    made = completed(ContainerSpec("h", "preloaded:x", "/bin/a"), ImageConfig())
    assert (made.user, made.cwd, made.env) == ("root", None, ())
    with pytest.raises(ImageHasNoCommand):
        completed(ContainerSpec("h", "preloaded:x", ""), ImageConfig())
