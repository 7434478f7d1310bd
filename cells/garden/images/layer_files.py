"""The layers of the store on disk. Whole or not there: made as HEX.incomplete, renamed when whole, never changed again.

Layout: STATE/images/layers/HEX/{layer.json,fs/} by chain id; STATE/images/blobs/HEX while it is fetched. Ids are the
image's own: a container's mount of a layer shifts them. Nothing is synced: what dies with the machine is found at the
next start, because the record of each layer has the boot it was made in, and how much there must be.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from attrs import define, evolve, field, frozen

from cells.garden import kernel
from cells.garden.images.collection import Removal, StoredLayer
from cells.garden.images.unpack import Unpacked

INCOMPLETE, REMOVED = ".incomplete", ".removed"
TREE, RECORD, REMOVALS = "fs", "layer.json", "removals.jsonl"
REMOVALS_BYTES_MAX = 1024 * 1024
OPAQUE_XATTR = "trusted.overlay.opaque"
PARTS_KEPT_S = 3600.0
"""How long the beginning of a blob is kept for somebody to fetch the rest."""
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@frozen
class LayerRecord:
    """What is kept with a layer. Its last use is the time of the file."""

    parent: str
    diff_id: str
    disk_bytes: int
    bytes: int
    entries: int
    boot_id: str


@define
class LayerFiles:
    """Blocking calls; everything raises OSError."""

    root: Path
    _decoder: msgspec.json.Decoder[LayerRecord] = field(
        factory=lambda: msgspec.json.Decoder(LayerRecord), init=False
    )

    @property
    def layers(self) -> Path:
        return self.root / "layers"

    def tree(self, chain_id: str) -> Path:
        """The unpacked layer."""
        return self.layers / chain_id / TREE

    def blob(self, chain_id: str) -> Path:
        """Where its blob is fetched to."""
        return self.root / "blobs" / chain_id

    def prepare(self) -> list[StoredLayer]:
        """Make the layout, remove what is no whole layer, writing down that it was there, and return what is one."""
        self.layers.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o700)
        shutil.rmtree(self.root / "blobs", ignore_errors=True)
        (self.root / "blobs").mkdir()
        found = []
        for name in sorted(os.listdir(self.layers)):
            layer = self._load(name) if stat.S_ISDIR((self.layers / name).lstat().st_mode) else None
            if layer is None:
                self._write_down(_removed(self.layers / name))
            else:
                found.append(layer)
        return found

    def _load(self, name: str) -> StoredLayer | None:
        """None for what is not a whole layer."""
        path = self.layers / name / RECORD
        try:
            record = self._decoder.decode(path.read_bytes())
            used_s = path.stat().st_mtime
        except (OSError, msgspec.DecodeError):
            return None
        if name.endswith((INCOMPLETE, REMOVED)):
            return None
        boot_id = BOOT_ID.read_text().strip()
        if record.boot_id != boot_id:
            # The machine went down since: what it had not written to disk by then is empty now.
            if _measure(self.tree(name)) != (record.entries, record.bytes):
                return None
            self._save(self.layers / name, evolve(record, boot_id=boot_id), used_s)
        return StoredLayer(name, record.parent, record.diff_id, record.disk_bytes, record.entries, used_s)

    def begin(self, chain_id: str) -> Path:
        """An empty directory to unpack into."""
        shutil.rmtree(self.layers / (chain_id + INCOMPLETE), ignore_errors=True)
        tree = self.layers / (chain_id + INCOMPLETE) / TREE
        tree.mkdir(parents=True)
        tree.chmod(0o755)
        return tree

    def finish(self, chain_id: str, below: tuple[str, ...], unpacked: Unpacked) -> StoredLayer:
        """Give the layer what only the cell can, and put it in its place. `below`: chain ids, the highest first."""
        directory = self.layers / (chain_id + INCOMPLETE)
        tree = directory / TREE
        for name in unpacked.opaque:
            with _opened(tree, name) as fd:
                os.setxattr(fd, OPAQUE_XATTR, b"y")
        for name in unpacked.implicit:
            self._inherit(tree, name, below)
        entries, size = _measure(tree)
        record = LayerRecord(
            parent=below[0] if below else "",
            diff_id=unpacked.diff_id,
            disk_bytes=unpacked.disk_bytes,
            bytes=size,
            entries=entries,
            boot_id=BOOT_ID.read_text().strip(),
        )
        now_s = time.time()
        self._save(directory, record, now_s)
        directory.rename(self.layers / chain_id)
        return StoredLayer(chain_id, record.parent, record.diff_id, record.disk_bytes, record.entries, now_s)

    def _inherit(self, tree: Path, name: bytes, below: tuple[str, ...]) -> None:
        """A directory without an entry of its own looks as it does below: overlayfs shows that of the highest layer."""
        if _hides_below(tree, name):
            return
        for chain_id in below:
            try:
                with _opened(self.tree(chain_id), name) as lower:
                    status = os.fstat(lower)
            except FileNotFoundError:
                if _hides_below(self.tree(chain_id), name):
                    return
                continue
            except OSError as other:
                if other.errno in (errno.ENOTDIR, errno.ELOOP):
                    return  # Below there is something else, which this directory replaces.
                raise
            with _opened(tree, name) as upper:
                os.fchown(upper, status.st_uid, status.st_gid)
                os.fchmod(upper, stat.S_IMODE(status.st_mode))
            return

    def hides_all_below(self, chain_id: str) -> bool:
        """Whether the layer's root is opaque."""
        with _opened(self.tree(chain_id), b"") as root:
            return _is_opaque(root)

    def _save(self, directory: Path, record: LayerRecord, used_s: float) -> None:
        draft = directory / (RECORD + ".new")
        draft.write_bytes(msgspec.json.encode(record))
        os.utime(draft, (used_s, used_s))
        draft.rename(directory / RECORD)

    def touch(self, chain_id: str, used_s: float) -> None:
        os.utime(self.layers / chain_id / RECORD, (used_s, used_s))

    def discard(self, chain_id: str) -> None:
        """Remove what is half-made of a layer, but for the part of its blob that came."""
        shutil.rmtree(self.layers / (chain_id + INCOMPLETE), ignore_errors=True)
        self.blob(chain_id).unlink(missing_ok=True)

    def retire(self, chain_id: str) -> None:
        """Make a layer unfindable at once; `remove` it then."""
        gone = self.layers / (chain_id + REMOVED)
        shutil.rmtree(gone, ignore_errors=True)
        (self.layers / chain_id).rename(gone)

    def remove(self, retired: Sequence[Removal]) -> None:
        """Free the disk of layers that were retired, then write down why: on a full disk, not the other way round."""
        for removal in retired:
            shutil.rmtree(self.layers / (removal.chain_id + REMOVED), ignore_errors=True)
        for removal in retired:
            self._write_down(removal)

    def _write_down(self, removal: Removal) -> None:
        log = self.root / REMOVALS
        with contextlib.suppress(FileNotFoundError):
            if log.stat().st_size > REMOVALS_BYTES_MAX:
                log.rename(log.with_suffix(".old"))
        line = {"at": round(time.time(), 3), "layer": removal.chain_id, "bytes": removal.disk_bytes}
        with log.open("a") as file:
            file.write(json.dumps({**line, "reason": removal.reason}) + "\n")

    def prune_parts(self, busy: set[str], kept_s: float) -> None:
        """Remove beginnings of blobs that nobody came back for in so many seconds."""
        for path in (self.root / "blobs").iterdir():
            with contextlib.suppress(FileNotFoundError):
                if path.name.split(".")[0] not in busy and path.stat().st_mtime < time.time() - kept_s:
                    path.unlink()


