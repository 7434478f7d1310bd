"""Whether an instance is healthy: one file a kind of check. A failing check is an answer, never an exception."""
