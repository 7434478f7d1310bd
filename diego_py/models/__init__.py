"""The nouns: frozen attrs values, their validation and their state tables. Pure: no I/O, no clock, no logger.

Import a noun from its own file (`from diego_py.models.task import Task`); nothing is re-exported here.
"""
