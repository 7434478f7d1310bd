"""The cell: one process a host that runs containers for a BBS. Never imports `bbs`."""
