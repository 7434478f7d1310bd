"""Archives are unpacked safely or not at all."""

import io
import os
import tarfile
from pathlib import Path

import pytest

from diego_py.cli import rootfs_busybox, rootfs_tree
from diego_py.errors import ArchiveCorrupt, ArchiveUnsafe, ConflictError, NotFound, RootfsInvalid


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", content: bytes = b"") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size, member.mode = kind, link, len(content), 0o755
    member.uid, member.gid = os.getuid(), os.getgid()
    return member


def archive(path: Path, *members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(b"x" * member.size))
    return path


def import_(tmp_path: Path, *members: tarfile.TarInfo) -> Path:
    root = tmp_path / "images"
    with rootfs_tree.making(root, "image") as tree:
        rootfs_tree.import_archive(archive(tmp_path / "a.tar.gz", *members), tree)
    return root / "image"


DIR, SYM, HARD = tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE


needs_root = pytest.mark.kernel


@needs_root
@pytest.mark.parametrize(
    "members",
    [
        (entry("../evil", content=b"x"),),
        (entry("/etc/evil", content=b"x"),),
        (entry("dev/null", tarfile.CHRTYPE),),
        (entry("pipe", tarfile.FIFOTYPE),),
        (entry("out", SYM, "/tmp"), entry("out/evil", content=b"x")),
        (entry("hard", HARD, "/etc/passwd"),),
        (entry("proc", SYM, "/etc"),),
        (entry("dir", DIR), entry("dir", content=b"x")),
    ],
)
def test_what_leads_out_of_the_tree_is_refused_and_nothing_is_left(
    tmp_path: Path, members: tuple[tarfile.TarInfo, ...]
) -> None:
    with pytest.raises(ArchiveUnsafe):
        import_(tmp_path, *members)
    assert rootfs_tree.names(tmp_path / "images") == []
    assert os.listdir(tmp_path / "images") == []
    assert not (tmp_path / "evil").exists()


@needs_root
def test_owners_that_no_container_has_are_refused(tmp_path: Path) -> None:
    member = entry("file", content=b"x")
    member.uid = 70_000
    with pytest.raises(ArchiveUnsafe):
        import_(tmp_path, member)


@needs_root
def test_a_whole_tree_comes_out_as_it_was(tmp_path: Path) -> None:
    setuid = entry("usr/bin/su", content=b"1")
    setuid.mode = 0o4755
    tree = import_(
        tmp_path,
        entry("./", DIR),
        entry("usr/bin/tool", content=b"1234"),
        entry("bin", SYM, "usr/bin"),
        entry("etc/alternatives/awk", SYM, "/usr/bin/tool"),
        entry("usr/bin/other", HARD, "usr/bin/tool"),
        entry("usr/bin/tool2", content=b"12"),
        entry("usr/bin/tool2", content=b"123"),
        entry("up", SYM, "../../etc"),
        setuid,
    )
    assert (tree / "usr/bin/su").stat().st_mode & 0o7777 == 0o4755
    assert os.readlink(tree / "up") == "../../etc"
    assert os.readlink(tree / "bin") == "usr/bin"
    assert os.readlink(tree / "etc/alternatives/awk") == "/usr/bin/tool"
    assert (tree / "usr/bin/tool").stat().st_ino == (tree / "usr/bin/other").stat().st_ino
    assert (tree / "usr/bin/tool2").stat().st_size == 3
    assert all((tree / name).is_dir() for name in rootfs_tree.MOUNT_POINTS)


@needs_root
def test_a_directory_is_copied(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "bin").mkdir(parents=True)
    (source / "bin/tool").write_text("x")
    os.link(source / "bin/tool", source / "bin/twin")
    with rootfs_tree.making(tmp_path / "images", "image") as tree:
        rootfs_tree.import_directory(source, tree)
    made = tmp_path / "images/image/bin"
    assert (made / "tool").stat().st_ino == (made / "twin").stat().st_ino


@needs_root
def test_names_are_taken_once_and_replaced_only_when_asked(tmp_path: Path) -> None:
    import_(tmp_path, entry("one", content=b"x"))
    with pytest.raises(ConflictError):
        import_(tmp_path, entry("two", content=b"x"))
    with rootfs_tree.making(tmp_path / "images", "image", replace=True) as tree:
        (tree / "three").touch()
    assert (tmp_path / "images/image/three").exists()
    assert os.listdir(tmp_path / "images") == ["image"]
    for name in ("", "..", "a/b", "x.incomplete"):
        with pytest.raises(RootfsInvalid), rootfs_tree.making(tmp_path / "images", name):
            pass
    rootfs_tree.remove(tmp_path / "images", "image")
    with pytest.raises(NotFound):
        rootfs_tree.remove(tmp_path / "images", "image")


@needs_root
def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_text("no archive")
    with pytest.raises(ArchiveCorrupt), rootfs_tree.making(tmp_path / "images", "image") as tree:
        rootfs_tree.import_archive(tmp_path / "a.tar", tree)


def test_busybox(tmp_path: Path) -> None:
    with rootfs_tree.making(tmp_path, rootfs_busybox.NAME) as tree:
        rootfs_busybox.build(tree)
    tree = tmp_path / "busybox"
    assert os.readlink(tree / "bin/httpd") == "busybox"
    assert "vcap:x:1000:1000" in (tree / "etc/passwd").read_text()
    assert (tree / "tmp").stat().st_mode & 0o7777 == 0o1777
