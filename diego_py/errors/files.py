"""What can go wrong with moving files in or out of a container."""

from __future__ import annotations

from diego_py.errors.base import DOCTOR, DiegoError, Fault, Next


class BindRefused(DiegoError):
    """The cell does not mount this directory or file of its host into containers; `evidence` says why."""

    code = "garden.bind_refused"
    title = "The cell does not mount this part of its host"
    elsewhere = True
    next = (Next("Name a path below one of the cell's bind_source_dirs, without links that lead out of it"),)


class PrivilegedRefused(DiegoError):
    """The cell makes no privileged containers: `evidence.reason` is `not_allowed` (its configuration) or `runtime` (its
    OCI runtime has known holes)."""

    code = "garden.privileged_refused"
    title = "The cell makes no privileged containers"
    elsewhere = True
    next = (
        Next("Leave `privileged` false if the workload can do without"),
        Next("not_allowed: set allow_privileged of a cell, if its workloads may be root of its host"),
        Next("runtime: install an OCI runtime of at least the version that the detail names"),
    )


class FilesFailed(DiegoError):
    """Files could not be moved in or out of the container; `evidence` has the path in it and what the kernel said."""

    code = "files.failed"
    title = "The files could not be copied"
    next = (DOCTOR,)


class FileMissing(FilesFailed):
    """The container has nothing at this path."""

    code = "files.missing"
    title = "The container has no such file"
    status = 404
    fault = Fault.CALLER
    elsewhere = False
    next = (Next("Look at the path inside the container; links in it lead where they lead there"),)


class FileKindWrong(FilesFailed):
    """A directory is needed where the container has something else, or the other way round."""

    code = "files.kind_wrong"
    title = "A directory is where a file must be, or the other way round"
    status = 409
    fault = Fault.CALLER
    elsewhere = False
    next = (Next("Choose another path; below the destination links to directories are not followed"),)


class FileDenied(FilesFailed):
    """The user of the container that the copy is made as may not do this."""

    code = "files.denied"
    title = "The container's user may not do this"
    status = 409
    fault = Fault.CALLER
    elsewhere = False
    next = (Next("Copy as another user of the container, or to a path that this one may write"),)


class FilesTooLarge(FilesFailed):
    """The files are more, or larger, than one copy may be."""

    code = "files.too_large"
    title = "The files are too large for one copy"
    status = 413
    fault = Fault.CALLER
    elsewhere = False
    next = (Next("Copy less at once"),)


class FilesNoSpace(FilesFailed):
    """The container's disk is full; what was copied before is still there."""

    code = "files.no_space"
    title = "The container's disk is full"
    fault = Fault.APP
    elsewhere = False
    next = (Next("Remove files in the container, or give it more disk"),)


class ArchiveRefused(FilesFailed):
    """The archive is no tar archive, ends in the middle, or has entries that are not taken."""

    code = "files.archive_refused"
    title = "The archive cannot be unpacked"
    status = 422
    fault = Fault.CALLER
    elsewhere = False
    next = (Next("Send an uncompressed tar archive with relative names, without `..` and without devices"),)
