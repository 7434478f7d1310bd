"""Whole systems in one process tree: a private Postgres, and a cluster on one machine."""
