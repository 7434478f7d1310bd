"""The `diego` command, one file a noun. Talks to a BBS over HTTP; `up` starts one with its cells on this machine."""