def _removed(stray: Path) -> Removal:
    """Remove something that is no layer, whatever it is; what cannot be removed stays, and is in nobody's way."""
    status = stray.lstat()
    try:
        if stat.S_ISDIR(status.st_mode):
            size, what = _measure(stray)[1], "a directory without a whole layer"
            shutil.rmtree(stray)
        else:
            size, what = status.st_size, "no directory"
            stray.unlink()
    except OSError as refused:
        return Removal(stray.name, 0, f"{what}, found at start; it is still there: {refused.strerror}")
    return Removal(stray.name, size, f"{what}, found at start")


@contextlib.contextmanager
def _opened(tree: Path, name: bytes) -> Iterator[int]:
    """A directory of a layer. No link leads out of the tree, and the last component is none."""
    fd = kernel.open_in_root(str(tree), os.fsdecode(name) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield fd
    finally:
        os.close(fd)


def _hides_below(tree: Path, name: bytes) -> bool:
    """Whether a directory above `name` is opaque in this layer, so that of lower layers nothing is seen there."""
    parts = name.split(b"/") if name else []
    for length in range(len(parts)):
        try:
            with _opened(tree, b"/".join(parts[:length])) as above:
                if _is_opaque(above):
                    return True
        except FileNotFoundError:
            return False
    return False


def _is_opaque(directory: int) -> bool:
    try:
        return os.getxattr(directory, OPAQUE_XATTR) == b"y"
    except OSError as absent:
        if absent.errno != errno.ENODATA:
            raise
        return False


def _measure(tree: Path) -> tuple[int, int]:
    """How many entries a layer has, and bytes in them. What cannot be read is not there."""
    entries = size = 0
    for path, directories, files in os.walk(tree):
        entries += len(directories) + len(files)
        for name in files:
            with contextlib.suppress(OSError):
                size += os.lstat(os.path.join(path, name)).st_size
    return entries, size
