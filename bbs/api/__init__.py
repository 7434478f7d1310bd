"""The BBS over HTTP, one file a noun: parse, call, answer. Decisions and effects are elsewhere."""
