from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cells.garden.images.documents import OCI_TAR, digest_of
from cells.garden.images.image import Layer
from cells.garden.images.partial import PartialBlob
from diego_py.errors import ImageCorrupt

CONTENT = b"a layer" * 1000


def layer(content: bytes = CONTENT) -> Layer:
    return Layer(digest_of(content), digest_of(content), len(content), OCI_TAR)


@settings(deadline=None, max_examples=50)  # It waits for the disk.
@given(st.lists(st.binary(max_size=50)), st.integers(0, 5))
def test_pieces_over_several_openings_make_the_whole(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes], interruptions: int
) -> None:
    into = tmp_path_factory.mktemp("blobs") / "blob"
    wanted = layer(b"".join(pieces))
    done = 0
    for end in (len(pieces) * number // (interruptions + 1) for number in range(1, interruptions + 2)):
        with PartialBlob(wanted, into).open() as blob:
            assert blob.size == sum(map(len, pieces[:done]))
            for piece in pieces[done:end]:
                blob.write(piece)
            done = end
            assert not into.exists()
    with PartialBlob(wanted, into).open() as blob:
        blob.finish()
    assert into.read_bytes() == b"".join(pieces)
    assert list(into.parent.iterdir()) == [into]


def test_wrong_bytes_never_get_there(tmp_path: Path) -> None:
    into = tmp_path / "blob"
    with PartialBlob(layer(), into).open() as blob:
        blob.write(CONTENT[:10].upper())
    with pytest.raises(ImageCorrupt, match="another digest"), PartialBlob(layer(), into).open() as blob:
        blob.finish()
    assert list(tmp_path.iterdir()) == []


def test_more_bytes_than_announced(tmp_path: Path) -> None:
    with pytest.raises(ImageCorrupt, match="longer"), PartialBlob(layer(), tmp_path / "blob").open() as blob:
        blob.write(CONTENT + b"!")
    assert list(tmp_path.iterdir()) == []


def test_what_was_left_is_dropped_when_it_cannot_be_of_the_layer(tmp_path: Path) -> None:
    for left in (CONTENT.upper(), CONTENT + b"!"):
        (tmp_path / "blob.part").write_bytes(left)
        with PartialBlob(layer(), tmp_path / "blob").open() as blob:
            assert blob.size == blob.most == 0


def test_starting_over_is_no_progress(tmp_path: Path) -> None:
    with PartialBlob(layer(), tmp_path / "blob").open() as blob:
        blob.write(CONTENT[:100])
        blob.restart()
        blob.write(CONTENT[:50])
        assert (blob.size, blob.most) == (50, 100)


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    (tmp_path / "blob.part").symlink_to(target)
    with pytest.raises(OSError, match="symbolic links"):
        PartialBlob(layer(), tmp_path / "blob").open()
    assert target.read_bytes() == b"precious"
