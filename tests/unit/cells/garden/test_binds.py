"""Which mounts a container may ask for."""

from __future__ import annotations

import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cells.garden.binds import MOUNTS_MAX, check
from cells.garden.spec import BindMount, ContainerSpec, TmpfsMount
from diego_py.errors import InvalidSpec


def wanting(*mounts: BindMount | TmpfsMount) -> ContainerSpec:
    return ContainerSpec("a", "preloaded:x", "/bin/true", mounts=mounts)


@given(st.text(alphabet="/.aprocsyd\0", max_size=12))
def test_what_passes_is_a_plain_path_outside_the_kernels_own(destination: str) -> None:
    try:
        check(wanting(TmpfsMount(destination, 1)))
    except InvalidSpec:
        return
    assert posixpath.normpath(destination) == destination
    assert destination.startswith("/")
    assert destination.split("/")[1] not in ("", "proc", "sys", "dev")


def test_every_bad_one_is_named() -> None:
    bad = (BindMount("/s", "relative"), TmpfsMount("/ok", 1), TmpfsMount("/t", 0), TmpfsMount("/proc/x", 1))
    with pytest.raises(InvalidSpec) as failed:
        check(wanting(*bad))
    pointers = [error["pointer"] for error in failed.value.errors]
    assert pointers == ["/mounts/0/destination", "/mounts/2/size_bytes", "/mounts/3/destination"]
    with pytest.raises(InvalidSpec):
        check(wanting(*(TmpfsMount(f"/t{number}", 1) for number in range(MOUNTS_MAX + 1))))
