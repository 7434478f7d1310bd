"""What a cell says of its images: each by the names that others may ask for it by, bounded, the one used last first."""

from hypothesis import given
from hypothesis import strategies as st

from cells.garden.images.held import NAMES_MAX, HeldImages

DIGEST = "sha256:" + "0" * 64


def test_an_image_is_held_by_its_tag_and_by_its_digest_as_long_as_its_highest_layer_is() -> None:
    held = HeldImages()
    held.used("docker:///app", "top-1", DIGEST)
    held.used("oci:/images/app.tar", "top-2", DIGEST)
    assert held.names({"top-1", "top-2"}) == (
        "oci:/images/app.tar",
        "docker:///app:latest",
        f"docker:///app@{DIGEST}",
    )
    assert held.names({"top-1"}) == ("docker:///app:latest", f"docker:///app@{DIGEST}")
    assert held.names(()) == ()


def test_a_tag_that_moved_stands_for_what_it_was_used_for_last() -> None:
    held = HeldImages()
    held.used("docker:///app:v1", "old")
    held.used("docker:///app#v1", "new")
    assert held.names({"old"}) == ()
    assert held.names({"new"}) == ("docker:///app:v1",)


def test_of_a_reference_with_a_digest_only_the_digest_is_told() -> None:
    held = HeldImages()
    held.used(f"docker:///app:v1@{DIGEST}", "top", "sha256:" + "1" * 64)
    assert held.names({"top"}) == (f"docker:///app@{DIGEST}",)


def test_what_is_preloaded_or_has_a_very_long_name_is_not_told() -> None:
    held = HeldImages()
    held.used("preloaded:busybox", "top")
    held.used("oci:" + "/a" * 300, "top")
    assert held.names({"top"}) == ()


@given(st.lists(st.integers(0, 2 * NAMES_MAX)))
def test_the_ones_used_last_are_kept(used: list[int]) -> None:
    held = HeldImages()
    for number in used:
        held.used(f"oci:/image-{number}", "top")
    last_first = dict.fromkeys(reversed(used))
    assert held.names({"top"}) == tuple(f"oci:/image-{number}" for number in last_first)[:NAMES_MAX]
