"""Disk of containers: one volume each, held to a limit by whichever driver the host's file system allows."""
