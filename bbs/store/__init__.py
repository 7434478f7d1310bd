"""All SQL: one module a table, each statement a constant just above its one function. Nothing else speaks SQL."""
