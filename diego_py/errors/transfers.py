"""What can go wrong with downloads and uploads of a workload."""

from __future__ import annotations

from diego_py.errors.base import DOCTOR, DiegoError, Fault, Next


class TransferNotAllowed(DiegoError):
    """The cell does not connect there for a workload: its config does not name the host, or the address is not public.

    Of a name, the address is judged at which it is found when the cell is about to connect, and so after each redirect.
    """

    code = "transfer.not_allowed"
    title = "The cell does not go there for downloads and uploads"
    fault = Fault.CALLER
    next = (
        Next("Use a URL of a host at a public address"),
        Next("If it is the operator's own host: name it in transfer_hosts of the cells' config"),
    )


class TransferUnreachable(DiegoError):
    """There was no connection, or it broke; `evidence.reason` has the words of the kernel, the resolver or OpenSSL."""

    code = "transfer.unreachable"
    title = "The other end of the transfer cannot be reached"
    fault = Fault.DEPENDENCY
    retryable = True
    next = (Next("Check that the host answers, and that the cell's host can reach it"),)


class TransferTimedOut(DiegoError):
    """Nothing came for too long, or all of it took too long; `evidence` has the limit in seconds."""

    code = "transfer.timeout"
    title = "The transfer took too long"
    fault = Fault.DEPENDENCY
    retryable = True
    next = (Next("Check how fast the host answers; make the file smaller"),)


class DownloadNotFound(DiegoError):
    """There is nothing at the URL (404, 410)."""

    code = "download.not_found"
    title = "There is nothing to download at the URL"
    fault = Fault.APP
    elsewhere = False
    next = (Next("Correct the URL of the download, or put the file there"),)


class DownloadDenied(DiegoError):
    """The server wants credentials, or other ones (401, 403)."""

    code = "download.denied"
    title = "The server does not give the file"
    fault = Fault.APP
    elsewhere = False
    next = (Next("Use a URL that is valid for longer, or credentials that may read the file"),)


class DownloadFailed(DiegoError):
    """The server answered with something else than a file; `evidence.status` has it."""

    code = "download.failed"
    title = "The download failed"
    fault = Fault.DEPENDENCY
    retryable = True
    next = (Next("Look at the log of the server; the detail names it"),)


class DownloadTooLarge(DiegoError):
    """The file is larger than a download may be; `evidence.limit_bytes` has the limit."""

    code = "download.too_large"
    title = "The file is too large to download"
    fault = Fault.APP
    elsewhere = False
    next = (Next("Make the file smaller, or raise download_bytes_max of the cells' config"),)


class ChecksumMismatch(DiegoError):
    """What came is not what the checksum says; nothing of it was kept. `evidence` has both."""

    code = "download.checksum_mismatch"
    title = "The file has another checksum"
    fault = Fault.APP
    elsewhere = False
    next = (Next("Correct the checksum, or put the right file at the URL"),)


class UploadFailed(DiegoError):
    """The server did not take the file; `evidence.status` has its answer."""

    code = "upload.failed"
    title = "The upload failed"
    fault = Fault.DEPENDENCY
    next = (Next("Look at the log of the server; the detail names it"),)


class UploadTooLarge(DiegoError):
    """The file is larger than an upload may be; `evidence.limit_bytes` has the limit."""

    code = "upload.too_large"
    title = "The file is too large to upload"
    fault = Fault.APP
    elsewhere = False
    next = (Next("Make the file smaller, or raise upload_bytes_max of the cells' config"),)


class UploadMissing(DiegoError):
    """The container has no file at the path, or it cannot be read."""

    code = "upload.missing"
    title = "There is no file to upload"
    fault = Fault.APP
    elsewhere = False
    next = (Next("Have the action write the file before it is uploaded"),)


class TransfersBroken(DiegoError):
    """The cell could not keep the file on its own disk, or hand it to the container."""

    code = "executor.transfer_failed"
    title = "The cell could not carry out the transfer"
    next = (DOCTOR,)
