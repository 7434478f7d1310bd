"""Users by the image's own files, and never by anything outside the image."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cells.garden.users import Identity, is_directory, look_up
from diego_py.errors import UserNotFound

PASSWD = """\
root:x:0:0:root:/root:/bin/sh
broken
vcap:x:1000:1001::/home/vcap:/bin/sh
huge:x:99999999999:0::/:/bin/sh
far:x:70000:0::/:/bin/sh
"""
GROUP = "root:x:0:\nmain:x:1001:\nextra:x:2000:other,vcap\nodd:x:no:vcap\nfar:x:70000:vcap\n"


@pytest.fixture
def image(tmp_path: Path) -> str:
    etc = tmp_path / "image/etc"
    etc.mkdir(parents=True)
    (etc / "passwd").write_text(PASSWD)
    (etc / "group").write_text(GROUP)
    (tmp_path / "image/home/vcap").mkdir(parents=True)
    return str(tmp_path / "image")


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("root", Identity(0, 0, (0,), "root", "/root")),
        ("0", Identity(0, 0, (0,), "root", "/root")),
        ("vcap", Identity(1000, 1001, (1001, 2000), "vcap", "/home/vcap")),
        ("1000", Identity(1000, 1001, (1001, 2000), "vcap", "/home/vcap")),
        ("1000:2000", Identity(1000, 2000, (2000,), "vcap", "/home/vcap")),
        ("vcap:extra", Identity(1000, 2000, (2000,), "vcap", "/home/vcap")),
        ("4321", Identity(4321, 0, (0,), "4321", "/")),
        ("4321:5", Identity(4321, 5, (5,), "4321", "/")),
    ],
)
def test_found(image: str, user: str, expected: Identity) -> None:
    assert look_up(image, user) == expected


@pytest.mark.parametrize("user", ["", "nobody", "huge", "far", "70000", "1:70000", "vcap:none", "\u00b2", "-1", ":0"])
def test_not_found(image: str, user: str) -> None:
    with pytest.raises(UserNotFound):
        look_up(image, user)


def test_image_without_files(tmp_path: Path) -> None:
    assert look_up(str(tmp_path), "0") == Identity(0, 0, (0,), "0", "/")
    assert look_up(str(tmp_path), "root") == Identity(0, 0, (0,), "root", "/")
    assert look_up(str(tmp_path), "root:7") == Identity(0, 7, (7,), "root", "/")
    for user in ("vcap", "root:vcap"):
        with pytest.raises(UserNotFound):
            look_up(str(tmp_path), user)


def test_links_do_not_lead_out_of_the_image(image: str, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("evil:x:1:1::/:/bin/sh\n")
    for target in ("../../outside", str(tmp_path / "outside"), "/../../outside"):
        Path(image, "etc/passwd").unlink()
        Path(image, "etc/passwd").symlink_to(target)
        with pytest.raises(UserNotFound):
            look_up(image, "evil")


def test_links_inside_the_image_are_followed(image: str) -> None:
    Path(image, "etc/passwd").rename(Path(image, "etc/real"))
    Path(image, "etc/passwd").symlink_to("/etc/real")
    assert look_up(image, "vcap").uid == 1000


def test_a_pipe_is_not_waited_for(image: str) -> None:
    Path(image, "etc/passwd").unlink()
    os.mkfifo(Path(image, "etc/passwd"))
    with pytest.raises(UserNotFound):
        look_up(image, "vcap")


def test_is_directory(image: str) -> None:
    assert is_directory(image, "/home/vcap")
    assert not is_directory(image, "/etc/passwd")
    assert not is_directory(image, "/none")
