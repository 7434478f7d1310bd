"""All SQL: one module a table, each statement a constant just above its one method. Nothing else speaks SQL.

Rules about rows work on a `Transaction`, whatever keeps its tables: moves, rows, desires, reconcile, replay, fence.
"""
