"""What can go wrong with a workload on its cell: the app, the container, the OCI runtime."""

from __future__ import annotations

from typing import ClassVar

from diego_py.errors.base import CELLS, DOCTOR, EXPLAIN, LOGS, DiegoError, Fault, Next


class ExecutorFailed(DiegoError):
    """The workload did not reach RUNNING."""

    code = "executor.start_failed"
    title = "The workload did not start"
    next = (LOGS, EXPLAIN)


class ProcessExited(DiegoError):
    """The process ended by itself. `evidence` has its exit status and its last log lines."""

    code = "app.exited"
    title = "The process exited"
    fault = Fault.APP
    elsewhere = False
    next = (LOGS, Next("Run the start command in the image by hand and mend what it prints"))


class OutOfMemory(DiegoError):
    """The kernel killed a process of the container at its memory limit."""

    code = "app.out_of_memory"
    title = "The container ran out of memory"
    fault = Fault.APP
    elsewhere = False
    next = (Next("Raise memory_mb, or make the process use less"), LOGS)


class NeverHealthy(DiegoError):
    """The start timeout passed before the check succeeded once; `evidence.check` has its last answer."""

    code = "app.never_healthy"
    title = "The instance never became healthy"
    fault = Fault.APP
    elsewhere = False
    next = (LOGS, Next("Check port and path of the check, or raise start_timeout_ms"))


class BecameUnhealthy(DiegoError):
    """The check failed on an instance that was healthy; `evidence.check` has its answer."""

    code = "app.became_unhealthy"
    title = "The instance became unhealthy"
    fault = Fault.APP
    elsewhere = False
    next = (LOGS,)


class StoppedWhileStarting(DiegoError):
    """Somebody stopped the instance before it was running."""

    code = "app.stopped_while_starting"
    title = "The instance was stopped while it started"
    status = 409
    fault = Fault.CALLER
    elsewhere = False
    next = (Next("Desire it again if this was not meant"),)


class ContainerVanished(DiegoError):
    """The container is gone and nobody asked for that."""

    code = "executor.container_vanished"
    title = "The container vanished from the cell"
    next = (DOCTOR, Next("Look who removes containers, cgroups or processes on this host"))


class GardenFailed(DiegoError):
    """The container could not be created, started, stopped or destroyed."""

    code = "garden.failed"
    title = "The container operation failed"
    next = (DOCTOR,)


class RootfsNotFound(DiegoError):
    """The cell's image root has no such directory."""

    code = "garden.rootfs_not_found"
    title = "The cell does not have this rootfs"
    next = (Next("Import it on the cell", run="diego rootfs add NAME DIR|TAR"),)


class RootfsInvalid(DiegoError):
    """The rootfs would be unsafe or unusable: /dev, /proc and /sys must be real directories or absent."""

    code = "garden.rootfs_invalid"
    title = "The rootfs cannot be used"
    fault = Fault.APP
    elsewhere = False
    next = (Next("Rebuild the rootfs; the detail names the entry"),)


class UserNotFound(DiegoError):
    """The image has no such user."""

    code = "garden.user_not_found"
    title = "The user does not exist in the image"
    fault = Fault.APP
    elsewhere = False
    next = (Next("Use a user of the image's /etc/passwd, or UID:GID"),)


class MountFailed(DiegoError):
    """The container's root could not be mounted."""

    code = "garden.mount_failed"
    title = "The container's root could not be mounted"
    next = (DOCTOR, Next("Check free space and the file system below the cell's state directory"))


class NetworkFailed(DiegoError):
    """Interfaces, addresses or firewall elements of the container could not be set up."""

    code = "garden.network_failed"
    title = "The container's network could not be set up"
    next = (DOCTOR,)


class SandboxFailed(DiegoError):
    """The namespaces of the container could not be made."""

    code = "garden.sandbox_failed"
    title = "The container's namespaces could not be made"
    next = (DOCTOR, Next("Check the host's limits: user.max_*_namespaces and kernel.pid_max"))


