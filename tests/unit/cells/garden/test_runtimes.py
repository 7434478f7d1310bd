"""Which runtime it is, and whether its version is safe."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cells.garden.runtimes import FLOORS, RuntimeVersion, parse

SAID = [
    ("runc version 1.1.5+ds1\ncommit: 1.1.5+ds1-1+deb12u1\nspec: 1.0.2-dev\n", "runc", (1, 1, 5), False, False),
    ("runc version 1.2.7\n", "runc", (1, 2, 7), False, False),
    ("runc version 1.2.8\n", "runc", (1, 2, 8), False, True),
    ("runc version 1.3.2\n", "runc", (1, 3, 2), False, False),
    ("runc version 1.3.3+ds1-2\n", "runc", (1, 3, 3), False, True),
    ("runc version 1.4.0-rc.2\n", "runc", (1, 4, 0), True, False),
    ("runc version 1.4.0\n", "runc", (1, 4, 0), False, True),
    ("runc version 1.5.0-rc.1+dev\n", "runc", (1, 5, 0), True, True),
    ("crun version 1.8.1\ncommit: f8a0\n", "crun", (1, 8, 1), False, False),
    ("crun version 1.27.1\n", "crun", (1, 27, 1), False, False),
    ("crun version 1.28\n", "crun", (1, 28), False, True),
    ("crun 1.29.1\n", "crun", (1, 29, 1), False, True),
    ("youki version 0.5.4\ncommit: x\n", "youki", (0, 5, 4), False, False),
    ("runsc version release-20260112.0\n", "runsc", (20260112, 0), False, False),
]


@pytest.mark.parametrize(("said", "name", "number", "prerelease", "safe"), SAID)
def test_versions(said: str, name: str, number: tuple[int, ...], prerelease: bool, safe: bool) -> None:
    version = parse(said, "/opt/other-name")
    assert (version.name, version.number, version.prerelease) == (name, number, prerelease)
    assert (version.shortcoming() is None) is safe


@pytest.mark.parametrize("said", ["", "\n", "no such command\n", "the moon is full\n"])
def test_one_that_does_not_say_is_called_by_its_file_and_not_trusted(said: str) -> None:
    version = parse(said, "/opt/bin/crun")
    assert (version.name, version.number) == ("crun", ())
    assert "crun unknown" in (version.shortcoming() or "")


@given(st.sampled_from(sorted(FLOORS)), st.lists(st.integers(0, 40), min_size=3, max_size=3).map(tuple))
def test_a_release_after_a_safe_one_of_its_line_is_safe(name: str, number: tuple[int, int, int]) -> None:
    later = (*number[:2], number[2] + 1)
    if RuntimeVersion(name, number, "x").shortcoming() is None:
        assert RuntimeVersion(name, later, "x").shortcoming() is None


@given(st.text(max_size=200))
def test_whatever_it_says_it_has_a_name(said: str) -> None:
    assert parse(said, "/usr/bin/runc").name
