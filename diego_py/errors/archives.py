"""What can be wrong with an archive: a layer of an image, a download, a root file system to import."""

from __future__ import annotations

from diego_py.errors.base import DOCTOR, DiegoError, Fault, Next


class ArchiveCorrupt(DiegoError):
    """The archive is damaged, cut off, or not what its digest says; `evidence` has the rule and the entry."""

    code = "archive.corrupt"
    title = "The archive is damaged"
    fault = Fault.APP
    elsewhere = False
    next = (Next("Make or push the archive again; the detail says where reading it stopped"),)


class ArchiveUnsafe(DiegoError):
    """An entry of the archive breaks a rule that keeps it inside its directory; `evidence` names both."""

    code = "archive.unsafe"
    title = "The archive has an entry that is not taken"
    fault = Fault.APP
    elsewhere = False
    next = (Next("Make the archive without the entry that the detail names"),)


class ArchiveTooLarge(DiegoError):
    """Unpacked it has more bytes, entries or levels than allowed, or takes too long; the detail names the limit."""

    code = "archive.too_large"
    title = "The archive is too large unpacked"
    fault = Fault.APP
    elsewhere = False
    next = (Next("Make the archive smaller, or raise the cell's limit that the detail names"),)


class ArchiveUnsupported(DiegoError):
    """A compression, an encryption or a kind of entry that this release does not read."""

    code = "archive.unsupported"
    title = "This kind of archive is not supported"
    fault = Fault.APP
    elsewhere = False
    next = (Next("Make the archive with gzip, or without compression"),)


class NoSpace(DiegoError):
    """The cell's disk, or the quota on it, is full; `evidence` has the figures."""

    code = "garden.no_space"
    title = "There is no space left on the cell"
    fault = Fault.CAPACITY
    retryable = True
    next = (DOCTOR, Next("Free space below the cell's state directory, or lower its image_store_bytes_max"))


class UnpackFailed(DiegoError):
    """The program that unpacks archives did not do its work; `evidence` has how it ended and what it wrote."""

    code = "garden.unpack_failed"
    title = "The archive could not be unpacked"
    next = (DOCTOR,)
