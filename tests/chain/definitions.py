"""Definitions of LRPs as a client writes them."""

from __future__ import annotations

from typing import Any

IMAGE = "preloaded:busybox"
SLEEP = "exec sleep 1000"
SERVE = "mkdir -p /tmp/www && echo hello > /tmp/www/index.html && exec httpd -f -p 8080 -h /tmp/www"


def lrp(process_guid: str = "web", script: str = SLEEP, **changes: Any) -> dict[str, Any]:
    """One instance of a shell script. Changes named `run_…` are of its action."""
    run = {"path": "/bin/sh", "args": ["-c", script], "user": "root"}
    run |= {name.removeprefix("run_"): changes.pop(name) for name in [*changes] if name.startswith("run_")}
    definition = {
        "process_guid": process_guid,
        "domain": "shop",
        "rootfs": IMAGE,
        "instances": 1,
        "memory_mb": 64,
        "action": {"run": run},
    }
    return {**definition, **changes}


def task(task_guid: str = "job", script: str = "exit 0", **changes: Any) -> dict[str, Any]:
    """A request for a task that runs a shell script. Changes named `run_…` are of its action."""
    run = {"path": "/bin/sh", "args": ["-c", script], "user": "root"}
    run |= {name.removeprefix("run_"): changes.pop(name) for name in [*changes] if name.startswith("run_")}
    definition = {"rootfs": IMAGE, "memory_mb": 64, "action": {"run": run}, **changes}
    return {"task_guid": task_guid, "domain": "shop", "definition": definition}


def checked_by(**check: Any) -> dict[str, Any]:
    """The check definition with one check, such as `tcp={"port": 80}`."""
    return {"checks": [check]}


HTTP = checked_by(http={"port": 8080, "path": "/", "request_timeout_ms": 500})
