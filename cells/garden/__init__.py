"""Containers only: rootfs, namespaces, limits, network, processes. Knows no LRP, no Task, no BBS."""
