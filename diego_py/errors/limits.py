"""What can go wrong with the limits of a container: it met one, or the cell cannot hold it to one."""

from __future__ import annotations

from diego_py.errors.base import CELLS, DOCTOR, LOGS, DiegoError, Fault, Next


class DiskExceeded(DiegoError):
    """The process ended by itself when the container's disk was full; `evidence.disk` has what is used and the limit.

    Only what the container has written counts, not its rootfs.
    """

    code = "app.disk_exceeded"
    title = "The container's disk was full"
    fault = Fault.APP
    elsewhere = False
    next = (Next("Raise disk_mb, or make the process write less"), LOGS)


class PidsExceeded(DiegoError):
    """The process ended by itself after the container was refused a process; `evidence.cgroup` has the figures."""

    code = "app.pids_exceeded"
    title = "The container had all the processes it may have"
    fault = Fault.APP
    elsewhere = False
    next = (Next("Raise max_pids, or make the process start fewer processes and threads"), LOGS)


class QuotaUnavailable(DiegoError):
    """This cell cannot hold a container to the disk limit that was asked; `evidence.why` says what it looked at."""

    code = "garden.quota_unavailable"
    title = "The cell cannot limit a container's disk"
    next = (
        Next("Give the cell a store of its own: `volumes_store_mb` in its configuration; needs btrfs and mkfs.btrfs"),
        Next("Or put `volumes_dir` on XFS or ext4 mounted with prjquota, or on btrfs with quotas on"),
        CELLS,
    )


class VolumeFailed(DiegoError):
    """The host refused to make or to remove the place for what the container writes; `evidence` has the errno."""

    code = "garden.volume_failed"
    title = "The container's disk could not be made or removed"
    next = (DOCTOR, Next("Check free space and the file system of the cell's volumes directory"))
