"""Typed clients of the BBS and of a cell; their methods raise the exceptions that the server raised."""
