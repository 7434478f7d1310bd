"""All that a container has on the disk, from its record to its root, and what the runtime is to make of it."""

from __future__ import annotations

import math

from cells.garden import binds, bundle, directories, execution, rootfs, users
from cells.garden.box import Box
from cells.garden.children import in_thread
from cells.garden.demolition import PATIENCE_S_MIN, patience_s
from cells.garden.host import Host
from cells.garden.images.provide import Root
from cells.garden.spec import BindMount, ContainerSpec
from diego_py.call import Call

MOUNT_TIMEOUT_S = 60.0
"""How long the host's directories may take to be found and mounted: somebody else may answer for them, or not."""

UNDO_S = 1.0
"""What is left of the caller's time for taking away what can be."""


def patience(call: Call, spec: ContainerSpec) -> float:
    """How many seconds anything may take that looks at directories of the host; without any of them for ever."""
    if not any(isinstance(mount, BindMount) for mount in spec.mounts):
        return math.inf
    return max(PATIENCE_S_MIN, patience_s(call, MOUNT_TIMEOUT_S) - UNDO_S)


async def furnish(host: Host, call: Call, spec: ContainerSpec, box: Box, root: Root) -> bundle.Config:
    """Make it; its sandbox is there. All of it in one thread, for each change of threads takes time.

    With directories of the host in a thread that may be left behind. Raises ContainerStuck, and as `_furnish` does.
    """
    limit_s = patience(call, spec)
    if limit_s == math.inf:
        return await in_thread(_furnish, host, call, spec, box, root)
    what = f"mount directories of the host for {box.handle}"
    return await box.threads.run(limit_s, what, _furnish, host, call, spec, box, root)


def _furnish(host: Host, call: Call, spec: ContainerSpec, box: Box, root: Root) -> bundle.Config:
    """In order. Blocks.

    Raises OSError, VolumeFailed, MountFailed, RootfsInvalid, UserNotFound, WorkingDirectoryInvalid.
    """
    first_id = host.first_id(box)
    with call.step("volume"):
        host.make_volume(box)
    with call.step("rootfs"), box.user_namespace() as namespace:
        rootfs.mount(root.lowers, box.directory, namespace, first_id)
        identity = users.look_up(str(box.directory.rootfs), spec.user)
        bound = binds.attach(spec, host.config.bind_source_dirs, box.directory, namespace)
    with call.step("bundle"):
        plan = host.plan(spec, box, identity, bound)
        box.has_plan(plan, spec.user)
        directories.make_missing(plan.rootfs, plan.cwd, first_id + identity.uid, first_id + identity.gid)
        host.write_etc(box, plan.hostname)
        execution.keep_shared_environment(spec, box)
        return bundle.build(plan)
