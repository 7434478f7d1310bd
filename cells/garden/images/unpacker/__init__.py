"""The program that unpacks archives nobody trusts, run as a child of the cell: see `unpack.py` for who starts it.

Everything here imports the standard library only (before Python 3.14 also its zstd as a package of its own), prctl, and
as little of both as can be: a start costs 20 ms, of which half are
imports. It is done importing before it goes into its chroot, where every file is the archive's.
"""
