"""The life of one workload in one container: created, started, checked, watched, removed. Knows garden, not the BBS."""
