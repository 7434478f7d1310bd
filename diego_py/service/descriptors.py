"""How many files, sockets and pipes a process that serves may have open."""

from __future__ import annotations

import resource


def raise_limit() -> None:
    """Let this process have as many as it may at most, which systemd and shells make 1,024 at first, for select().

    A cell needs a few for each container, a BBS one for each connection; what they start has limits of its own.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