class PoolExhausted(DiegoError):
    """The cell has no id range, address or host port left."""

    code = "garden.pool_exhausted"
    title = "The cell has none left of a numbered resource"
    status = 500
    fault = Fault.CAPACITY
    retryable = True
    next = (CELLS, Next("Configure a larger pool for the cell"))


class CgroupFailed(DiegoError):
    """The cgroup of the container could not be written or read."""

    code = "garden.cgroup_failed"
    title = "The container's cgroup could not be used"
    next = (DOCTOR,)


class DestroyFailed(DiegoError):
    """Parts of the container are still there; the cell goes on trying to remove them."""

    code = "garden.destroy_failed"
    title = "The container is not wholly gone"
    next: ClassVar[tuple[Next, ...]] = (DOCTOR,)


class ContainerStuck(DestroyFailed):
    """What was killed does not die, or what is mounted or removed does not end: it waits in the kernel for files.

    The server of that does not answer, or it is frozen. `evidence.waiting` has who waits and where in the kernel
    (`wchan`), `evidence.mounts` the mounts with a server. What the container has stays reserved until it is gone.
    """

    code = "garden.container_stuck"
    title = "The container waits in the kernel and cannot be removed yet"
    retryable = True
    next = (
        Next("Have the file system that it waits for answer again, or end its connection (`ended_by` of a FUSE mount)"),
        Next("Thaw what is frozen: a file system by fsfreeze --unfreeze, a cgroup by its freezer"),
        Next("Send the same request again; the cell does so by itself when the BBS orders the stop of what is left"),
    )


class RuntimeFailed(DiegoError):
    """The OCI runtime failed; `evidence` has its own log and stderr."""

    code = "runtime.failed"
    title = "The OCI runtime failed"
    next = (DOCTOR,)


class RuntimeSilent(RuntimeFailed):
    """The OCI runtime did not answer in time and was killed; `evidence` has where it waits, and mounts."""

    code = "runtime.silent"
    title = "The OCI runtime did not answer in time"
    retryable = True
    next = (Next("If `evidence.mounts` names servers of files: have them answer, or end them; then try again"),)


class ExecNotFound(DiegoError):
    """The start command does not exist in the image."""

    code = "runtime.exec_not_found"
    title = "The start command does not exist in the image"
    fault = Fault.APP
    elsewhere = False
    next = (Next("Correct action.run.path; it is looked up inside the image, in PATH of the container's environment"),)


class ExecNotExecutable(DiegoError):
    """The start command exists in the image and cannot be executed."""

    code = "runtime.exec_not_executable"
    title = "The start command cannot be executed"
    fault = Fault.APP
    elsewhere = False
    next = (Next("Make it executable for the action's user, for this architecture, with an existing interpreter"),)


class WorkingDirectoryInvalid(DiegoError):
    """The working directory cannot be entered."""

    code = "runtime.working_directory"
    title = "The working directory cannot be entered"
    fault = Fault.APP
    elsewhere = False
    next = (Next("Correct action.run.dir, or its permissions in the image"),)


class RuntimeMissing(DiegoError):
    """runc or conmon is not on the cell's host, or does not start."""

    code = "runtime.missing"
    title = "The cell's runtime cannot be executed"
    next = (DOCTOR,)


class AppArmorProfileMissing(DiegoError):
    """The cell's host has AppArmor, and the profile that its configuration names is not loaded."""

    code = "garden.apparmor_profile_missing"
    title = "The AppArmor profile is not loaded"
    next = (Next("Load it on the cell's host (apparmor_parser -r), or take apparmor_profile out of the settings"),)


class RemoteError(DiegoError):
    """A code this version does not know, kept as it came."""

    code = "remote_error"
    title = "The next hop failed with a code of another version"
    next = (Next("Read the innermost frame of the chain"),)
