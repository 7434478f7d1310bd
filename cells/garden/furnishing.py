"""All that a container has on the disk, from its record to its root, and what the runtime is to make of it."""

from __future__ import annotations

from cells.garden import binds, bundle, directories, execution, rootfs, users
from cells.garden.box import Box
from cells.garden.host import Host
from cells.garden.images.provide import Root
from cells.garden.spec import ContainerSpec
from diego_py.call import Call


def furnish(host: Host, call: Call, spec: ContainerSpec, box: Box, root: Root) -> bundle.Config:
    """Make it, in order; its sandbox is there. Blocks: all of it in one thread, for each change of threads takes time.

    Raises OSError, VolumeFailed, MountFailed, RootfsInvalid, UserNotFound, WorkingDirectoryInvalid.
    """
    first_id = host.first_id(box)
    with call.step("depot"):
        host.depot.make(box.record)
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
